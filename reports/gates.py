"""Gates of a merge: `robust_accuracy drops > 1pt` says when a comparison fails."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from bench.errors import Mistake, SuiteError, did_you_mean
from bench.metrics.changes import Change
from reports import formats

Way = Literal["drops", "rises", "changes"]
_GRAMMAR = re.compile(
    r"\s*(?P<metric>\S+)\s+(?P<way>drops|rises|changes)(?P<significantly>\s+significantly)?"
    r"(\s*>\s*(?P<number>\d+(\.\d*)?|\.\d+)\s*(?P<unit>pt|%)?)?\s*",
)
FORM = "METRIC drops|rises|changes [significantly] [> NUMBER[pt|%]]"


@dataclass(frozen=True)
class Gate:
    """When to fail. more_than: in units of the figure; a share of the first value where `relative`."""

    text: str
    metric: str  # a name, its beginning before a `/` or `.`, or a shell pattern
    way: Way
    more_than: float = 0.0
    relative: bool = False
    significantly: bool = False

    @classmethod
    def parse(cls, text: str) -> "Gate":
        """Raises SuiteError where the text does not follow the grammar."""
        found = _GRAMMAR.fullmatch(text)
        if found is None:
            example = "such as 'robust_accuracy drops > 1pt'"
            raise SuiteError([Mistake("--fail-if", "", f"'{text}' cannot be read: write {FORM}, {example}")])
        number, unit, metric = float(found["number"] or 0), found["unit"], found["metric"]
        if unit == "pt" and not formats.is_bounded(metric):
            message = f"'{metric}' is no share, so it has no percentage points: write '%' for a relative change"
            raise SuiteError([Mistake("--fail-if", "", message)])
        scale = 0.01 if unit else 1.0
        way: Way = "drops" if found["way"] == "drops" else "rises" if found["way"] == "rises" else "changes"
        return cls(text.strip(), metric, way, number * scale, unit == "%", found["significantly"] is not None)

    def concerns(self, name: str) -> bool:
        """Whether the gate speaks of a metric of that name."""
        return (
            name == self.metric
            or name.startswith((f"{self.metric}/", f"{self.metric}."))
            or fnmatchcase(name, self.metric)
        )

    def verdict(self, change: Change) -> str:
        """Why the change fails the gate; empty where it passes, as what is new does. What cannot be judged fails: a
        gate never guesses."""
        gap = change.difference
        if change.first is None:
            return ""  # new: there is nothing that it could have fallen or risen from
        if gap is None:
            return f"cannot be judged: {change.why_not}"
        if gap.value == 0:
            return ""
        before = change.first.value
        size = {"drops": -gap.value, "rises": gap.value, "changes": abs(gap.value)}[self.way]
        limit = self.more_than * abs(before or 0.0) if self.relative else self.more_than
        if size <= limit + 1e-12 or (self.significantly and gap.test != "exact" and not change.significant):
            return ""
        return f"{formats.title(change.metric)} {formats.change(change.metric, gap.value)}"


@dataclass(frozen=True)
class Judged:
    """One gate on one figure. problem: why it fails; empty where it passes."""

    gate: Gate
    change: Change
    problem: str


def judge(gates: Sequence[Gate], changes: Iterable[Change]) -> list[Judged]:
    """Every gate on every figure it concerns. Raises SuiteError for a gate that concerns none: it would always pass."""
    found = list(changes)
    known = list(dict.fromkeys(name for change in found for name in (change.metric, formats.head(change.metric))))
    for gate in gates:
        if not any(gate.concerns(change.metric) for change in found):
            hint = did_you_mean(gate.metric, known)
            raise SuiteError([Mistake("--fail-if", "", f"neither side has a metric '{gate.metric}'{hint}")])
    return [Judged(gate, one, gate.verdict(one)) for gate in gates for one in found if gate.concerns(one.metric)]
