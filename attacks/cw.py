"""The L2 attack of Carlini and Wagner 2017, arXiv:1608.04644, sections V and VI."""

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from attacks.losses import margin
from attacks.nearest import ConstantSearch, Nearest
from attacks.standing import lost
from bench.contracts import Attack, Classifier, Knowledge, Norm, attack
from bench.randomness import SampleRandom

INSIDE = 1 - 1e-6  # of the way from the middle to the bounds: where arctanh is finite


@attack("cw")
class CarliniWagner(Attack):
    """Smallest L2 distance: Adam on |d|² + c · max(0, margin + confidence) in tanh space; c by a search per sample.

    d is in units of the bounds' width. `binary_search`: how many values of c are tried, ten times as large until one
    succeeds, then by halving on a logarithmic scale. `steps` of Adam for each; `learning_rate` is in units of tanh
    space. Nothing is shared between samples, and there is no abort: `steps` times `binary_search` passes are made.
    `eot`: passes whose mean logits each step follows where the model is stochastic (Athalye et al. 2018); on any other
    they would all be the same, and one is made.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.L2,)
    knowledge: ClassVar[Knowledge] = Knowledge.WHITE_BOX
    minimal: ClassVar[bool] = True
    swift: ClassVar[bool] = True

    norm: Norm = Norm.L2
    steps: Annotated[int, Field(ge=1)] = 200
    binary_search: Annotated[int, Field(ge=1)] = 9
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.05
    initial_const: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.01
    confidence: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    eot: Annotated[int, Field(ge=1)] = 1

    @property
    def averages(self) -> bool:
        return self.eot > 1

    def run(self, model: Classifier, x: Tensor, y: Tensor, epsilon: float | None, random: SampleRandom) -> Tensor:
        """See Attack.run. Returns the nearest broken iterate, or the input itself where there is none."""
        nearest = Nearest(x, self.norm)
        if not len(x):
            return x
        search = ConstantSearch(x, self.initial_const)
        for _ in range(self.binary_search):
            search.learn(self._descend(model, x, y, search.const, nearest))
        return nearest.point

    def _descend(self, model: Classifier, x: Tensor, y: Tensor, const: Tensor, nearest: Nearest) -> Tensor:
        """Descends from x with these constants (n,); returns which (n,) were ever broken with confidence."""
        low, high = model.bounds
        middle, half = (high + low) / 2, (high - low) / 2
        w = torch.atanh((x - middle) / half * INSIDE)
        adam = Adam(w, self.learning_rate)
        succeeded = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        for step in range(self.steps + 1):
            w = w.detach().requires_grad_(step < self.steps)
            point = (middle + half * torch.tanh(w) / INSIDE).clamp(low, high)
            logits = self._scores(model, point)
            gap = margin(logits, y)
            nearest.take(point.detach(), lost(logits.detach(), y))
            succeeded |= gap.detach() > self.confidence
            if step < self.steps:
                squared = ((point - x) / (high - low)).flatten(1).square().sum(1)
                loss = squared + const * (self.confidence - gap).clamp(min=0)
                (gradient,) = torch.autograd.grad(loss.sum(), w)
                w = adam.step(w.detach(), gradient)
        return succeeded

    def _scores(self, model: Classifier, point: Tensor) -> Tensor:
        """Logits (n, classes), their mean over `eot` passes where two passes may differ."""
        if self.eot == 1 or not model.stochastic:
            return model.logits(point)
        return torch.stack([model.logits(point) for _ in range(self.eot)]).mean(0)


class Adam:
    """Kingma and Ba 2015, elementwise, so that no sample sees another."""

    def __init__(self, like: Tensor, rate: float) -> None:
        self.mean, self.square, self.rate, self.count = torch.zeros_like(like), torch.zeros_like(like), rate, 0

    def step(self, point: Tensor, gradient: Tensor) -> Tensor:
        """The point after one step against the gradient."""
        self.count += 1
        self.mean = 0.9 * self.mean + 0.1 * gradient
        self.square = 0.999 * self.square + 0.001 * gradient.square()
        mean, square = self.mean / (1 - 0.9**self.count), self.square / (1 - 0.999**self.count)
        return point - self.rate * mean / (square.sqrt() + 1e-8)
