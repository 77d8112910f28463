"""The leaderboard as text: for a terminal, for a page in Markdown, and for spreadsheets (CSV)."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bench.records import Metric, Row
from reports import formats, threats
from reports.detectors import boards
from reports.published import footnotes
from reports.ranking import Line, Section, View, sections

# --- terminal -------------------------------------------------------------------------------------------------------


def print_table(rows: Iterable[Row], view: View, console: Console) -> None:
    """One table per data set in the first layout that fits: a line, a column, or a block per model."""
    made = boards(rows, view)
    console.print(Text(plain(view.title or view.suite), style="bold"))
    if not made:
        console.print("No rows: nothing was measured yet.")
    for section in made:
        heading = f"{section.dataset} · {section.order} · 95 % intervals"
        console.print(Text(f"\n{plain(heading)}", style="dim"))
        console.print(_fitting(section, console))
        for remark in remarks(section):
            console.print(Padding(Text(f"! {plain(remark)}", style="yellow"), (0, 0, 0, 1)))
        for told in threats.lines([line.row for line in section.lines]):
            console.print(Padding(Text(plain(told), style="dim"), (0, 0, 0, 1)))
    for note in footnotes(view.published, view.scores):
        console.print(Padding(Text(plain(note), style="dim"), (0, 0, 0, 1)))


def _fitting(section: Section, console: Console) -> RenderableType:
    unlimited = console.options.update(max_width=100_000)
    for table in (_line_per_model(section), _column_per_model(section, "  "), _column_per_model(section, "\n")):
        if Measurement.get(console, unlimited, table).maximum <= console.width:
            return table
    return Group(*(_block(line, section.columns) for line in section.lines))


def _line_per_model(section: Section) -> Table:
    table = _table()
    table.add_column("#", justify="right", style="bold")
    table.add_column("model")
    for name in section.columns:
        table.add_column(Text("\n".join(formats.heading(name))), justify="right", no_wrap=True)
    for line in section.lines:
        cells = [_cell(name, line, "\n") for name in section.columns]
        table.add_row(_rank(line), Text(plain(line.row.model), no_wrap=True), *cells)
    return table


def _column_per_model(section: Section, between: str) -> Table:
    table = _table()
    table.add_column("")
    for line in section.lines:
        table.add_column(Text(f"{_rank(line)} {plain(line.row.model)}"), no_wrap=True)
    for name in section.columns:
        cells = [_cell(name, line, between) for line in section.lines]
        table.add_row(Text(formats.title(name), no_wrap=True), *cells)
    return table


def _block(line: Line, columns: Sequence[str]) -> RenderableType:
    grid = Table.grid(padding=(0, 2), pad_edge=True)
    grid.add_column(overflow="fold")
    grid.add_column(overflow="fold")
    for name in columns:
        grid.add_row(Text(formats.title(name)), _cell(name, line, "  "))
    return Group(Text(f"\n{_rank(line)} {plain(line.row.model)}", style="bold", overflow="fold"), grid)


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False)


def _rank(line: Line) -> str:
    return formats.MISSING if line.rank is None else str(line.rank)


def _cell(name: str, line: Line, between: str) -> Text:
    metric = line.row.metrics.get(name)
    if metric is None:
        return Text(formats.MISSING, style="dim")
    text = Text(formats.number(name, metric.value))
    if any(flag.concerns(name) for flag in line.flags):
        text.append(" !", style="yellow")
    interval = formats.interval(name, metric)
    return text.append(f"{between}{interval}", style="dim") if interval else text


def remarks(section: Section) -> Iterator[str]:
    """What must be said beside the figures: of rows without a rank, flags and failures. What holds of several, once."""
    said: dict[str, list[str]] = {}
    for line in section.lines:
        for statement in _statements(line, section.columns):
            said.setdefault(statement, []).append(line.row.model)
    for statement, models in said.items():
        everyone = len(models) > 1 and len(models) == len(section.lines)
        yield f"{'all models' if everyone else ', '.join(models)}: {statement}"


def _statements(line: Line, columns: Sequence[str]) -> Iterator[str]:
    """Of figures that a flag concerns, those that are shown are named; all of them where none is."""
    if line.reason:
        yield f"not ranked: {line.reason}"
    shown = {flag.subject for flag in line.flags if any(flag.concerns(name) for name in columns)}
    for (kind, detail), concerned in line.why.items():
        seen = [subject for subject in concerned if subject in shown]
        if seen or kind != "unavailable":  # what cannot be had here, and was not asked for, is no news
            yield f"{', '.join(seen or concerned)}: {kind}: {detail}"
    failed: Counter[tuple[str, str]] = Counter()
    for failure in line.row.failures:
        failed[failure.evaluation, f"({failure.reason}): {_joined(failure.message)}"] += failure.stop - failure.start
    for (evaluation, why), samples in failed.items():
        yield f"{evaluation} failed on {samples} samples {why}"


def _joined(message: str) -> str:
    """What is wrong and what to do, in one line."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return "".join(line if line == lines[-1] else f"{line}{' ' if line[-1] in ':;.' else '; '}" for line in lines)


