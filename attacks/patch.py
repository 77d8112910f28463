"""Patches: a small square of any content (Brown et al. 2017, arXiv:1712.09665, without the physical world)."""

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from attacks.ball import rowwise
from attacks.losses import margin
from bench.contracts import Attack, Classifier, Norm, attack
from bench.errors import PluginError
from bench.randomness import SampleRandom


@attack("patch")
class Patch(Attack):
    """A square of any content, where the margin is steepest: as large as the L0 budget allows, any value in bounds.

    For images. `positions`: so many places are tried, steepest first; `steps` of descent with all pixels of the square
    free, on each.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.L0,)

    norm: Norm = Norm.L0
    positions: Annotated[int, Field(ge=1)] = 5
    steps: Annotated[int, Field(ge=1)] = 40

    def run(self, model: Classifier, x: Tensor, y: Tensor, epsilon: float | None, random: SampleRandom) -> Tensor:
        """See Attack.run. epsilon counts coordinates: channels times the square's area. Images only: PluginError."""
        assert epsilon is not None
        if x.ndim != 4:
            raise PluginError(f"attack 'patch' covers a part of an image; inputs are {tuple(x.shape[1:])}", "take jsma")
        side = min(int((epsilon / x.shape[1]) ** 0.5 + 1e-9), *x.shape[2:])
        if not len(x) or side < 1:
            return x
        result, standing = x.clone(), torch.arange(len(x), device=x.device)
        leaf = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(margin(model.logits(leaf), y).sum(), leaf)
        steep = torch.nn.functional.avg_pool2d(slope.abs().sum(1, keepdim=True), side, stride=1)
        order = steep.flatten(1).argsort(dim=1, descending=True)
        for number in range(min(self.positions, order.shape[1])):
            part = model.rows(standing)
            free = _square(x[standing], order[standing, number], side, steep.shape[3])
            moved = _cover(part, x[standing], y[standing], free, self.steps)
            with torch.no_grad():
                broken = part.logits(moved).argmax(1) != y[standing]
            result[standing[broken]] = moved[broken]
            standing = standing[~broken]
            if not len(standing):
                break
        return result


def _square(x: Tensor, corner: Tensor, side: int, across: int) -> Tensor:
    """(n, *input_shape) bool: a square whose upper left corner is at place `corner` (n,) of rows `across` long."""
    rows, columns = (torch.arange(size, device=x.device) for size in x.shape[2:])
    top, left = (corner // across)[:, None], (corner % across)[:, None]
    down, over = (rows >= top) & (rows < top + side), (columns >= left) & (columns < left + side)
    return (down[:, :, None] & over[:, None, :])[:, None].expand_as(x)


def _cover(model: Classifier, x: Tensor, y: Tensor, free: Tensor, steps: int) -> Tensor:
    """Sign steps across the whole range inside the free coordinates, shrinking; the point of largest margin."""
    low, high = model.bounds
    point, best = x, x
    highest = torch.full((len(x),), -torch.inf, device=x.device)
    for step in range(steps + 1):
        leaf = point.detach().requires_grad_(step < steps)
        value = margin(model.logits(leaf), y)
        better = value.detach() > highest
        best = torch.where(rowwise(better, x), point, best)
        highest = torch.where(better, value.detach(), highest)
        if step < steps:
            (slope,) = torch.autograd.grad(value.sum(), leaf)
            stride = (high - low) * (0.5 - 0.45 * step / steps)
            point = torch.where(free, (point + stride * slope.sign()).clamp(low, high), x)
    return best
