"""Nearest points, exactly, by Newton's method on a sum of clipped terms: all rows at once, and no sort for L2, Linf."""

import torch
from torch import Tensor

from bench.contracts import Norm

ITERATIONS = 100  # far above what is needed: every step of Newton passes at least one kink, and most pass many


def onto_hyperplane(x: Tensor, w: Tensor, c: Tensor, norm: Norm, low: float, high: float) -> Tensor:
    """The shortest d with w·d = c and low <= x + d <= high; the d that comes nearest where there is none.

    x, w: (n, k), x within the limits; c: (n,). Croce and Hein 2020, arXiv:1907.02044, section 2.2: without the box each
    coordinate moves by t (Linf) or t·|w_i| (L2) in the direction that helps, and stops at the box. What is gained,
    as a function of t, is concave and piecewise linear, so that Newton's method from t = 0 never overshoots.
    """
    w = torch.where((c < 0)[:, None], -w, w)
    c = c.abs()
    size = w.abs()
    room = torch.where(w > 0, high - x, x - low).clamp(min=0) * (w != 0)
    if norm is Norm.L1:
        return w.sign() * _greedy(size, room, c)
    speed = size if norm is Norm.L2 else torch.ones_like(size)
    t = torch.zeros_like(c)
    gain = size * speed
    for _ in range(ITERATIONS):
        reach = speed * t[:, None]
        short = c - (size * torch.minimum(reach, room)).sum(1)
        slope = (gain * (reach < room)).sum(1)
        step = torch.where(slope > 0, short / slope.clamp(min=1e-30), 0.0)
        t = t + step.clamp(min=0)
        if bool((step <= 1e-6 * t).all()):
            break
    # a slope of nothing but rounding would carry t to infinity: the room bounds the move
    return w.sign() * torch.minimum(speed * t[:, None], room)


def _greedy(size: Tensor, room: Tensor, c: Tensor) -> Tensor:
    """Lengths (n, k) within `room` that gain c at the least sum: the steepest coordinates first, the last in part."""
    order = size.argsort(dim=1, descending=True)
    gain = (size * room).gather(1, order)
    before = gain.cumsum(1) - gain
    left = (c[:, None] - before).clamp(min=0)
    part = torch.minimum(left / size.gather(1, order).clamp(min=1e-30), room.gather(1, order))
    return torch.empty_like(part).scatter_(1, order, part)


def onto_l1_ball(delta: Tensor, x: Tensor, epsilon: float, low: float, high: float) -> Tensor:
    """The nearest perturbation of x (Euclidean) with L1 norm of at most epsilon and low <= x + d <= high.

    delta, x: (n, ...), x within the limits. It is sign(delta) · clip(|delta| - s, 0, room) with the smallest s >= 0
    that fits (Croce and Hein 2021, arXiv:2103.01208, proposition 3.1); s by Newton's method, kept inside a bracket.
    """
    flat = delta.flatten(1)
    size = flat.abs()
    room = torch.where(flat > 0, high - x.flatten(1), x.flatten(1) - low).clamp(min=0)
    radius = epsilon * (1 - 1e-6)
    lower, upper = torch.zeros_like(size[:, 0]), size.amax(1)
    s = lower
    for _ in range(ITERATIONS):
        left = size - s[:, None]
        excess = torch.minimum(left.clamp(min=0), room).sum(1) - radius
        near = excess.abs() <= 5e-7 * epsilon
        lower, upper = torch.where(excess > 0, s, lower), torch.where((excess <= 0) | near, s, upper)
        if bool((near | (upper - lower <= 1e-7 * upper)).all()):
            break
        slope = ((left > 0) & (left < room)).sum(1)
        newton = s + excess / slope.clamp(min=1)
        inside = (slope > 0) & (newton > lower) & (newton < upper)
        s = torch.where(near, s, torch.where(inside, newton, (lower + upper) / 2))
    moved = flat.sign() * torch.minimum((size - upper[:, None]).clamp(min=0), room)
    return moved.reshape(delta.shape)


def onto_l2_ball(delta: Tensor, x: Tensor, epsilon: float, low: float, high: float) -> Tensor:
    """The nearest perturbation of x with L2 norm of at most epsilon and low <= x + d <= high.

    delta, x: (n, ...), x within the limits. It is the largest s in [0, 1] such that clip(s · delta, limits) fits (the
    multiplier of the norm is 1/s - 1). Its squared length is concave and piecewise linear in s², so that Newton's
    method from 0 never overshoots.
    """
    flat = delta.double().flatten(1)
    room = torch.where(flat > 0, high - x.double().flatten(1), x.double().flatten(1) - low).clamp(min=0)
    square, most = flat.square(), room.square()
    radius = (epsilon * (1 - 1e-6)) ** 2
    u = torch.zeros_like(square[:, 0])
    for _ in range(ITERATIONS):
        reach = square * u[:, None]
        short = radius - torch.minimum(reach, most).sum(1)
        slope = (square * (reach < most)).sum(1)
        step = torch.where(slope > 0, short / slope.clamp(min=1e-300), torch.inf).clamp(min=0)
        u, before = (u + step).clamp(max=1), u
        if bool((u - before <= 1e-12 * u).all()):
            break
    moved = flat.sign() * torch.minimum(flat.abs() * u.sqrt()[:, None], room)
    return moved.to(delta.dtype).reshape(delta.shape)


def onto_l0_ball(delta: Tensor, x: Tensor, epsilon: float, low: float, high: float) -> Tensor:
    """The nearest perturbation of x that changes at most epsilon coordinates and keeps low <= x + d <= high.

    delta, x: (n, ...). Each coordinate comes nearest by clipping, or is 0: kept are those that gain most by it
    (Wang et al. 2021, arXiv:1906.03563, proposition 1).
    """
    flat = delta.flatten(1)
    clipped = torch.minimum(torch.maximum(flat, low - x.flatten(1)), high - x.flatten(1))
    gain = flat.square() - (flat - clipped).square()
    count = min(int(epsilon), flat.shape[1])
    kept = torch.zeros_like(flat, dtype=torch.bool).scatter_(1, gain.topk(count, dim=1).indices, True)
    return torch.where(kept, clipped, torch.zeros_like(clipped)).reshape(delta.shape)


def onto_simplex(values: Tensor, present: Tensor) -> Tensor:
    """The nearest weights >= 0 that sum to 1, for each row; 0 where `present` (n, k) bool says no. values: (n, k).

    They are max(v - m, 0). With the mean over all m is too small at first: what falls below it is left out, until
    nothing does (Michelot 1986). At most k rounds. Each row needs one that is present.
    """
    active = present
    while True:
        m = (torch.where(active, values, 0.0).sum(1) - 1) / active.sum(1)
        left = active & (values > m[:, None])
        if torch.equal(left, active):
            return torch.where(active, values - m[:, None], torch.zeros_like(values))
        active = left
