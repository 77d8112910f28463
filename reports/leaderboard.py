"""The leaderboard of a run, from its rows alone: `render` for every format, `print_table` for a terminal."""

import io
from collections.abc import Callable, Iterable, Mapping

from rich.console import Console

from bench.errors import Mistake, SuiteError, did_you_mean
from bench.records import Row
from reports.latex import latex
from reports.page import page
from reports.ranking import Facts, View
from reports.schema import document
from reports.text import comma_separated, markdown, print_table

__all__ = ["FORMATS", "Facts", "View", "print_table", "render"]


def _table(rows: Iterable[Row], view: View, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False, legacy_windows=False)
    with console.capture() as captured:
        print_table(rows, view, console)
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"


_RENDERERS: Mapping[str, Callable[[Iterable[Row], View], str]] = {
    "json": document,
    "csv": comma_separated,
    "md": markdown,
    "tex": latex,
    "html": page,
}

FORMATS = ("table", *_RENDERERS)


def render(rows: Iterable[Row], view: View, form: str = "table", width: int = 80) -> str:
    """The leaderboard as text in one of FORMATS, ending with a newline. width: columns of a table.

    Raises SuiteError for a format there is not.
    """
    if form == "table":
        return _table(rows, view, width)
    if form not in _RENDERERS:
        known = ", ".join(FORMATS)
        raise SuiteError(
            [Mistake("--format", "", f"no format '{form}'{did_you_mean(form, FORMATS)} (there are {known})")]
        )
    return _RENDERERS[form](rows, view)
