"""Which row stands where: one table per data set, since rows of different data sets say nothing about each other."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from bench import names
from bench.contracts import ThreatModel
from bench.metrics.separation import Separation
from bench.records import Row
from bench.suite_board import Published, Score
from reports import formats
from reports.published import beside, with_origins
from reports.series import Sweep
from reports.threats import reference, threat_of

UNRANKED = ("contended", "simulated", "mixed", "invalid", "seen")  # kinds of flags that keep a figure out of a ranking
TESTS = {
    "mcnemar": "McNemar's test",
    "bootstrap": "paired bootstrap",
    "delong": "DeLong's test",
    "intervals": "their intervals",
    "exact": "the figures themselves",
    "untested": "no test: the figure has no interval",
}


@dataclass(frozen=True)
class Facts:
    """What a model is. realisation: how its speed is real, where its adapter says so."""

    family: str = ""
    realisation: str = ""


@dataclass(frozen=True)
class View:
    """How a leaderboard is shown.

    columns: names of metrics; empty for the usual ones. rank_by: a metric; None for the clean accuracy. direction: None
    for the best first, which is the highest accuracy and the lowest cost. separations: by data set, which models the
    figure that ranks tells apart; without them equal values alone share a rank. facts: what the page filters by, by
    model. published: figures to stand beside the measured ones. scores: what combined figures are made of. sweeps:
    attacks at several budgets. curves: which models a curve of accuracy against cost joins (reports.series.members).
    cards: where the page of a (model, data set) lies, relative to the leaderboard.
    """

    suite: str
    submission: str = ""
    columns: tuple[str, ...] = ()
    rank_by: str | None = None
    direction: Literal["descending", "ascending"] | None = None
    title: str = ""
    note: str = ""
    separations: Mapping[str, Separation] = field(default_factory=dict)
    facts: Mapping[str, Facts] = field(default_factory=dict)
    published: tuple[Published, ...] = ()
    scores: tuple[Score, ...] = ()
    sweeps: tuple[Sweep, ...] = ()
    curves: Mapping[str, str] = field(default_factory=dict)
    cards: Mapping[tuple[str, str], str] = field(default_factory=dict)


@dataclass(frozen=True)
class Flag:
    """A flag, taken apart: `latency_ms/p50: contended: load 3.1`."""

    subject: str
    kind: str
    detail: str

    @classmethod
    def parse(cls, text: str) -> "Flag":
        subject, _, rest = text.partition(": ")
        kind, _, detail = rest.partition(": ")
        return cls(subject, kind, detail)

    @property
    def why(self) -> str:
        return f"{self.kind}: {self.detail}" if self.detail else self.kind

    def concerns(self, metric: str) -> bool:
        return metric == self.subject or metric.startswith(f"{self.subject}/")


@dataclass(frozen=True)
class Line:
    """A row with its rank, or with the reason why it has none."""

    row: Row
    rank: int | None
    reason: str = ""

    @property
    def flags(self) -> list[Flag]:
        return [Flag.parse(text) for text in self.row.flags]

    @property
    def why(self) -> dict[tuple[str, str], list[str]]:
        """The subjects of flags by what is said of them: (kind, detail)."""
        found: dict[tuple[str, str], list[str]] = {}
        for flag in self.flags:
            found.setdefault((flag.kind, flag.detail), []).append(flag.subject)
        return found

    @property
    def notes(self) -> int:
        """How many things must be said of the row."""
        return len(self.why) + len(self.row.failures) or 1


@dataclass(frozen=True)
class Section:
    """The table of one data set."""

    dataset: str
    columns: tuple[str, ...]
    rank_by: str
    descending: bool
    lines: tuple[Line, ...]
    separation: Separation | None = None

    @property
    def order(self) -> str:
        """What the ranks mean, in words."""
        first = f"ranked by {formats.title(self.rank_by)}, {'highest' if self.descending else 'lowest'} first"
        return f"{first}; {self.ties}" if self.ties else first

    @property
    def ties(self) -> str:
        """Why models share a rank, in words; empty where only equal values do."""
        if self.separation is None or not self.separation.tests:
            return ""
        tests = " or ".join(TESTS[test] for test in self.separation.tests)
        return f"a rank counts the models that are better by more than chance ({tests}, Holm-corrected, 5 %)"


def sections(rows: Iterable[Row], view: View) -> list[Section]:
    """The rows sorted into tables, in the order in which the data sets first appear."""
    groups: dict[str, list[Row]] = {}
    for row in beside(rows, view.published):
        groups.setdefault(row.dataset, []).append(row)
    made = []
    for dataset, group in groups.items():
        columns = with_origins(view.columns or usual_columns(group), group)
        rank_by = view.rank_by or names.CLEAN_ACCURACY
        best_first = "descending" if formats.higher_is_better(rank_by) else "ascending"
        descending = (view.direction or best_first) == "descending"
        apart = view.separations.get(dataset)
        apart = apart if apart is not None and apart.metric == rank_by else None
        lines = tuple(_ranked(group, rank_by, descending, apart))
        made.append(Section(dataset, columns, rank_by, descending, lines, apart))
    return made


def usual_columns(rows: Iterable[Row]) -> tuple[str, ...]:
    """Clean accuracy, each worst case, each attack, distances, each detector's AUROC, costs; what explains rather than
    compares is left to the page of all figures, and what a detector costs to the table of detectors."""
    every = dict.fromkeys(name for row in rows for name in row.metrics)
    return tuple(sorted((name for name in every if not explains(name) and not formats.origin(name)[0]), key=_place))


def explains(name: str) -> bool:
    """Whether a figure explains another one rather than compares models."""
    left_out = {
        "attack_success",
        "attack_success_in",
        "domain_weight",
        "fit_queries",
        "robust_accuracy_8bit",
        *names.PASSES,
        "overhead",
        "detector_passes",
        "layer",
        *names.FITTED,
    }
    return name.partition("/")[0] in left_out | {*names.DETECTION, *names.JOINT, *names.CONFIDENCE} - {"auroc"}


def _place(name: str) -> int:
    order = ("score", names.CLEAN_ACCURACY, "robust_accuracy", "median_distance", *formats.DETECTION)
    head = formats.head(name)
    place = order.index(head) if head in order else len(order)
    return 2 * place - (1 if _is_worst(name) else 0)


def _is_worst(name: str) -> bool:
    return name.startswith("robust_accuracy/") and f"/{names.WORST}/" in name


def unfit(row: Row, name: str) -> str:
    """Why a figure of a row may not be compared with another's: a flag of its own; empty where it may."""
    flags = [flag for flag in map(Flag.parse, row.flags) if flag.concerns(name) and flag.kind in UNRANKED]
    return flags[0].why if flags else ""


