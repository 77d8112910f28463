"""The figures of a row as the points of a curve."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from bench import names
from bench.records import Metric, Row
from reports import formats

OKABE_ITO = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#7F7F7F",
)  # told apart by the colour-blind
Points = Mapping[float, Metric] | Mapping[int, Metric]  # by epsilon, cost or budget


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


@dataclass(frozen=True)
class Sweep:
    """One attack at several budgets: evaluations that differ in nothing else. points: (budget, metric), ascending."""

    attack: str
    norm: str
    epsilon: float
    budget: str  # "steps"
    points: tuple[tuple[int, str], ...]

    @property
    def title(self) -> str:
        return f"{self.attack} {formats.NORMS.get(self.norm, self.norm)} ≤ {self.epsilon:g}"

    def of(self, row: Row) -> dict[int, Metric]:
        """The robust accuracy of a row by budget, as far as it was measured."""
        found = {budget: row.metrics[name] for budget, name in self.points if name in row.metrics}
        return {budget: metric for budget, metric in found.items() if metric.value is not None}


def members(rows: Sequence[Row], curves: Mapping[str, str], family: Callable[[str], str]) -> dict[str, list[str]]:
    """The models that one curve joins, by its name: those that match a shell pattern of the suite, or, where it gives
    none, those of one family (adapter), if they are three or more: two points are no curve unless somebody says so."""
    if curves:
        found = {name: [row.model for row in rows if fnmatchcase(row.model, one)] for name, one in curves.items()}
    else:
        found = {}
        for row in rows:
            found.setdefault(family(row.model), []).append(row.model)
    return {name: models for name, models in found.items() if name and len(models) >= (2 if curves else 3)}
