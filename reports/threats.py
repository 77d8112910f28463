"""The threat models of a leaderboard: which attacker each figure of robustness is about."""

from collections.abc import Iterable, Sequence

from bench import names
from bench.contracts import KNOWING, ThreatModel
from bench.records import Row
from reports import formats

COLUMNS = ("Attack", "Norm", "ε", "Goal", "Knowledge", "Budget of a sample at an ε")


def threat_of(row: Row, name: str) -> ThreatModel | None:
    """The threat model that a figure of a row is about; None where it is about none, or where none is known."""
    parts = names.of_what(formats.origin(name)[1]).split("/")
    return row.threats.get("/".join(parts[1:3]))


def reference(threats: Iterable[ThreatModel]) -> ThreatModel | None:
    """The one whose figures are ranked where several stand in a column: the attacker's who knows most, else the first;
    None for no threat model."""
    return min(threats, key=lambda threat: KNOWING.index(threat.knowledge), default=None)


def cells(label: str, threat: ThreatModel) -> tuple[str, ...]:
    """A line of the table, under COLUMNS."""
    epsilons = ", ".join(f"{epsilon:g}" for epsilon in threat.epsilons) or "smallest distance"
    goal = threat.goal.replace("_", " ")
    return label, formats.NORMS[threat.norm], epsilons, goal, threat.knowledge, threat.spends


def table(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Under COLUMNS the threat model of every attack and worst case; where models differ in it, a line for each, which
    names the models."""
    found: dict[str, dict[ThreatModel, list[str]]] = {}
    for row in rows:
        for name, threat in row.threats.items():
            found.setdefault(name, {}).setdefault(threat, []).append(row.model)
    return [
        cells(_label(name) + (f" on {', '.join(models)}" if len(threats) > 1 else ""), threat)
        for name, threats in found.items()
        for threat, models in threats.items()
    ]


def column(rows: Iterable[Row], name: str) -> str:
    """What a heading says of its threat model: `untargeted, white-box, 40 steps`; each where rows differ."""
    found = dict.fromkeys(threat for row in rows if (threat := threat_of(row, name)) is not None)
    return " | ".join(f"{one.goal.replace('_', ' ')}, {one.knowledge}, {one.spends}" for one in found)


def lines(rows: Sequence[Row]) -> list[str]:
    """The table in words, a line for each: `pgd: L∞ ≤ 0.1, untargeted, white-box, 40 steps`."""
    return [f"{label}: {norm} ≤ {', '.join(rest)}" for label, norm, *rest in table(rows)]


def _label(name: str) -> str:
    label = name.partition("/")[2]
    return "worst case" if label == names.WORST else label
