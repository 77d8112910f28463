"""What searches for the smallest distance share: the nearest broken input so far, and the search for a constant."""

import torch
from torch import Tensor

from attacks.ball import length, rowwise
from bench.contracts import Norm


class Nearest:
    """For each row of x (n, ...) the nearest broken input found; x itself until there is one."""

    def __init__(self, x: Tensor, norm: Norm) -> None:
        self.x, self.norm = x, norm
        self.point = x.clone()
        self.distance = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)

    @property
    def found(self) -> Tensor:
        """(n,) bool: whether any was found."""
        return self.distance.isfinite()

    def take(self, point: Tensor, broken: Tensor) -> Tensor:
        """Keep what is broken (n,) bool and nearer than before; returns which (n,) bool these were."""
        far = length(point - self.x, self.norm)
        nearer = broken & (far < self.distance)
        self.point = torch.where(rowwise(nearer, point), point, self.point)
        self.distance = torch.where(nearer, far, self.distance)
        return nearer


class ConstantSearch:
    """For each sample the weight c (n,) of misclassification against distance: times ten until it succeeds, then by
    halving on a logarithmic scale (Carlini and Wagner 2017, section VI)."""

    def __init__(self, x: Tensor, initial: float) -> None:
        self.const = torch.full((len(x),), initial, device=x.device)
        self._lower, self._upper = torch.zeros_like(self.const), torch.full_like(self.const, torch.inf)

    def learn(self, succeeded: Tensor) -> None:
        """succeeded: (n,) bool, with the present constants. Moves them."""
        const = self.const
        self._upper = torch.where(succeeded, torch.minimum(self._upper, const), self._upper)
        self._lower = torch.where(succeeded, self._lower, torch.maximum(self._lower, const))
        between = torch.where(self._lower > 0, (self._lower * self._upper).sqrt(), self._upper / 10)
        self.const = torch.where(self._upper.isinf(), const * 10, between)
