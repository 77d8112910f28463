"""A few real inputs, what each of them costs, and how that is told."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bench.contracts import Classifier, Figure, Realisation, Samples
from bench.probes._counter import Count, count
from bench.probes._timing import percentile

STATISTICS = ("sd", "p50", "p90", "max")


def spread_indices(samples: Samples, inputs: int) -> NDArray[np.int64]:
    """Up to `inputs` positions, ascending, evenly spread over the data."""
    return np.unique(np.linspace(0, len(samples) - 1, inputs).astype(np.int64))


def spread(samples: Samples, inputs: int) -> list[Tensor]:
    """The inputs at these positions, each (1, *input_shape)."""
    return [samples.fetch(index[None]) for index in spread_indices(samples, inputs)]


def counts(model: Classifier, inputs: Sequence[Tensor]) -> list[Count]:
    """What one pass over each input (1, *input_shape) does. `countable` must have found a module.

    A model that another runtime executes does what its source does, in 8 bits where it is quantised.
    """
    counted = countable(model)
    assert counted is not None
    assert counted.module is not None
    found = [count(counted.logits, counted.module, x.to(counted.device)) for x in inputs]
    if counted is not model and model.realisation is Realisation.INT8_RUNTIME:
        for one in found:
            one.operations = [replace(operation, bits=(8, 8)) for operation in one.operations]
    return found


def countable(model: Classifier) -> Classifier | None:
    """The model, or the one that it was made from: whichever has a torch module to count in. None: neither has."""
    if model.module is not None:
        return model
    return model.source if model.source is not None and model.source.module is not None else None


def flags(found: Sequence[Count]) -> tuple[str, ...]:
    """What was not counted, and whether the inputs cost differently much."""
    unknown = sorted({name for one in found for name in one.unknown})
    totals = {one.macs for one in found}
    incomplete = (f"incomplete: {', '.join(unknown)}",) if unknown else ()
    dynamic = (f"dynamic: {min(totals)} to {max(totals)} MACs over {len(found)} inputs",) if len(totals) > 1 else ()
    return incomplete + dynamic


def mean(name: str, found: Sequence[Count], of: Callable[[Count], float], unit: str = "") -> Figure:
    """The mean over the inputs; no value where nothing at all could be counted."""
    values, said = [of(one) for one in found], flags(found)
    nothing = not any(values) and any(flag.startswith("incomplete") for flag in said)
    return Figure(name=name, value=None if nothing else fmean(values), unit=unit, n=len(values), flags=said)


def distribution(
    name: str, found: Sequence[Count], of: Callable[[Count], float] = lambda one: one.macs
) -> list[Figure]:
    """`of` (MACs) over the inputs: mean, standard deviation (of a sample), nearest-rank p50 and p90, the largest."""
    first = mean(name, found, of)
    ordered = sorted(float(of(one)) for one in found)
    values = {
        "sd": float(np.std(ordered, ddof=1)) if len(ordered) > 1 else None,
        "p50": percentile(ordered, 0.5),
        "p90": percentile(ordered, 0.9),
        "max": ordered[-1],
    }
    told = first.flags if len(ordered) > 1 else (*first.flags, "undefined: one input has no spread")
    shown = {key: None if first.value is None else value for key, value in values.items()}
    return [
        first,
        *(
            Figure(name=f"{name}/{key}", value=shown[key], n=first.n, flags=told if key == "sd" else first.flags)
            for key in STATISTICS
        ),
    ]
