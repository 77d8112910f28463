"""How many different numbers a model's weights are."""

from collections.abc import Sequence

import numpy as np
from torch import nn

from bench.contracts import Classifier, Figure, Probe, Samples, probe
from bench.probes.parameters import NO_MODULE, hidden

NO_WEIGHTS = "undefined: no convolution or linear layer has a weight that is not zero"


@probe("sharing")
class Sharing(Probe):
    """Zeros, sharing and compression of the weights, as Zhang et al. 2018 (GrOWL, table 1) count them.

    Over the weights of convolutions and linear layers: `sharing/zeros` is the share of zeros, `sharing/sharing` the
    weights that are not zero over the different values among them, layer by layer, and `sharing/compression` all
    weights over these. A value that occurs twice by chance counts as shared: a few per mille of float32 weights.
    """

    def measure(self, model: Classifier, samples: Samples, artefact: bytes | None) -> Sequence[Figure]:
        if model.module is None:
            return [Figure(name=name, value=None, flags=(NO_MODULE,)) for name in self.figures()]
        total = nonzero = different = 0
        for layer in model.module.modules():
            if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
                values = layer.weight.detach().cpu().numpy()
                kept = values[values != 0]
                total, nonzero, different = total + values.size, nonzero + kept.size, different + len(np.unique(kept))
        flags = hidden(model.module)
        if not different:
            return [Figure(name=name, value=None, flags=(*flags, NO_WEIGHTS)) for name in self.figures()]
        found = (1 - nonzero / total, nonzero / different, total / different)
        return [Figure(name=name, value=value, flags=flags) for name, value in zip(self.figures(), found, strict=True)]

    @classmethod
    def figures(cls) -> tuple[str, ...]:
        return ("sharing/zeros", "sharing/sharing", "sharing/compression")
