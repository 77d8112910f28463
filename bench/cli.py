"""The command line: one function per verb. What needs time to import is imported by the verb that needs it.

stdout carries the result, stderr the story.
"""

import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from bench import __version__
from bench.errors import counted

if TYPE_CHECKING:
    from bench.plugins import Source
    from bench.run import Options
    from bench.suite import Suite

app = typer.Typer(
    name="gauntlet",
    help="Benchmarks of the robustness and efficiency of classifiers: a suite in, an MLflow leaderboard out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Format(StrEnum):
    """How a leaderboard is printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MD = "md"
    TEX = "tex"


SuiteFile = Annotated[Path, typer.Argument(metavar="SUITE", help="the suite, a YAML file", show_default=False)]
Output = Annotated[Path, typer.Option("--output", metavar="DIR", help="where everything that a run leaves behind lies")]
Set = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="change a key of the suite (repeatable)")]
Profile = Annotated[
    str | None, typer.Option("--profile", metavar="NAME", help="another form of the suite, of its `profiles:`")
]
Only = Annotated[
    str | None, typer.Option("--only", metavar="PATTERN", help="shell pattern on model/dataset/evaluation")
]
Form = Annotated[Format, typer.Option("--format", help="what stdout gets")]
RunName = Annotated[str, typer.Argument(metavar="RUN_OR_DIR", help="a run's id, its folder, or an output folder")]
Uri = Annotated[str | None, typer.Option("--tracking-uri", metavar="URI", help="MLflow; default: DIR/mlflow.db")]
OUTPUT = Path("gauntlet-out")
NARROW = 100  # columns of a terminal: with fewer, what does not fit is not cut into columns of a few letters


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="print it")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an expected error, too")] = False,
) -> None:
    """Options of every verb."""


@app.command()
def run(
    suite: SuiteFile,
    output: Output = OUTPUT,
    workers: Annotated[int | None, typer.Option(min=1, help="default: as many as the cluster has room for")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="samples in a task (resources.batch_size)")] = None,
    set_: Set = [],
    profile: Profile = None,
    only: Only = None,
    address: Annotated[str | None, typer.Option(metavar="RAY", help="a running Ray cluster; default: one here")] = None,
    tracking_uri: Uri = None,
    form: Form = Format.TABLE,
) -> None:
    """Run a suite, or what is left of it, and print its leaderboard."""
    from bench import verbs
    from bench.run import Options

    overrides = [*set_, *([f"resources.batch_size={batch_size}"] if batch_size else [])]
    verbs.name_registry(output, tracking_uri)
    opened = verbs.open_suite(suite, overrides, profile)
    known = verbs.origins(opened.suite, tracking_uri, output)
    options = Options(output, workers, address, only, tuple(sys.argv), origins=known)
    perform(opened.suite, opened.text, opened.sources, options, tracking_uri, form)


@app.command()
def plan(
    suite: SuiteFile,
    output: Output = OUTPUT,
    set_: Set = [],
    profile: Profile = None,
    only: Only = None,
    tracking_uri: Uri = None,
) -> None:
    """Print the tasks of a suite and an estimate, without running anything."""
    from bench import verbs

    verbs.name_registry(output, tracking_uri)
    print(verbs.describe_plan(verbs.open_suite(suite, set_, profile).suite, output, only), end="")


@app.command()
def validate(suite: SuiteFile, set_: Set = [], profile: Profile = None) -> None:
    """Check a suite and all its profiles, or one: every mistake at once, with its place and the nearest right name."""
    from bench import verbs

    found = verbs.check_suite(suite, set_, profile)
    print(f"{suite}: valid: {counted(len(found.models), 'model')}, {counted(len(found.datasets), 'data set')}")


@app.command()
def schema() -> None:
    """Print the JSON schema of suites, for editors to complete and check them."""
    import json

    from bench import verbs
    from bench.suite import json_schema

    verbs.prepare()
    print(json.dumps(json_schema(), indent=2))


@app.command()
def leaderboard(
    run: RunName = str(OUTPUT),
    output: Output = OUTPUT,
    form: Form = Format.TABLE,
    only: Only = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="write the page there as well")] = None,
    reports: Annotated[
        Path | None, typer.Option(metavar="DIR", help="write the page, model cards and pictures there as well")
    ] = None,
) -> None:
    """Print the leaderboard of a run again, from its records alone."""
    from bench import results, runs, verbs

    found = runs.find(run, output)
    found.resolved.check(only)
    made = results.analysis(found, only)
    shown = verbs.view(found, made)
    if html is not None:
        verbs.write_page(html, made.rows, shown)
    if reports is not None:
        say([f"reports: {verbs.write_reports(found, made, reports)}"])
    verbs.show(made.rows, shown, form)


@app.command()
def records(
    run: RunName,
    to: Annotated[Path, typer.Option("--to", metavar="FILE.parquet", help="where to write them")],
    output: Output = OUTPUT,
    only: Only = None,
) -> None:
    """Write the records of a run: one row per sample and evaluation, as Parquet (docs/records.md has the schema)."""
    from bench import results, runs

    found = runs.find(run, output)
    found.resolved.check(only)
    say([f"{results.export(found, to, only)} records of {found.submission}: {to}"])


@app.command()
def publish(run: RunName = str(OUTPUT), output: Output = OUTPUT, tracking_uri: Uri = None) -> None:
    """Log a run to MLflow, again or for the first time; what stands there already is left alone."""
    from bench import results, runs, verbs

    found = runs.find(run, output)
    made = results.analysis(found)
    verbs.write_reports(found, made, found.reports)
    say(verbs.publish(found, made, tracking_uri))


@app.command("list")
def list_(
    kind: Annotated[
        str, typer.Argument(help="attacks, adapters, probes, detectors, certificates, datasets, models, suites")
    ],
    output: Output = OUTPUT,
    tracking_uri: Uri = None,
    form: Annotated[Format, typer.Option("--format", help="table or json")] = Format.TABLE,
) -> None:
    """List what a suite can name."""
    from bench import verbs

    listed(verbs.listing(kind, output, tracking_uri), form)


def perform(
    suite: "Suite", text: str, sources: "Sequence[Source]", options: "Options", tracking_uri: str | None, form: Format
) -> None:
    """Run a suite, log it and print its leaderboard. Ends with 1 where tasks failed."""
    from bench import verbs
    from bench.progress import display
    from bench.run import run as engine

    with display(sys.stderr) as shown:
        done = engine(suite, text, sources, options, shown)
        delivered = verbs.deliver(done, tracking_uri, shown, options.only)
    verbs.show(delivered.rows, delivered.view, form)
    say(delivered.story)
    if done.status["state"] != "complete":
        raise typer.Exit(1)


def listed(lines: list[dict[str, Any]], form: Format) -> None:
    """Print dictionaries with the same keys as a table, or as JSON."""
    import json

    from rich.table import Table

    if form is Format.JSON:
        print(json.dumps(lines, indent=2, default=str))
        return
    if not lines:
        say(["there are none"])
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in lines[0]:
        table.add_column(heading, overflow="fold", no_wrap=heading == "id")  # which is there to be copied
    for line in lines:
        table.add_row(*("" if value is None else str(value) for value in line.values()))
    piped = not sys.stdout.isatty()  # a program reads lines: none of them is folded
    console = Console(soft_wrap=piped, width=100 * NARROW if piped else None)
    needed = console.measure(table, options=console.options.update(max_width=10 * NARROW)).minimum
    if not piped and console.width < min(NARROW, needed):
        for line in lines:
            _say_pairs(line)
    else:
        console.print(table, highlight=False, markup=False)


def _say_pairs(line: dict[str, Any]) -> None:
    """On a terminal that has no room for columns."""
    for name, value in line.items():
        if value not in (None, ""):
            print(f"{name}: {value}")
    print()


def say(lines: Iterable[str]) -> None:
    """Tell the user, on stderr."""
    for line in lines:
        print(line, file=sys.stderr)
