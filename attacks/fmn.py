"""Fast minimum norm (Pintor et al. 2021, arXiv:2102.12827, algorithm 1)."""

import math
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from attacks.ball import length, rowwise
from attacks.losses import margin
from attacks.nearest import Nearest
from attacks.standing import lost
from bench.contracts import Attack, Classifier, Knowledge, Norm, attack
from bench.randomness import SampleRandom

DUAL = {Norm.L0: Norm.LINF, Norm.L1: Norm.LINF, Norm.L2: Norm.L2, Norm.LINF: Norm.L1}


@attack("fmn")
class FastMinimumNorm(Attack):
    """Smallest distance in any norm: normalised gradient steps inside a ball whose radius follows the boundary.

    The radius shrinks where the label is lost, by `gamma` that falls to a thousandth, and grows where it is not; until
    a sample was broken once, the radius is the distance of the linearised boundary. `step_size`: of the first step, in
    units of the bounds' width; the last is a thousandth of it, by a cosine. Steps are of L2 length in every norm.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.L2, Norm.LINF, Norm.L1, Norm.L0)
    knowledge: ClassVar[Knowledge] = Knowledge.WHITE_BOX
    minimal: ClassVar[bool] = True
    swift: ClassVar[bool] = True

    norm: Norm = Norm.L2
    steps: Annotated[int, Field(ge=1)] = 100
    step_size: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.05

    def run(self, model: Classifier, x: Tensor, y: Tensor, epsilon: float | None, random: SampleRandom) -> Tensor:
        """See Attack.run. steps + 1 forward and steps backward passes per sample."""
        nearest = Nearest(x, self.norm)
        if not len(x):
            return x
        low, high = model.bounds
        delta = torch.zeros_like(x)
        radius = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)
        for step in range(self.steps + 1):
            point = (x + delta).clamp(low, high).detach().requires_grad_(step < self.steps)
            logits = model.logits(point)
            gap = margin(logits, y)
            gone = lost(logits.detach(), y)
            nearest.take(point.detach(), gone)
            if step == self.steps:
                break
            (gradient,) = torch.autograd.grad(gap.sum(), point)
            fall = (1 + math.cos(math.pi * step / self.steps)) / 2
            radius = self._radius(radius, delta, gap.detach(), gradient, gone, nearest, self.gamma * max(fall, 1e-3))
            size = rowwise(gradient.flatten(1).norm(dim=1).clamp(min=1e-12), gradient)
            delta = delta + self.step_size * (high - low) * max(fall, 1e-3) * gradient / size
            delta = ((x + delta).clamp(low, high)) - x
            delta = (x + _onto_ball(delta, self.norm, radius)).clamp(low, high) - x
        return nearest.point

    def _radius(
        self, radius: Tensor, delta: Tensor, gap: Tensor, gradient: Tensor, gone: Tensor, nearest: Nearest, share: float
    ) -> Tensor:
        """The radii (n,) float64 of the next projections."""
        here = length(delta, self.norm)
        away = gap.abs().double() / length(gradient, DUAL[self.norm]).clamp(min=1e-12)
        if self.norm is Norm.L0:
            shrunk = torch.minimum(torch.floor(radius * (1 - share)), nearest.distance - 1).clamp(min=1)
            grown = torch.maximum(torch.floor(radius * (1 + share)), radius + 1)
            away = away.ceil().clamp(min=1)
        else:
            shrunk, grown = torch.minimum(radius, nearest.distance) * (1 - share), radius * (1 + share)
        found = torch.where(gone, shrunk, grown)
        return torch.where(nearest.found, found, (here + away) * (1 + share))


def _onto_ball(delta: Tensor, norm: Norm, radius: Tensor) -> Tensor:
    """The nearest perturbations (n, ...) in balls of these radii (n,), around 0."""
    limit = rowwise(radius, delta).to(delta.dtype)
    if norm is Norm.LINF:
        return torch.minimum(torch.maximum(delta, -limit), limit)
    if norm is Norm.L2:
        size = rowwise(delta.flatten(1).norm(dim=1).clamp(min=1e-12), delta)
        return delta * (limit / size).clamp(max=1)
    flat = delta.flatten(1)
    ordered = flat.abs().sort(dim=1, descending=True).values
    if norm is Norm.L0:
        kept = radius.clamp(max=flat.shape[1]).long().clamp(min=1)
        least = ordered.gather(1, (kept - 1)[:, None])
        return torch.where(flat.abs() >= least, flat, 0.0).reshape(delta.shape)
    return _soft(flat, ordered, radius).reshape(delta.shape)


def _soft(flat: Tensor, ordered: Tensor, radius: Tensor) -> Tensor:
    """The projection on the L1 ball by its threshold (Duchi et al. 2008, figure 1). ordered: |flat|, falling."""
    rank = torch.arange(1, flat.shape[1] + 1, device=flat.device)
    threshold = (ordered.double().cumsum(1) - radius[:, None]) / rank
    last = (ordered > threshold).sum(1).clamp(min=1) - 1
    cut = threshold.gather(1, last[:, None]).clamp(min=0).to(flat.dtype)
    return flat.sign() * (flat.abs() - cut).clamp(min=0)
