"""Which row stands where: one table per data set, since rows of different data sets say nothing about each other."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from bench import names
from bench.records import Row
from reports import formats

UNRANKED = ("contended", "simulated")  # kinds of flags that keep a figure out of a ranking


@dataclass(frozen=True)
class View:
    """How a leaderboard is shown.

    columns: names of metrics; empty for the usual ones. rank_by: a metric; None for the clean accuracy. direction: None
    for the best first, which is the highest accuracy and the lowest cost.
    """

    suite: str
    submission: str = ""
    columns: tuple[str, ...] = ()
    rank_by: str | None = None
    direction: Literal["descending", "ascending"] | None = None
    title: str = ""
    note: str = ""


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


@dataclass(frozen=True)
class Section:
    """The table of one data set."""

    dataset: str
    columns: tuple[str, ...]
    rank_by: str
    descending: bool
    lines: tuple[Line, ...]

    @property
    def order(self) -> str:
        """What the ranks mean, in words."""
        return f"ranked by {formats.title(self.rank_by)}, {'highest' if self.descending else 'lowest'} first"


def sections(rows: Iterable[Row], view: View) -> list[Section]:
    """The rows sorted into tables, in the order in which the data sets first appear."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.dataset, []).append(row)
    made = []
    for dataset, group in groups.items():
        columns = view.columns or usual_columns(group)
        rank_by = view.rank_by or names.CLEAN_ACCURACY
        best_first = "descending" if formats.higher_is_better(rank_by) else "ascending"
        descending = (view.direction or best_first) == "descending"
        made.append(Section(dataset, columns, rank_by, descending, tuple(_ranked(group, rank_by, descending))))
    return made


def usual_columns(rows: Iterable[Row]) -> tuple[str, ...]:
    """Clean accuracy, each worst case, each attack, distances, each detector's AUROC, costs; what explains rather than
    compares is left to the page of all figures, and what a detector costs to the table of detectors."""
    every = dict.fromkeys(name for row in rows for name in row.metrics)
    left_out = {"attack_success", "forwards", "backwards", "overhead", "detector_passes", *names.FITTED}
    left_out |= {*names.DETECTION, *names.JOINT, *names.CONFIDENCE} - {"auroc"}
    return tuple(sorted((name for name in every if _word(name) not in left_out), key=_place))


def _word(name: str) -> str:
    """What stands before the first `/`."""
    return name.partition("/")[0]


def _place(name: str) -> int:
    order = (names.CLEAN_ACCURACY, "robust_accuracy", "median_distance", *formats.DETECTION)
    head = formats.head(name)
    place = order.index(head) if head in order else len(order)
    return 2 * place - (1 if _is_worst(name) else 0)


def _is_worst(name: str) -> bool:
    return name.startswith("robust_accuracy/") and f"/{names.WORST}/" in name


def _ranked(rows: Sequence[Row], rank_by: str, descending: bool) -> list[Line]:
    """Best first; equal values share a rank and the next ones are skipped; those without a rank follow as given."""
    machines = Counter(row.hardware for row in rows if rank_by in row.metrics)
    machine = machines.most_common(1)[0][0] if machines else None
    reasons = {id(row): _why_unranked(row, rank_by, machine) for row in rows}
    ranked = [row for row in rows if not reasons[id(row)]]
    value = {id(row): _value(row, rank_by) for row in ranked}
    ranked.sort(key=lambda row: -value[id(row)] if descending else value[id(row)])
    lines: list[Line] = []
    for position, row in enumerate(ranked, start=1):
        tied = lines and value[id(lines[-1].row)] == value[id(row)]
        lines.append(Line(row, lines[-1].rank if tied else position))
    return lines + [Line(row, None, reasons[id(row)]) for row in rows if reasons[id(row)]]


def _value(row: Row, name: str) -> float:
    metric = row.metrics.get(name)
    return math.nan if metric is None or metric.value is None else metric.value


def _why_unranked(row: Row, rank_by: str, machine: str | None) -> str:
    """Why this row takes no part in the ranking; empty if it does. machine: the one that most rows were timed on."""
    flags = [flag for flag in map(Flag.parse, row.flags) if flag.concerns(rank_by)]
    title = formats.title(rank_by)
    if not math.isfinite(_value(row, rank_by)):
        return f"no value for {title}: {flags[0].why if flags else 'it was not measured'}"
    for flag in flags:
        if flag.kind in UNRANKED:
            return f"{title} is {flag.why}"
    if formats.is_timing(rank_by) and row.hardware != machine:
        return f"{title} was measured on other hardware than the other rows"
    return ""
