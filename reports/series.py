"""The figures of a row as the points of a curve."""

from collections.abc import Iterable, Mapping

from bench import names
from bench.records import Metric, Row

OKABE_ITO = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#7F7F7F",
)  # told apart by the colour-blind
Points = Mapping[float, Metric]  # by epsilon


def robustness(row: Row) -> dict[tuple[str, str], Points]:
    """Robust accuracy by epsilon, for each (norm, attack), the worst case first; the clean accuracy stands at 0."""
    found: dict[tuple[str, str], dict[float, Metric]] = {}
    clean = row.metrics.get(names.CLEAN_ACCURACY)
    for name, metric in row.metrics.items():
        match name.split("/"):
            case ["robust_accuracy", norm, attack, epsilon] if metric.value is not None:
                start = {} if clean is None or clean.value is None else {0.0: clean}
                found.setdefault((norm, attack), start)[float(epsilon)] = metric
    first = sorted(found, key=lambda key: (key[0], key[1] != names.WORST))
    return {key: dict(sorted(found[key].items())) for key in first}


def front(points: Iterable[tuple[float, float]], higher_x: bool, higher_y: bool) -> list[int]:
    """Indices of the Pareto front, by x: nothing else is at least as good in both and better in one."""
    every = list(points)
    sx, sy = (1 if higher_x else -1), (1 if higher_y else -1)

    def beaten(x: float, y: float) -> bool:
        return any(sx * a >= sx * x and sy * b >= sy * y and (sx * a > sx * x or sy * b > sy * y) for a, b in every)

    return sorted((i for i, (x, y) in enumerate(every) if not beaten(x, y)), key=lambda i: every[i])
