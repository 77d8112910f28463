"""How many multiplications a model does, counted on the path that it really takes."""

from collections.abc import Sequence

from pydantic import Field

from bench.contracts import Classifier, Figure, Probe, Samples, probe
from bench.probes._spread import STATISTICS, countable, counts, distribution, mean, spread
from bench.probes.parameters import NO_MODULE


@probe("macs")
class Macs(Probe):
    """Multiply-accumulates of one input (batch 1), as executed: the mean and the spread over a few real inputs.

    Convolutions and matrix products count; biases, normalisation, activations, pooling and pointwise products do not.
    What the counter does not know is named in the flag `incomplete: ...`, and the figure is then a lower bound.
    """

    inputs: int = Field(default=8, ge=1, description="real inputs, evenly spread over the data; the mean is the figure")

    def measure(self, model: Classifier, samples: Samples, artefact: bytes | None) -> Sequence[Figure]:
        if countable(model) is None:
            return [Figure(name=name, value=None, flags=(NO_MODULE,)) for name in self.figures()]
        found = counts(model, spread(samples, self.inputs))
        return [
            *distribution("macs", found),
            mean("flops", found, lambda one: 2 * one.macs),
            mean("binary_macs", found, lambda one: one.binary_macs),
            mean("float_macs", found, lambda one: one.macs - one.binary_macs),
            mean("bit_operations", found, lambda one: one.bit_operations),
        ]

    @classmethod
    def figures(cls) -> tuple[str, ...]:
        spreads = tuple(f"macs/{statistic}" for statistic in STATISTICS)
        return ("macs", *spreads, "flops", "binary_macs", "float_macs", "bit_operations")
