"""Monte Carlo dropout: Gal and Ghahramani 2016, Dropout as a Bayesian Approximation."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from bench.contracts import Classifier, Detector, detector
from bench.detectors._disagreement import Measure, disagreement
from bench.errors import PluginError
from bench.randomness import SampleRandom

# dimensions of an activation, behind that of the batch, that share one draw
_SHARED: dict[type[nn.Module], int] = {nn.Dropout: 0, nn.Dropout1d: 1, nn.Dropout2d: 2, nn.Dropout3d: 3}


@detector("mc_dropout")
class McDropout(Detector):
    """Disagreement of many passes with dropout switched on.

    entropy: of the mean of the probabilities, in nats. mutual_information: that less the mean entropy of the passes
    (Houlsby et al. 2011, BALD). variation_ratio: share of passes whose class is not the commonest. Only dropout layers
    draw, per image: the masks depend neither on the batch nor on the worker. BatchNorm stays in eval mode.
    """

    passes: Annotated[int, Field(ge=2)] = 50
    measure: Measure = "entropy"

    def score(self, model: Classifier, x: Tensor, random: SampleRandom) -> NDArray[np.float64]:
        with torch.no_grad(), _dropping(model, random):
            return disagreement((model.logits(x) for _ in range(self.passes)), self.measure)


@contextmanager
def _dropping(model: Classifier, random: SampleRandom) -> Iterator[None]:
    """Inside, dropout layers drop, though they are in eval mode. Raises PluginError where there are none."""
    layers = [part for part in (model.module.modules() if model.module else ()) if type(part) in _SHARED]
    if not any(layer.p > 0 for layer in layers):  # type: ignore[operator]
        raise PluginError("detector 'mc_dropout' needs a model with dropout layers, and this one has none")

    def drop(layer: nn.Module, _: object, out: Tensor) -> Tensor:
        p, shared = float(layer.p), _SHARED[type(layer)]  # type: ignore[arg-type]
        shape = out.shape[1:] if not shared else (*out.shape[1 : out.ndim - shared], *[1] * shared)
        kept = random.uniform(shape, device=str(out.device)) >= p
        return out * kept / (1 - p) if p < 1 else torch.zeros_like(out)

    hooks = [layer.register_forward_hook(drop) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
