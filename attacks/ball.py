"""The set an attack may move in: a ball around each input, cut by the bounds, exactly, in the input's own dtype."""

import copy
from typing import Self

import torch
from torch import Tensor

from bench.contracts import Bounds, Norm


def box(x: Tensor, epsilon: float, bounds: Bounds) -> tuple[Tensor, Tensor]:
    """Lowest and highest value of each coordinate in the L-infinity ball and the bounds, each of x's shape and dtype.

    `x + epsilon` may round to a float that lies further than epsilon from x: such limits are moved one float inwards,
    so that `|limit - x| <= epsilon` holds for the stored numbers.
    """
    exact = x.double()
    low, high = x - epsilon, x + epsilon
    low = torch.where(exact - low.double() > epsilon, torch.nextafter(low, x), low)
    high = torch.where(high.double() - exact > epsilon, torch.nextafter(high, x), high)
    return low.clamp(min=bounds.low), high.clamp(max=bounds.high)


def length(delta: Tensor, norm: Norm) -> Tensor:
    """Norm of each row of a perturbation (n, ...), as (n,) float64; a number of coordinates for L0."""
    flat = delta.double().flatten(1)
    order = {Norm.L0: 0.0, Norm.L1: 1.0, Norm.L2: 2.0, Norm.LINF: float("inf")}[norm]
    size: Tensor = torch.linalg.vector_norm(flat, order, dim=1)
    return size


def project(adversarial: Tensor, x: Tensor, norm: Norm, epsilon: float, bounds: Bounds) -> Tensor:
    """The nearest point (L-infinity) or the point on the way to x (L1, L2) that lies in the ball and the bounds.

    adversarial, x: (n, ...), x in bounds. epsilon: radius in input units. Scaled perturbations end one millionth
    inside the ball, so that rounding cannot carry them out. Raises ValueError for L0, which has no such point.
    """
    if norm is Norm.LINF:
        low, high = box(x, epsilon, bounds)
        return torch.minimum(torch.maximum(adversarial, low), high)
    if norm is Norm.L0:
        raise ValueError("a perturbation has no projection on an L0 ball: run the attack as minimal")
    adversarial = adversarial.clamp(bounds.low, bounds.high)
    size = length(adversarial - x, norm)
    factor = torch.where(size > epsilon, epsilon * (1 - 1e-6) / size.clamp(min=1e-300), 1.0)
    shrunk = x + (adversarial - x) * rowwise(factor, x).to(x.dtype)
    return torch.where(rowwise(size > epsilon, x), shrunk.clamp(bounds.low, bounds.high), adversarial)


def rowwise(values: Tensor, like: Tensor) -> Tensor:
    """(n,) as (n, 1, ..., 1), to be broadcast over the rows of `like`."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))


class Balls:
    """The balls of radius epsilon around the rows of x (n, ...), cut by the bounds."""

    def __init__(self, x: Tensor, epsilon: float, bounds: Bounds) -> None:
        self.x, self.epsilon, self.bounds = x, epsilon, bounds

    def rows(self, keep: Tensor) -> Self:
        """Those of the rows of a mask (n,)."""
        part = copy.copy(self)
        part.x = self.x[keep]
        return part


class Boxes(Balls):
    """Those of the L-infinity norm: each coordinate lies between `low` and `high`, (n, ...) each."""

    def __init__(self, x: Tensor, epsilon: float, bounds: Bounds) -> None:
        super().__init__(x, epsilon, bounds)
        self.low, self.high = box(x, epsilon, bounds)

    def rows(self, keep: Tensor) -> Self:
        part = super().rows(keep)
        part.low, part.high = self.low[keep], self.high[keep]
        return part

    def project(self, point: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(point, self.low), self.high)