def plain(text: str) -> str:
    """The text in one line without control characters, which would move a terminal's cursor."""
    return "".join(character if character.isprintable() else " " for character in text)


# --- Markdown, CSV ----------------------------------------------------------------------------------------------------


def markdown(rows: Iterable[Row], view: View) -> str:
    """Tables of GitHub's Markdown, one per data set; names cannot break out of their cells."""
    parts = [f"# {quoted(view.title or view.suite)}"]
    for section in boards(rows, view):
        heads = ["#", "model", *(formats.title(name) for name in section.columns)]
        lines = [f"| {' | '.join(map(quoted, heads))} |", f"|{'---|' * 2}{'---:|' * len(section.columns)}"]
        for line in section.lines:
            figures = [formats.figure(name, line.row.metrics.get(name)) for name in section.columns]
            lines.append(f"| {' | '.join([_rank(line), quoted(line.row.model), *figures])} |")
        said = [f"- {quoted(remark)}" for remark in remarks(section)]
        parts += [f"## {quoted(section.dataset)}", f"{quoted(section.order)}; 95 % intervals in brackets"]
        parts += ["\n".join(lines), *(["\n".join(said)] if said else []), *_threats(section)]
    if notes := footnotes(view.published, view.scores):
        parts.append("\n".join(f"- {quoted(note)}" for note in notes))
    return "\n\n".join(parts) + "\n"


def _threats(section: Section) -> list[str]:
    """The table of threat models, where there are any."""
    found = threats.table([line.row for line in section.lines])
    if not found:
        return []
    lines = [f"| {' | '.join(map(quoted, cells))} |" for cells in (threats.COLUMNS, *found)]
    return ["### Threat models", "\n".join([lines[0], f"|{'---|' * len(threats.COLUMNS)}", *lines[1:]])]


def quoted(text: str) -> str:
    """The text as a cell of GitHub's Markdown: it neither ends the cell nor styles anything."""
    return re.sub(r"([\\`*_{}\[\]<>#|&~])", r"\\\1", plain(text)) if len(text) > 1 else text


def comma_separated(rows: Iterable[Row], view: View) -> str:
    """RFC 4180: one line per row, for each metric of any row its value, low, high and n; empty where there is none.

    A text that a spreadsheet would run as a formula gets an apostrophe in front.
    """
    made = sections(rows, view)
    lines = [line for section in made for line in section.lines]
    metrics = list(dict.fromkeys(name for line in lines for name in line.row.metrics))
    out = io.StringIO()
    writer = csv.writer(out)
    parts = ("", "/low", "/high", "/n")
    heads = [f"{name}{part}" for name in metrics for part in parts]
    writer.writerow(["rank", "model", "dataset", *heads, "flags", "failures", "threats"])
    for line in lines:
        found = [line.row.metrics.get(name, Metric(value=None)) for name in metrics]
        figures = [end for metric in found for end in (metric.value, metric.low, metric.high, metric.n)]
        failed = [f"{failure.evaluation}: {failure.reason}: {failure.message}" for failure in line.row.failures]
        texts = [_harmless(text) for text in (line.row.model, line.row.dataset)]
        ends = [
            _harmless(" | ".join(line.row.flags)),
            _harmless(" | ".join(failed)),
            _harmless(" | ".join(threats.lines([line.row]))),
        ]
        writer.writerow([line.rank, *texts, *figures, *ends])
    return out.getvalue()


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
