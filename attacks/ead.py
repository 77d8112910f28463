"""Elastic-net attack (Chen et al. 2018, arXiv:1709.04114, algorithm 1)."""

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from attacks.ball import rowwise
from attacks.losses import margin
from attacks.nearest import ConstantSearch
from attacks.standing import lost
from bench.contracts import Attack, Classifier, Knowledge, Norm, attack
from bench.randomness import SampleRandom


@attack("ead")
class ElasticNet(Attack):
    """Smallest L1 distance: shrinkage steps (FISTA) on c · max(0, margin + confidence) + |d|² + beta · |d|₁.

    d is in units of the bounds' width. `binary_search`: how many values of c are tried per sample, ten times as large
    until one succeeds, then by halving on a logarithmic scale. `decision`: which broken iterate is kept, the nearest
    in `l1` or by the `elastic` sum.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.L1,)
    knowledge: ClassVar[Knowledge] = Knowledge.WHITE_BOX
    minimal: ClassVar[bool] = True
    swift: ClassVar[bool] = True

    norm: Norm = Norm.L1
    steps: Annotated[int, Field(ge=1)] = 200
    binary_search: Annotated[int, Field(ge=1)] = 9
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.01
    initial_const: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.01
    beta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.01
    confidence: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    decision: Literal["l1", "elastic"] = "l1"

    def run(self, model: Classifier, x: Tensor, y: Tensor, epsilon: float | None, random: SampleRandom) -> Tensor:
        """See Attack.run. At most `steps` times `binary_search` forward and backward passes per sample."""
        if not len(x):
            return x
        best, least = x.clone(), torch.full((len(x),), torch.inf, device=x.device)
        search = ConstantSearch(x, self.initial_const)
        for _ in range(self.binary_search):
            point, cost = self._descend(model, x, y, search.const)
            nearer = cost < least
            best, least = torch.where(rowwise(nearer, x), point, best), torch.where(nearer, cost, least)
            search.learn(cost.isfinite())
        return best

    def _descend(self, model: Classifier, x: Tensor, y: Tensor, const: Tensor) -> tuple[Tensor, Tensor]:
        """The best broken iterate (n, ...) and its cost (n,); inf where there is none."""
        low, high = model.bounds
        width = high - low
        best, least = x.clone(), torch.full((len(x),), torch.inf, device=x.device)
        here = ahead = x
        for step in range(self.steps):
            rate = self.learning_rate * math.sqrt(1 - step / self.steps)
            ahead = ahead.detach().requires_grad_()
            gap = margin(model.logits(ahead), y)
            smooth = const * (self.confidence - gap).clamp(min=0) + ((ahead - x) / width).flatten(1).square().sum(1)
            (gradient,) = torch.autograd.grad(smooth.sum(), ahead)
            moved = ahead.detach() - rate * width**2 * gradient
            before, here = here, _shrink(moved, x, self.beta * width).clamp(low, high)
            with torch.no_grad():
                logits = model.logits(here)
            gone = lost(logits, y) & (margin(logits, y) >= self.confidence)
            cost = self._cost((here - x) / width)
            nearer = gone & (cost < least)
            best, least = torch.where(rowwise(nearer, x), here, best), torch.where(nearer, cost, least)
            ahead = here + step / (step + 3) * (here - before)
        return best, least

    def _cost(self, delta: Tensor) -> Tensor:
        flat = delta.flatten(1)
        size = flat.abs().sum(1)
        return size if self.decision == "l1" else flat.square().sum(1) + self.beta * size


def _shrink(point: Tensor, x: Tensor, beta: float) -> Tensor:
    """The point with every coordinate drawn towards x by beta, and set to it within beta."""
    delta = point - x
    return x + delta.sign() * (delta.abs() - beta).clamp(min=0)
