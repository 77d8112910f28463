"""How many multiplications a model does, counted on the path that it really takes."""

from collections.abc import Sequence
from statistics import fmean

import numpy as np
from pydantic import Field
from torch import nn

from bench.contracts import Classifier, Figure, Probe, Samples, probe
from bench.probes._counter import Count, count
from bench.probes.parameters import NO_MODULE


@probe("macs")
class Macs(Probe):
    """Multiply-accumulates of one input (batch 1), as executed: the mean over a few real inputs.

    Convolutions and matrix products count; biases, normalisation, activations, pooling and pointwise products do not.
    What the counter does not know is named in the flag `incomplete: ...`, and the figure is then a lower bound.
    """

    inputs: int = Field(default=8, ge=1, description="real inputs, evenly spread over the data; the mean is the figure")

    def measure(self, model: Classifier, samples: Samples, artefact: bytes | None) -> Sequence[Figure]:
        if model.module is None:
            return [Figure(name=name, value=None, flags=(NO_MODULE,)) for name in self.figures()]
        counts = _counts(model, model.module, samples, self.inputs)
        flags = _flags(counts)
        return [
            _figure("macs", [one.macs for one in counts], flags),
            _figure("flops", [2 * one.macs for one in counts], flags),
            _figure("binary_macs", [one.binary_macs for one in counts], flags),
            _figure("bit_operations", [one.bit_operations for one in counts], flags),
        ]

    @classmethod
    def figures(cls) -> tuple[str, ...]:
        return ("macs", "flops", "binary_macs", "bit_operations")


def _counts(model: Classifier, module: nn.Module, samples: Samples, inputs: int) -> list[Count]:
    spread = np.unique(np.linspace(0, len(samples) - 1, inputs).astype(np.int64))
    return [count(model.logits, module, samples.fetch(index[None]).to(model.device)) for index in spread]


def _flags(counts: Sequence[Count]) -> tuple[str, ...]:
    unknown = sorted({name for one in counts for name in one.unknown})
    totals = {one.macs for one in counts}
    incomplete = (f"incomplete: {', '.join(unknown)}",) if unknown else ()
    dynamic = (f"dynamic: {min(totals)} to {max(totals)} MACs over {len(counts)} inputs",) if len(totals) > 1 else ()
    return incomplete + dynamic


def _figure(name: str, values: list[int], flags: tuple[str, ...]) -> Figure:
    nothing = not any(values) and any(flag.startswith("incomplete") for flag in flags)
    return Figure(name=name, value=None if nothing else fmean(values), n=len(values), flags=flags)
