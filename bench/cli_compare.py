"""The verbs that set two results side by side."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import OUTPUT, Form, Format, Only, Output, RunName, app

FailIf = Annotated[
    list[str],
    typer.Option("--fail-if", metavar="GATE", help="end with 1 if e.g. 'robust_accuracy drops > 1pt' (repeatable)"),
]
JUnit = Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="write the gates' verdicts there as XML")]


@app.command()
def compare(
    first: RunName,
    second: RunName,
    output: Output = OUTPUT,
    only: Only = None,
    match: Annotated[list[str], typer.Option(metavar="OLD=NEW", help="compare models of different names")] = [],
    fail_if: FailIf = [],
    junit: JUnit = None,
    form: Form = Format.TABLE,
) -> None:
    """Say what changed between two runs, by how much, and whether by more than chance."""
    from bench import runs, verbs_compare

    done = verbs_compare.compare(runs.find(first, output), runs.find(second, output), only, match, fail_if)
    _finish(verbs_compare.deliver(done, form, junit))


@app.command()
def diff(
    first: Annotated[Path, typer.Argument(metavar="FIRST.json", help="from `gauntlet leaderboard --format json`")],
    second: Annotated[Path, typer.Argument(metavar="SECOND.json")],
    fail_if: FailIf = [],
    junit: JUnit = None,
    form: Form = Format.TABLE,
) -> None:
    """Say what changed between two exported leaderboards; without records, figures are judged by their intervals."""
    from bench import verbs_compare

    _finish(verbs_compare.deliver(verbs_compare.diff(first, second, fail_if), form, junit))


def _finish(passed: bool) -> None:
    if not passed:
        raise typer.Exit(1)
