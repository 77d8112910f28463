"""Floating-point operations under three conventions, each by its name."""

from collections.abc import Sequence

from pydantic import Field

from bench.contracts import Classifier, Figure, Probe, Samples, probe
from bench.probes._spread import countable, counts, mean, spread
from bench.probes.parameters import NO_MODULE


@probe("flops")
class Flops(Probe):
    """FLOPs of one input under three conventions: 2 x MACs, with biases and BatchNorm, and Molchanov's.

    `flops/two_per_mac`: 2 per multiply-accumulate, nothing else. `flops/with_bias_and_norm`: plus `bias_adds` (1 per
    output of a biased layer) plus `norm_flops` (2 per element of a BatchNorm; 0 where it is folded away).
    `flops/molchanov`: Molchanov et al. 2017, equations 11 and 12, over output maps. Means over real inputs.
    """

    inputs: int = Field(default=8, ge=1, description="real inputs, evenly spread over the data; the mean is the figure")

    def measure(self, model: Classifier, samples: Samples, artefact: bytes | None) -> Sequence[Figure]:
        if countable(model) is None:
            return [Figure(name=name, value=None, flags=(NO_MODULE,)) for name in self.figures()]
        found = counts(model, spread(samples, self.inputs))
        return [
            mean("flops/two_per_mac", found, lambda one: 2 * one.macs),
            mean("flops/with_bias_and_norm", found, lambda one: 2 * one.macs + one.bias_adds + 2 * one.normalised),
            mean("flops/molchanov", found, lambda one: sum(each.molchanov for each in one.operations)),
            mean("bias_adds", found, lambda one: one.bias_adds),
            mean("norm_flops", found, lambda one: 2 * one.normalised),
        ]

    @classmethod
    def figures(cls) -> tuple[str, ...]:
        return ("flops/two_per_mac", "flops/with_bias_and_norm", "flops/molchanov", "bias_adds", "norm_flops")
