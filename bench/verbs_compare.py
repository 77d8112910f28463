"""What `compare` and `diff` do, put together from records and reports."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench import comparing
from bench.metrics.changes import Side, changes
from bench.runs import Run
from reports.comparison import Comparison, junit, render
from reports.gates import Gate, judge
from reports.ranking import explains, unfit


def compare(first: Run, second: Run, only: str | None, match: Sequence[str], fail_if: Sequence[str]) -> Comparison:
    """Two runs, paired sample by sample. Raises SuiteError for a gate or a match that cannot be read."""
    gates = [Gate.parse(text) for text in fail_if]
    renamed = comparing.pairs(match, first, second)
    apart = comparing.unpaired(first, second)
    before, after = comparing.sides(first, only, renamed), comparing.sides(second, only)
    before, after = ([_without_records(side, apart) for side in group] for group in (before, after))
    names = (first.submission, second.submission)
    return _compared(names, before, after, list(comparing.notes(first, second, renamed)), gates)


def diff(first: Path, second: Path, fail_if: Sequence[str]) -> Comparison:
    """Two exports in JSON, compared by values and intervals."""
    gates = [Gate.parse(text) for text in fail_if]
    note = "without records: samples cannot be paired, so small changes are harder to tell from chance"
    return _compared((str(first), str(second)), comparing.exported(first), comparing.exported(second), [note], gates)


def deliver(comparison: Comparison, form: str, to: Path | None) -> bool:
    """Print it, write the JUnit file, and say whether every gate passed."""
    width = max(80, shutil.get_terminal_size((100, 24)).columns)
    print(render(comparison, form, width), end="")
    if to is not None:
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(junit(comparison), encoding="utf-8")
    return not comparison.failed


def _compared(
    names: tuple[str, str], before: Sequence[Side], after: Sequence[Side], notes: Sequence[str], gates: Sequence[Gate]
) -> Comparison:
    def wanted(name: str) -> bool:
        return not explains(name) or any(gate.concerns(name) for gate in gates)

    found = changes(before, after, wanted, unfit)
    return Comparison(*names, found, notes, judge(gates, found))


def _without_records(side: Side, datasets: set[str]) -> Side:
    return replace(side, evidence={}) if side.row.dataset in datasets else side
