"""The figures of single layers (`layer/NAME/KEY`, of the probe `sparsity`) as a table with a line per layer."""

from collections.abc import Mapping
from dataclasses import dataclass

from bench.records import Metric, Row
from reports import formats

COLUMNS: Mapping[str, str] = {  # by the last word of the name
    "parameters": "Weights",
    "weights": "Not zero",
    "activations": "Input not zero",
    "activations_sd": "Sd over inputs",
    "macs": "MACs",
    "flops": "Left",
}
COUNTS = ("parameters", "macs")


@dataclass(frozen=True)
class Layer:
    """One layer. cells: as text, in the order of COLUMNS."""

    name: str
    cells: tuple[str, ...]


def layers(row: Row) -> list[Layer]:
    """The layers of a model in the order in which they run; none where nothing was measured of them."""
    found: dict[str, dict[str, Metric]] = {}
    for name, metric in row.metrics.items():
        match name.split("/"):
            case ["layer", layer, key]:
                found.setdefault(layer, {})[key] = metric
    return [Layer(name, tuple(_cell(key, cells.get(key)) for key in COLUMNS)) for name, cells in found.items()]


def _cell(key: str, metric: Metric | None) -> str:
    if metric is None or metric.value is None:
        return formats.MISSING
    if key in COUNTS:
        value, prefix = formats.si(metric.value)
        return f"{formats.significant(value)} {prefix}".rstrip()
    return f"{100 * metric.value:.1f} %"
