"""The verbs that look after things: models, data, the store, the machine."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from bench.cli import OUTPUT, Form, Format, Output, Set, Uri, app, listed, say

models = typer.Typer(help="Models in MLflow's model registry, where every node can fetch them.", no_args_is_help=True)
data = typer.Typer(help="Data sets and their files.", no_args_is_help=True)
store = typer.Typer(help="The records that runs have left.", no_args_is_help=True)
app.add_typer(models, name="models")
app.add_typer(data, name="data")
app.add_typer(store, name="store")

Reference = Annotated[str, typer.Argument(metavar="NAME[/VERSION]")]
Plugins = Annotated[list[str], typer.Option("--plugin", metavar="FILE", help="a module that registers the adapter")]


@models.command("register")
def register(
    name: str,
    adapter: Annotated[str, typer.Option(help="registered name of the adapter (`gauntlet list adapters`)")],
    set_: Set = [],
    weights: Annotated[Path | None, typer.Option(help="the file with the weights")] = None,
    plugin: Plugins = [],
    output: Output = OUTPUT,
    tracking_uri: Uri = None,
) -> None:
    """Store a model's adapter, its arguments (--set) and its weights under a name."""
    from bench import verbs

    version = verbs.register_model(name, adapter, set_, weights, plugin, output, tracking_uri)
    print(f"{name}/{version}")


@models.command("list")
def list_models(output: Output = OUTPUT, tracking_uri: Uri = None, form: Form = Format.TABLE) -> None:
    """List every version of every registered model."""
    from bench import verbs

    listed(verbs.listing("models", output, tracking_uri), form)


@models.command("show")
def show(reference: Reference, output: Output = OUTPUT, tracking_uri: Uri = None) -> None:
    """Print what is registered under a name, as JSON."""
    from bench import models as registry
    from bench import verbs

    _, spec = registry.show(reference, verbs.models_uri(output, tracking_uri))
    print(spec.model_dump_json(indent=2))


@models.command("remove")
def remove(reference: Reference, output: Output = OUTPUT, tracking_uri: Uri = None) -> None:
    """Remove a version of a registered model, or all of them."""
    from bench import models as registry
    from bench import verbs

    gone = registry.remove(reference, verbs.models_uri(output, tracking_uri))
    say([f"removed {reference}: versions {', '.join(map(str, gone))}"])


@data.command("list")
def list_data(form: Form = Format.TABLE) -> None:
    """List the data sets that can be fetched, where their files go, and what is missing."""
    from bench.data import catalogue

    lines = [
        {
            "name": entry.name,
            "present": "yes" if entry.present else f"no: {', '.join(entry.missing)}",
            "MB": f"{entry.size / 1e6:.0f}",
            "folder": entry.folder,
            "about": entry.about,
        }
        for entry in catalogue()
    ]
    listed(lines, form)


@data.command("fetch")
def fetch(names: Annotated[list[str], typer.Argument(help="names from `gauntlet data list`")]) -> None:
    """Download data sets: mirrors in turn, resumed where it broke off, checksums verified."""
    from bench import data as files
    from bench.progress import downloads

    for name in names:
        with downloads(sys.stderr) as progress:
            folder = files.fetch(name, progress)
        print(folder)


@store.command("verify")
def verify(
    output: Output = OUTPUT,
    repair: Annotated[bool, typer.Option(help="remove what is damaged, so that the next run makes it again")] = False,
) -> None:
    """Read back every record and all weights, and report what is damaged."""
    damages = _store(output).verify(repair=repair)
    for damage in damages:
        print(damage.problem)
    say([f"{len(damages)} damaged files{' removed' if repair and damages else ''}"])
    if damages and not repair:
        raise typer.Exit(4)


@store.command("gc")
def collect(
    output: Output = OUTPUT,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would be removed")] = False,
) -> None:
    """Remove records and weights that no run refers to (delete a folder below DIR/runs to forget a run)."""
    from bench import runs

    kept = _store(output)
    used = [key for run in runs.runs(output) for key in run.used()]
    doomed = kept.collect(used, dry_run=dry_run)
    for path in doomed:
        print(path)
    say([f"{len(doomed)} files {'would be' if dry_run else 'were'} removed"])


def _store(output: Path):  # type: ignore[no-untyped-def]  # noqa: ANN202 - imported late
    from bench.errors import OperatorError
    from bench.store import Store

    if not (output / "store").is_dir():
        raise OperatorError(f"no run has left records in {output}", "--output names another folder")
    return Store(str(output / "store"))


@app.command()
def doctor(output: Output = OUTPUT) -> None:
    """Look at this machine: what it has, whether Ray starts, and whether the import names are ours."""
    from bench.doctor import checks

    found = list(checks(output))
    listed([{"": "ok" if c.ok else "NO", "what": c.name, "found": c.detail} for c in found], Format.TABLE)
    if not all(check.ok for check in found):
        say([f"{check.name}: {check.hint}" for check in found if not check.ok])
        raise typer.Exit(4)


@app.command("check-adapter")
def check_adapter(
    adapter: Annotated[str, typer.Argument(help="registered name of the adapter")],
    set_: Set = [],
    weights: Annotated[Path | None, typer.Option(help="the file with the weights")] = None,
    plugin: Plugins = [],
) -> None:
    """Run the adapter contract against an adapter and say what it breaks."""
    from bench import verbs

    findings = verbs.check_adapter(adapter, set_, weights, plugin)
    listed([{"": "ok" if f.ok else "NO", "rule": f.name, "found": f.message} for f in findings], Format.TABLE)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(3)
