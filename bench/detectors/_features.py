"""Activations of a layer, block by block, and a streamed covariance of them: no more than a block is ever held."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.contracts import Classifier, Samples
from bench.errors import PluginError

WIDEST = 20_000  # features of which a covariance (3.2 GB) is still worth its memory
Rows = NDArray[np.int64]


def features(model: Classifier, x: Tensor, layer: str | None, pool: bool = False) -> Tensor:
    """Flat activations (n, m) float64 on the CPU of a feature layer; None: what enters the last linear layer.

    pool: average over all positions of each channel first. Raises PluginError where there is no such layer.
    """
    with torch.no_grad():
        return activations(model, x, layer, pool).cpu()


def activations(model: Classifier, x: Tensor, layer: str | None, pool: bool = False) -> Tensor:
    """The same on the model's device, with a gradient to x."""
    found = model.features(x, layer) if layer is not None else penultimate(model, x)[0]
    if pool and found.ndim > 2:
        found = found.flatten(2).mean(dim=2)
    return found.flatten(1).double()


def penultimate(model: Classifier, x: Tensor) -> tuple[Tensor, Tensor]:
    """What enters the last linear layer, (n, m), and the logits (n, classes), of one pass, on the model's device.

    Both with a gradient to x, unless that is switched off.
    """
    seen: list[Tensor] = []
    hook = last_linear(model).register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    try:
        logits = model.logits(x)
    finally:
        hook.remove()
    if len(seen) != 1 or len(seen[0]) != len(x):
        raise PluginError(f"the last linear layer ran {len(seen)} times in one pass", "name a `layer:` instead")
    return seen[0], logits


def last_linear(model: Classifier) -> nn.Linear:
    """The last linear layer that yields one value per class. Raises PluginError where there is none."""
    layers = [part for part in (model.module.modules() if model.module else ()) if isinstance(part, nn.Linear)]
    found = [part for part in layers if part.out_features == model.classes]
    if not found:
        named = ", ".join(model.feature_layers) or "none"
        raise PluginError(
            "the model has no linear layer that yields its classes", f"name a `layer:` (its feature layers: {named})"
        )
    return found[-1]


def blocks(model: Classifier, samples: Samples, rows: Rows, size: int) -> Iterator[Tensor]:
    """The inputs of these rows in order, `size` at a time, on the model's device."""
    for start in range(0, len(rows), size):
        yield samples.fetch(rows[start : start + size]).to(model.device)


@dataclass
class Moments:
    """Mean (m,) and scatter Σ (a−μ)(a−μ)ᵀ (m, m) float64 of rows that come in blocks. Chan, Golub and LeVeque 1983."""

    count: int = 0
    mean: Tensor | None = None
    scatter: Tensor | None = None

    def add(self, block: Tensor) -> None:
        """block: (n, m) float64, n > 0. Raises PluginError where the covariance would be too large."""
        if block.shape[1] > WIDEST:
            raise PluginError(
                f"the layer has {block.shape[1]:,} features, more than the {WIDEST:,} whose covariance can be held",
                "add `pool: true`, or choose a later layer",
            )
        middle = block.mean(dim=0)
        off = block - middle
        if self.mean is None or self.scatter is None:
            self.count, self.mean, self.scatter = len(block), middle, off.T @ off
            return
        total = self.count + len(block)
        shift = middle - self.mean
        self.scatter.addmm_(off.T, off)
        self.scatter.addr_(shift, shift, alpha=self.count * len(block) / total)
        self.mean = self.mean + shift * (len(block) / total)
        self.count = total


def moments(model: Classifier, samples: Samples, rows: Rows, size: int, layer: str | None, pool: bool) -> Moments:
    """Of the features of these rows. Raises PluginError for fewer than two rows, and where no feature varies."""
    found = Moments()
    for x in blocks(model, samples, rows, size):
        found.add(features(model, x, layer, pool))
    if found.count < 2 or found.scatter is None or not float(found.scatter.diagonal().sum()) > 0:
        raise PluginError(
            f"the features of {found.count} inputs do not vary, so that nothing can be learnt from them",
            "fit on more data, or choose another layer",
        )
    return found
