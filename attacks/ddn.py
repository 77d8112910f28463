"""Decoupled direction and norm (Rony et al. 2019, arXiv:1811.09600, algorithm 1)."""

import math
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from attacks.ball import rowwise
from attacks.nearest import Nearest
from attacks.standing import lost
from bench.contracts import Attack, Classifier, Knowledge, Norm, attack
from bench.randomness import SampleRandom


@attack("ddn")
class DecoupledDirectionNorm(Attack):
    """Smallest L2 distance: steps along the gradient on a sphere that shrinks when the label is lost, else grows.

    `gamma`: by which share the radius changes. Steps have unit length at first (in units of the bounds' width) and a
    hundredth of it at last, by a cosine.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.L2,)
    knowledge: ClassVar[Knowledge] = Knowledge.WHITE_BOX
    minimal: ClassVar[bool] = True
    swift: ClassVar[bool] = True

    norm: Norm = Norm.L2
    steps: Annotated[int, Field(ge=1)] = 100
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.05

    def run(self, model: Classifier, x: Tensor, y: Tensor, epsilon: float | None, random: SampleRandom) -> Tensor:
        """See Attack.run. steps + 1 forward and steps backward passes per sample."""
        nearest = Nearest(x, self.norm)
        if not len(x):
            return x
        low, high = model.bounds
        width = high - low
        delta = torch.zeros_like(x)
        radius = torch.full((len(x),), width, device=x.device)
        for step in range(self.steps + 1):
            point = (x + delta).clamp(low, high).detach().requires_grad_(step < self.steps)
            logits = model.logits(point)
            gone = lost(logits.detach(), y)
            nearest.take(point.detach(), gone)
            if step == self.steps:
                break
            (gradient,) = torch.autograd.grad(cross_entropy(logits, y, reduction="sum"), point)
            rate = width * (0.01 + 0.99 * (1 + math.cos(math.pi * step / self.steps)) / 2)
            delta = delta + rate * _unit(gradient)
            radius = radius * torch.where(gone, 1 - self.gamma, 1 + self.gamma)
            delta = rowwise(radius, x) * _unit(delta)
            delta = (x + delta).clamp(low, high) - x
        return nearest.point


def _unit(rows: Tensor) -> Tensor:
    """Each row at length one; a row of zeros stays as it is."""
    return rows / rowwise(rows.flatten(1).norm(dim=1).clamp(min=1e-12), rows)
