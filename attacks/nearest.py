"""What searches for the smallest distance share: the nearest broken input so far."""

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
