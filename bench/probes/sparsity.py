"""How many multiplications are left when those with a zero weight are skipped, and where."""

from collections.abc import Sequence
from statistics import fmean, stdev

from pydantic import Field

from bench.contracts import Classifier, Figure, Probe, Samples, probe
from bench.probes._counter import Count
from bench.probes._operations import Form, Operation, han_flops
from bench.probes._spread import STATISTICS, countable, counts, distribution, flags, spread
from bench.probes.parameters import NO_MODULE

SHARES = ("han/weights", "han/activations", "han/flops")
NO_WEIGHTS = "undefined: no convolution or linear layer has a weight"


@probe("sparsity")
class Sparsity(Probe):
    """Effective MACs with zero weights left out, and the table of Han et al. 2015: weights, activations, FLOPs left.

    Zeros are read from the weights as used, after masks and parametrisations, and from the activations of real inputs.
    The totals: `han/weights` over all weights, `han/activations` over what the layers are fed (the first layer's input
    counts as dense), `han/flops` over the operations, weighted by each layer's MACs. Further figures
    `layer/NAME/weights`, `.../activations` and `.../flops` for each layer, with the standard deviation over inputs in
    `.../activations_sd`, all shares in [0, 1]; `.../parameters` and `.../macs`, the elements of the layer's weight and
    its multiply-accumulates per input, zeros among them. Nothing gets faster by zeros alone: see the latency.
    """

    inputs: int = Field(default=32, ge=1, description="real inputs, evenly spread over the data")

    def measure(self, model: Classifier, samples: Samples, artefact: bytes | None) -> Sequence[Figure]:
        if countable(model) is None:
            return [Figure(name=name, value=None, flags=(NO_MODULE,)) for name in self.figures()]
        found = counts(model, spread(samples, self.inputs))
        return [*distribution("effective_macs", found, lambda one: one.effective_macs), *_table(found)]

    @classmethod
    def figures(cls) -> tuple[str, ...]:
        return ("effective_macs", *(f"effective_macs/{key}" for key in STATISTICS), *SHARES)


def _table(found: Sequence[Count]) -> list[Figure]:
    """Shares left, of each layer and in total."""
    said = flags(found)
    layers: dict[str, list[Operation]] = {}
    for one in found:
        for operation in one.operations:
            if operation.form is not Form.PRODUCT:
                layers.setdefault(operation.layer, []).append(operation)
    if not layers:
        return [Figure(name=name, value=None, flags=(*said, NO_WEIGHTS)) for name in SHARES]
    first = next(iter(layers))
    weights = {layer: runs[0].nonzero / runs[0].weights for layer, runs in layers.items()}
    active = {layer: [1.0 if layer == first else one.active for one in runs] for layer, runs in layers.items()}
    fed = [fmean(active[layer]) for layer in layers]
    left = dict(zip(layers, han_flops(list(weights.values()), [*fed[1:], 1.0]), strict=True))
    macs = {layer: sum(one.macs for one in runs) for layer, runs in layers.items()}
    sizes = {layer: runs[0].weights for layer, runs in layers.items()}
    totals = (
        sum(runs[0].nonzero for runs in layers.values()) / sum(sizes.values()),
        _weighted(dict(zip(layers, fed, strict=True)), macs),
        _weighted(left, macs),
    )
    n = len(found)
    figures = [Figure(name=name, value=value, n=n, flags=said) for name, value in zip(SHARES, totals, strict=True)]
    for layer in layers:
        here = f"layer/{layer}"
        values = {"weights": weights[layer], "activations": fmean(active[layer]), "flops": left[layer]}
        figures += [Figure(name=f"{here}/{key}", value=value, n=n) for key, value in values.items()]
        totals_here = {"parameters": float(sizes[layer]), "macs": macs[layer] / n}
        figures += [Figure(name=f"{here}/{key}", value=value) for key, value in totals_here.items()]
        deviation = stdev(active[layer]) if len(active[layer]) > 1 else None
        figures.append(Figure(name=f"{here}/activations_sd", value=deviation, n=n))
    return figures


def _weighted(values: dict[str, float], weights: dict[str, int]) -> float:
    total = sum(weights.values())
    return sum(values[key] * weights[key] for key in values) / total if total else 0.0
