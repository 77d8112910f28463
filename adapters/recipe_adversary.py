"""Adversarial training: what is done to a batch before the net learns from it."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812  the name that every torch program uses
from pydantic import Field, model_validator
from torch import Tensor, nn

from bench.contracts import Bounds, Frozen


class Adversary(Frozen):
    """Whom the net is trained against, in the L-infinity ball.

    fgsm: one step of size epsilon (Goodfellow et al. 2015) away from the net's own prediction, since the label would
    leak (Kurakin et al. 2017, section 4). pgd: `steps` steps from a random start, away from the label (Madry et al.
    2018). Examples are crafted on the net in eval mode, as an attacker meets it: BatchNorm uses its running statistics,
    and crafting does not move them; the net then learns from the examples in training mode.
    """

    kind: Literal["fgsm", "pgd"] = Field(description="the attack")
    epsilon: float = Field(default=0.3, gt=0, description="radius in input units; with `spread` the largest")
    spread: float | None = Field(
        default=None, gt=0, description="draw each sample's epsilon from |N(0, spread)| cut off at `epsilon`"
    )
    steps: int = Field(default=40, ge=1, description="of pgd")
    step_size: float | None = Field(default=None, gt=0, description="of pgd, input units; default 2.5 epsilon / steps")
    clean_weight: float = Field(default=0.0, ge=0, lt=1, description="of the loss on the untouched samples")
    last_epochs: int | None = Field(default=None, ge=1, description="train against it at the end only, so long")

    @model_validator(mode="after")
    def _belongs(self) -> "Adversary":
        given = [name for name in ("steps", "step_size") if name in self.model_fields_set]
        if self.kind == "fgsm" and given and (self.steps, self.step_size) != (40, None):
            raise ValueError(f"fgsm takes one step: remove `{given[0]}`")
        return self


def named(value: Any) -> Any:
    """`pgd` stands for `{kind: pgd}`."""
    return {"kind": value} if isinstance(value, str) else value


def epsilons(adversary: Adversary, n: int, random: torch.Generator) -> Tensor:
    """(n,) float32: the radius of each sample.

    With `spread` = σ: |N(0, σ²)| given that it is at most `epsilon`, by inversion (Kurakin et al. 2017, section 4.1,
    where epsilon = 2σ).
    """
    if adversary.spread is None:
        return torch.full((n,), adversary.epsilon)
    uniform = torch.rand(n, generator=random, dtype=torch.float64)
    scale = adversary.spread * math.sqrt(2)
    drawn = scale * torch.erfinv(uniform * math.erf(adversary.epsilon / scale))
    return drawn.to(torch.float32).clamp(max=adversary.epsilon)


def craft(
    net: nn.Module, x: Tensor, y: Tensor, adversary: Adversary, bounds: Bounds, random: torch.Generator
) -> Tensor:
    """Adversarial examples (n, *shape) of x inside the bounds. Leaves modes, statistics and gradients untouched."""
    radius = epsilons(adversary, len(x), random).reshape(-1, *[1] * (x.ndim - 1))
    with _in_eval_mode(net):
        if adversary.kind == "fgsm":
            with torch.no_grad():
                predicted = net(x).argmax(1)
            return (x + radius * _ascent(net, x, predicted)).clamp(*bounds)
        low, high = (x - radius).clamp(min=bounds.low), (x + radius).clamp(max=bounds.high)
        step = adversary.step_size or 2.5 * radius / adversary.steps
        moved = low + (high - low) * torch.rand(x.shape, generator=random)
        for _ in range(adversary.steps):
            moved = (moved + step * _ascent(net, moved, y)).clamp(low, high)
        return moved


def _ascent(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Sign of the loss's gradient at x, which has no part in the gradients of the parameters."""
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(net(x), y, reduction="sum"), x)
    return gradient.sign()


@contextmanager
def _in_eval_mode(net: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