def comparable(rows: Sequence[Row], name: str) -> list[Row]:
    """The rows whose figure may be compared: it is there, it is real, and, for a timing, of one machine."""
    if formats.origin(name)[0]:
        return []
    machines = Counter(row.hardware for row in rows if name in row.metrics)
    machine = machines.most_common(1)[0][0] if machines else None
    among = _Among(machine, _informed(rows, name), _threat(rows, name))
    return [row for row in rows if not _why_unranked(row, name, among)]


def _ranked(rows: Sequence[Row], rank_by: str, descending: bool, apart: Separation | None) -> list[Line]:
    """Best first; those without a rank follow as given. A rank is 1 + the number of models that are better: by more
    than chance where that was tested, else by value; so equal models share a rank and the next ones are skipped."""
    machines = Counter(row.hardware for row in rows if rank_by in row.metrics)
    machine = machines.most_common(1)[0][0] if machines else None
    among = _Among(machine, _informed(rows, rank_by), _threat(rows, rank_by))
    reasons = {id(row): _why_unranked(row, rank_by, among) for row in rows}
    ranked = [row for row in rows if not reasons[id(row)]]
    value = {id(row): _value(row, rank_by) for row in ranked}
    sign = -1 if descending else 1
    lines = []
    for row in ranked:
        better = [other for other in ranked if sign * value[id(other)] < sign * value[id(row)]]
        beaten = better if apart is None else [one for one in better if apart.separates(one.model, row.model)]
        lines.append(Line(row, 1 + len(beaten)))
    lines.sort(key=lambda line: (line.rank, sign * value[id(line.row)]))
    return lines + [Line(row, None, reasons[id(row)]) for row in rows if reasons[id(row)]]


def _value(row: Row, name: str) -> float:
    metric = row.metrics.get(name)
    return math.nan if metric is None or metric.value is None else metric.value


def _informed(rows: Sequence[Row], name: str) -> bool:
    """Whether some row's attacker knew the very model: then what was only transferred takes no part in the ranking."""
    return any(math.isfinite(_value(row, name)) and not _transferred(row, name) for row in rows)


def _transferred(row: Row, name: str) -> bool:
    return any(flag.concerns(name) and flag.kind == "transferred" for flag in map(Flag.parse, row.flags))


def _threat(rows: Sequence[Row], name: str) -> ThreatModel | None:
    """The threat model whose figures are ranked: that of the attacker who knows most."""
    found = [threat_of(row, name) for row in rows if math.isfinite(_value(row, name))]
    return reference(threat for threat in found if threat is not None)


@dataclass(frozen=True)
class _Among:
    """What the rows that are ranked have in common: the machine of most timings, whether an attacker knew the very
    model, and the threat model."""

    machine: str | None
    informed: bool
    threat: ThreatModel | None


def _why_unranked(row: Row, rank_by: str, among: _Among) -> str:
    """Why this row takes no part in the ranking; empty if it does."""
    flags = [flag for flag in map(Flag.parse, row.flags) if flag.concerns(rank_by)]
    title = formats.title(rank_by)
    if not math.isfinite(_value(row, rank_by)):
        return f"no value for {title}: {flags[0].why if flags else 'it was not measured'}"
    if why := unfit(row, rank_by):
        return f"{title} is {why}"
    if among.informed and _transferred(row, rank_by):
        return f"{title} is of an attacker who did not know this model; other rows are of one who did"
    threat = threat_of(row, rank_by)
    if threat is not None and among.threat is not None and (told := among.threat.differs(threat)):
        return f"{title} is of another threat model than the other rows: {told}"
    if formats.is_timing(rank_by) and row.hardware != among.machine:
        return f"{title} was measured on other hardware than the other rows"
    return ""
