"""What changed between two submissions, figure by figure, and whether by more than chance."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from bench import names
from bench.metrics.evidence import Evidence, difference
from bench.metrics.paired import Difference, holm
from bench.metrics.separation import LEVEL
from bench.records import Metric, Row

NO_TEST = ("exact", "untested")


@dataclass(frozen=True)
class Side:
    """One row of one submission, with the evidence behind its figures where its records are at hand."""

    row: Row
    evidence: Mapping[str, Evidence] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """One figure before and after. p is corrected for all figures that were tested; None: nothing was tested."""

    model: str
    dataset: str
    metric: str
    first: Metric | None
    second: Metric | None
    difference: Difference | None
    p: float | None = None
    why_not: str = ""  # why there is no difference, where there is none

    @property
    def significant(self) -> bool:
        return self.p is not None and self.p <= LEVEL

    @property
    def changed(self) -> bool:
        return self.first != self.second if self.difference is None else self.difference.value != 0


def changes(
    first: Sequence[Side], second: Sequence[Side], wanted: Callable[[str], bool], unfit: Callable[[Row, str], str]
) -> list[Change]:
    """A Change for each wanted figure of each row that either has, in the order of the second, then of the first.

    Rows pair by model and data set. Timings of different hardware are not compared, nor is a figure that is `unfit` on
    one side (why, or an empty text). Holm's correction runs over all tested figures of all rows.
    """
    before = {(side.row.model, side.row.dataset): side for side in first}
    after = {(side.row.model, side.row.dataset): side for side in second}
    found = [
        _change(key, name, before.get(key), after.get(key), unfit)
        for key in dict.fromkeys([*after, *before])
        for name in _names(after.get(key), before.get(key))
        if wanted(name)
    ]
    tested = [index for index, one in enumerate(found) if one.difference is not None]
    chance = [index for index in tested if (gap := found[index].difference) is not None and gap.test not in NO_TEST]
    corrected = dict(zip(chance, holm([found[index].p or 0.0 for index in chance]), strict=True))
    return [
        replace(one, p=float(corrected[index]))
        if index in corrected
        else replace(one, p=None)
        if one.difference is not None and one.difference.test == "untested"
        else one
        for index, one in enumerate(found)
    ]


def _names(*sides: Side | None) -> Iterable[str]:
    return dict.fromkeys(name for side in sides if side is not None for name in side.row.metrics)


def _change(
    key: tuple[str, str], name: str, before: Side | None, after: Side | None, unfit: Callable[[Row, str], str]
) -> Change:
    model, dataset = key
    a, b = (None if side is None else side.row.metrics.get(name) for side in (before, after))
    empty = Change(model, dataset, name, a, b, None)
    if before is None or after is None:
        return replace(empty, why_not=f"the row is only in the {'second' if before is None else 'first'}")
    if a is None or b is None:
        return replace(empty, why_not=f"only the {'second' if a is None else 'first'} has it")
    if why := unfit(before.row, name) or unfit(after.row, name):
        return replace(empty, why_not=why)
    if name.startswith(names.TIMES) and before.row.hardware != after.row.hardware:
        return replace(empty, why_not="timed on different hardware")
    gap = difference(name, before.row, after.row, before.evidence, after.evidence)
    if gap is None:
        return replace(empty, why_not="without a value in the " + ("first" if a.value is None else "second"))
    return replace(empty, difference=gap, p=gap.p)
