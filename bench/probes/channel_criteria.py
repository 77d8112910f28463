"""How well each criterion of pruning tells what removing a channel really costs."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.stats import spearmanr
from torch import Tensor

from bench.contracts import Classifier, Figure, Probe, Samples, probe
from bench.errors import PluginError
from bench.probes._spread import spread_indices
from bench.probes.parameters import NO_MODULE
from bench.saliency import CRITERIA, importance, normalised

RANKED = (*(name for name in CRITERIA if name != "oracle"), "random")
WAYS = ("layer", "raw", "normalised")
CONSTANT = "undefined: all channels are equally important to it, or to the oracle"


@probe("channel_criteria")
class ChannelCriteria(Probe):
    """Spearman's rank correlation of every pruning criterion with the oracle (Molchanov et al. 2017, table 1).

    The oracle is the change of the loss when a channel is left out. `spearman/CRITERION/layer` is the mean of the
    correlations within each convolution, `.../raw` the correlation over all channels of all convolutions together,
    `.../normalised` the same after each layer's importance was divided by its L2 norm; n is the number of channels.
    """

    inputs: int = Field(default=500, ge=2, description="real inputs, evenly spread over the data")
    seed: int = Field(default=0, ge=0, description="of the criterion `random`")

    def measure(self, model: Classifier, samples: Samples, artefact: bytes | None) -> Sequence[Figure]:
        if model.module is None:
            return [Figure(name=name, value=None, flags=(NO_MODULE,)) for name in self.figures()]
        rows = spread_indices(samples, self.inputs)
        x = samples.fetch(rows).to(model.device, torch.float32)
        y = torch.from_numpy(samples.labels[rows]).to(model.device)
        try:
            truth = importance("oracle", model.module, x, y)
        except PluginError as problem:
            return [Figure(name=name, value=None, flags=(f"undefined: {problem}",)) for name in self.figures()]
        random = torch.Generator().manual_seed(self.seed)
        found = {name: importance(name, model.module, x, y, random) for name in RANKED}
        return [_figure(name, way, found[name], truth) for name in RANKED for way in WAYS]

    @classmethod
    def figures(cls) -> tuple[str, ...]:
        return tuple(f"spearman/{name}/{way}" for name in RANKED for way in WAYS)


def correlation(found: Sequence[Tensor], truth: Sequence[Tensor], way: str) -> float | None:
    """Spearman's correlation, ties by average rank, in one of WAYS. found, truth: (channels,) per layer.

    None where a side is constant. A layer of one channel has no correlation, and is left out of the mean of `layer`.
    """
    if way == "layer":
        each = [_spearman(a.numpy(), b.numpy()) for a, b in zip(found, truth, strict=True) if len(a) > 1]
        known = [value for value in each if value is not None]
        return sum(known) / len(known) if known and len(known) == len(each) else None
    layers = normalised(found) if way == "normalised" else found
    return _spearman(torch.cat(list(layers)).numpy(), torch.cat(list(truth)).numpy())


def _spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float | None:
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(spearmanr(a, b).statistic)


def _figure(name: str, way: str, found: Sequence[Tensor], truth: Sequence[Tensor]) -> Figure:
    value = correlation(found, truth, way)
    flags = (CONSTANT,) if value is None else ()
    return Figure(name=f"spearman/{name}/{way}", value=value, n=sum(map(len, truth)), flags=flags)
