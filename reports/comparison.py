"""Two submissions side by side: for a terminal, a merge request, a program, and a CI server (JUnit)."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from xml.etree import ElementTree

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.errors import Mistake, SuiteError, did_you_mean
from bench.metrics.changes import NO_TEST, Change
from reports import formats
from reports.gates import Judged
from reports.text import plain, quoted

FORMATS = ("table", "md", "json")
_HEADS = ("figure", "first", "second", "change (95 %)", "p")


@dataclass(frozen=True)
class Comparison:
    """What changed from `first` to `second` (ids of submissions, or files). notes: what besides figures changed."""

    first: str
    second: str
    changes: Sequence[Change]
    notes: Sequence[str] = ()
    judged: Sequence[Judged] = ()

    @property
    def failed(self) -> list[Judged]:
        return [one for one in self.judged if one.problem]


def render(comparison: Comparison, form: str = "table", width: int = 100) -> str:
    """The comparison as text, ending with a newline. Raises SuiteError for a format there is not."""
    match form:
        case "table":
            return _table(comparison, width)
        case "md":
            return _markdown(comparison)
        case "json":
            return _document(comparison)
    known = ", ".join(FORMATS)
    message = f"a comparison has no format '{form}'{did_you_mean(form, FORMATS)} (there are {known})"
    raise SuiteError([Mistake("--format", "", message)])


def junit(comparison: Comparison) -> str:
    """A test suite per gate and a test case per figure that it concerns, as CI servers read them."""
    root = ElementTree.Element("testsuites", name=f"{comparison.first} → {comparison.second}")
    for gate, group in groupby(comparison.judged, key=lambda one: one.gate):
        cases = list(group)
        failures = sum(1 for one in cases if one.problem)
        attributes = {"name": plain(gate.text), "tests": str(len(cases)), "failures": str(failures)}
        suite = ElementTree.SubElement(root, "testsuite", attributes)
        for one in cases:
            place = plain(f"{one.change.dataset}.{one.change.model}")
            case = ElementTree.SubElement(suite, "testcase", {"classname": place, "name": one.change.metric})
            if one.problem:
                text = " ".join(_cells(one.change))
                ElementTree.SubElement(case, "failure", {"message": plain(one.problem)}).text = plain(text)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _cells(change: Change) -> tuple[str, str, str, str, str]:
    """Its figure, both values, the difference with its interval, and p."""
    gap = change.difference
    if gap is None:
        moved, p = change.why_not, ""
    else:
        moved = formats.change(change.metric, gap.value)
        if gap.test not in NO_TEST and gap.low is not None and gap.high is not None:
            moved += f" ({formats.change(change.metric, gap.low)} to {formats.change(change.metric, gap.high)})"
        p = "" if change.p is None or gap.test in NO_TEST else _p(change.p)
    first, second = (
        formats.MISSING if one is None else formats.number(change.metric, one.value)
        for one in (change.first, change.second)
    )
    return formats.title(change.metric), first, second, moved, p + (" *" if change.significant and p else "")


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _groups(comparison: Comparison) -> list[tuple[str, list[Change], str]]:
    """Model and data set, the figures that changed, and what is said of the others."""
    groups: dict[str, list[Change]] = {}
    for change in comparison.changes:
        groups.setdefault(f"{change.model} on {change.dataset}", []).append(change)
    made: list[tuple[str, list[Change], str]] = []
    for name, group in groups.items():
        changed = [one for one in group if one.changed]
        if all(one.why_not.startswith("the row is only") for one in group):
            made.append((name, [], group[0].why_not))
        else:
            same = len(group) - len(changed)
            made.append((name, changed, f"{same} figures unchanged" if same else ""))
    return made


def _explained(comparison: Comparison) -> str:
    tested = [gap.test for one in comparison.changes if (gap := one.difference) is not None and gap.test not in NO_TEST]
    if not tested:
        return "nothing was tested: no figure with chance in it stands on both sides"
    names = ", ".join(f"{test} {tested.count(test)}" for test in dict.fromkeys(tested))
    return f"* p ≤ 0.05 after Holm's correction for {len(tested)} tests ({names})"


def _verdicts(comparison: Comparison) -> list[str]:
    lines = []
    for gate, group in groupby(comparison.judged, key=lambda one: one.gate):
        bad = [one for one in group if one.problem]
        lines.append(f"{'FAILED' if bad else 'passed'}: {gate.text}")
        lines += [f"  {one.change.model} on {one.change.dataset}: {one.problem}" for one in bad]
    return lines


def _table(comparison: Comparison, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False, legacy_windows=False)
    with console.capture() as captured:
        console.print(Text(plain(f"{comparison.first} → {comparison.second}")))
        for note in comparison.notes:
            console.print(Text(f"! {plain(note)}"))
        for name, changed, rest in _groups(comparison):
            console.print(Text(f"\n{plain(name)}" + (f" · {rest}" if rest else "")))
            if changed:
                table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
                for index, head in enumerate(_HEADS):
                    table.add_column(head, justify="right" if index else "left", overflow="fold")
                reasons: dict[str, None] = {}  # once below the table: many figures share one
                for change in changed:
                    *cells, moved, p = _cells(change)
                    if change.difference is None and ": " in moved:
                        reasons[moved] = None
                        moved = moved.partition(": ")[0]
                    table.add_row(*map(Text, (*cells, moved, p)))
                console.print(table)
                for reason in reasons:
                    console.print(Text(f" {plain(reason)}"))
        console.print(Text(f"\n{_explained(comparison)}"))
        for line in _verdicts(comparison):
            console.print(Text(plain(line)))
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"


def _markdown(comparison: Comparison) -> str:
    parts = [f"# {quoted(comparison.first)} → {quoted(comparison.second)}"]
    if comparison.judged:
        parts.append("\n".join(f"- {quoted(line.strip())}" for line in _verdicts(comparison)))
    if comparison.notes:
        parts.append("\n".join(f"- {quoted(note)}" for note in comparison.notes))
    for name, changed, rest in _groups(comparison):
        parts.append(f"## {quoted(name)}")
        if changed:
            lines = [f"| {' | '.join(_HEADS)} |", "|---|---:|---:|---:|---:|"]
            lines += [f"| {' | '.join(map(quoted, _cells(change)))} |" for change in changed]
            parts.append("\n".join(lines))
        if rest:
            parts.append(rest)
    return "\n\n".join([*parts, quoted(_explained(comparison))]) + "\n"


def _document(comparison: Comparison) -> str:
    content: Mapping[str, object] = {
        "first": comparison.first,
        "second": comparison.second,
        "notes": list(comparison.notes),
        "changes": [
            {
                "model": one.model,
                "dataset": one.dataset,
                "metric": one.metric,
                "first": one.first and one.first.model_dump(),
                "second": one.second and one.second.model_dump(),
                "difference": one.difference and asdict(one.difference),
                "p_holm": one.p,
                "significant": one.significant,
                "why_not": one.why_not,
            }
            for one in comparison.changes
        ],
        "gates": [
            {
                "gate": one.gate.text,
                "model": one.change.model,
                "dataset": one.change.dataset,
                "metric": one.change.metric,
                "problem": one.problem,
            }
            for one in comparison.judged
        ],
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
