"""Attacks that may move only some of the pixels."""

from enum import StrEnum
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from attacks.losses import margin
from attacks.outer import Outer
from attacks.overlap import gradient_overlap
from bench.contracts import Classifier, Norm, Wrapped, attack
from bench.randomness import SampleRandom


class Where(StrEnum):
    """How the free pixels are chosen."""

    OVERLAP = "overlap"  # by the model's wiring alone
    GRADIENT = "gradient"  # by the sample's own gradient
    RANDOM = "random"


class Masked(Wrapped):
    """`model` as a function of the free coordinates: all others keep the values of x. x, free: (n, *input_shape)."""

    def __init__(self, model: Classifier, x: Tensor, free: Tensor) -> None:
        super().__init__(model)
        self._x, self._free = x, free

    def around(self, model: Classifier) -> "Masked":
        return Masked(model, self._x, self._free)

    @property
    def module(self) -> None:
        """None: that of the model is a function of all coordinates."""

    def rows(self, rows: Tensor) -> "Masked":
        return Masked(self._model.rows(rows), self._x[rows], self._free[rows])

    def seen(self, x: Tensor) -> Tensor:
        """See Wrapped.seen. Takes as many inputs as it has rows."""
        return torch.where(self._free, x, self._x)


@attack("restricted")
class Restricted(Outer):
    """Another attack that may move only a share of the pixels: those of largest gradient overlap, say.

    `attack` and `args`: the attack inside a ball that is restricted. `share`: of the pixels (all channels of each) or,
    where inputs are no images, of the coordinates. `where`: `overlap`, the pixels that most paths of the net lead to;
    `gradient`, those where the sample's own margin is steepest; `random`, of the sample's own stream.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF, Norm.L2, Norm.L1)
    role: ClassVar[str] = "is restricted"

    share: Annotated[float, Field(gt=0, le=1)] = 0.3
    where: Where = Where.OVERLAP

    @property
    def averages(self) -> bool:
        return self.inner().averages

    def run(self, model: Classifier, x: Tensor, y: Tensor, epsilon: float | None, random: SampleRandom) -> Tensor:
        """See Attack.run. Raises PluginError for `overlap` on a model without a torch module."""
        if not len(x):
            return x
        free = self.free(model, x, y, random)
        return torch.where(free, self.inner().run(Masked(model, x, free), x, y, epsilon, random), x)

    def free(self, model: Classifier, x: Tensor, y: Tensor, random: SampleRandom) -> Tensor:
        """(n, *input_shape) bool: the coordinates that may move."""
        if self.where is Where.RANDOM:
            score = random.uniform(_places(x), device=str(x.device))
        elif self.where is Where.OVERLAP:
            score = _over_channels(gradient_overlap(model, x[:1])).expand(len(x), *_places(x))
        else:
            leaf = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(margin(model.logits(leaf), y).sum(), leaf)
            score = _over_channels(slope.abs())
        flat = score.flatten(1)
        count = max(1, int(self.share * flat.shape[1]))
        chosen = torch.zeros_like(flat, dtype=torch.bool).scatter_(1, flat.topk(count, dim=1).indices, True)
        chosen = chosen.reshape(score.shape)
        return (chosen[:, None] if x.ndim == 4 else chosen).expand_as(x)


@attack("restricted_minimal")
class RestrictedMinimal(Restricted):
    """The same for attacks that look for the smallest distance: on the free pixels alone, say CW, DeepFool or JSMA."""

    norms: ClassVar[tuple[Norm, ...]] = (Norm.L2, Norm.L0, Norm.L1, Norm.LINF)
    minimal: ClassVar[bool] = True

    norm: Norm = Norm.L2
    attack: str = Field(default="cw", description="the attack inside")


def _places(x: Tensor) -> torch.Size:
    return x.shape[2:] if x.ndim == 4 else x.shape[1:]


def _over_channels(values: Tensor) -> Tensor:
    return values.sum(1) if values.ndim == 4 else values
