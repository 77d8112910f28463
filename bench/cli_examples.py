"""The verbs for adversarial examples as data."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from bench.cli import OUTPUT, Form, Format, Only, Output, RunName, Set, SuiteFile, Uri, app, perform, say


@app.command()
def examples(
    run: RunName,
    to: Annotated[Path, typer.Option("--to", metavar="FILE.npz", help="where to write them")],
    output: Output = OUTPUT,
    only: Only = None,
) -> None:
    """Write what an attack with `keep:` crafted, as .npz: the data set `adversarial` reads it."""
    from bench import verbs_examples

    found = verbs_examples.source(run, output)
    say([f"{verbs_examples.write(found, only, to)} samples of {found.submission}: {to}"])


@app.command()
def transfer(
    suite: SuiteFile,
    source: Annotated[str, typer.Option("--from", metavar="RUN_OR_DIR", help="the run whose examples are tried")],
    output: Output = OUTPUT,
    workers: Annotated[int | None, typer.Option(min=1, help="default: as many as the cluster has room for")] = None,
    set_: Set = [],
    only: Only = None,
    address: Annotated[str | None, typer.Option(metavar="RAY", help="a running Ray cluster; default: one here")] = None,
    tracking_uri: Uri = None,
    form: Form = Format.TABLE,
) -> None:
    """Try adversarial examples that a run kept on the models of a suite; --only chooses among the examples."""
    from bench import verbs, verbs_examples
    from bench.run import Options
    from bench.suite import to_yaml

    verbs.name_registry(output, tracking_uri)
    opened = verbs.open_suite(suite, set_)
    made = verbs_examples.replay(opened.suite, verbs_examples.source(source, output), only, output)
    known = verbs.origins(made, tracking_uri, output)
    options = Options(output, workers, address, None, tuple(sys.argv), origins=known)
    perform(made, to_yaml(made), opened.sources, options, tracking_uri, form)
