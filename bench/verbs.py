"""What the verbs of the command line do, put together from the engine's parts and the reports."""

import getpass
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from bench import conformance, models, plugins, provenance, results, runs, suite_words, suite_yaml, tracking
from bench import run as engine
from bench.contracts import REGISTRIES, Adapter, adapters
from bench.data import data_root
from bench.errors import Mistake, OperatorError, PluginError, SuiteError, TrackingError, counted, did_you_mean
from bench.plan import planned
from bench.progress import Display
from bench.records import Row
from bench.results import Analysis
from bench.runs import Run
from bench.store import write_atomically
from bench.suite import Suite, load
from bench.timings import Timings
from bench.worker import TrainTask
from reports import formats
from reports.book import loose_cards, write_book
from reports.card import Card
from reports.gallery import SHOWN, Gallery
from reports.leaderboard import Facts, View, print_table, render
from reports.published import compared
from reports.series import Sweep

SUITES = plugins.ROOT / "suites"
RowFiles = dict[tuple[str, str], dict[str, Path | str]]


@dataclass(frozen=True)
class Opened:
    """A suite that was read and found valid, its text, and the modules that it names."""

    suite: Suite
    text: str
    sources: tuple[plugins.Source, ...]


@dataclass(frozen=True)
class Delivered:
    """What a run ended with: its rows and how to show them, and what the user is told about where things are."""

    rows: list[Row]
    view: View
    story: list[str]


def name_registry(output: Path, uri: str | None) -> None:
    """Registered models are looked up where the run is logged, unless the environment names another place."""
    os.environ.setdefault("MLFLOW_TRACKING_URI", uri or tracking.default_uri(output))


def prepare() -> None:
    """Register everything built in, and everything that is installed beside it."""
    plugins.load_built_in()


def open_suite(path: Path, overrides: Sequence[str], profile: str | None = None) -> Opened:
    """Read a suite. Raises SuiteError with everything that is wrong in it."""
    prepare()
    sources: list[plugins.Source] = []

    def load_plugins(entries: Sequence[str], folder: Path) -> None:
        for entry in entries:
            source = plugins.read_source(entry, folder)
            plugins.load_source(source)
            sources.append(source)

    suite = load(path, profile=profile, overrides=overrides, roots=(data_root(),), load_plugins=load_plugins)
    return Opened(suite, path.read_text(), tuple(sources))


def check_suite(path: Path, overrides: Sequence[str], profile: str | None) -> Suite:
    """The suite in that form; where no profile is named, every other form that it holds is checked as well.

    Raises SuiteError with what is wrong in any of them, each mistake once.
    """
    profiles = suite_yaml.read(path).data.get("profiles") if profile is None else None
    found: list[Suite] = []
    mistakes, hint = dict[Mistake, None](), ""
    for form in (profile, *(profiles if isinstance(profiles, dict) else ())):
        try:
            found.append(open_suite(path, overrides, form).suite)
        except SuiteError as error:
            mistakes |= dict.fromkeys(error.mistakes)
            hint = hint or error.hint
    if mistakes:
        raise SuiteError(list(mistakes), hint)
    return found[0]


def origins(suite: Suite, uri: str | None, output: Path) -> dict[str, str]:
    """Who registered the models of a suite that come from the model registry, and when. Raises TrackingError."""
    where = uri or os.environ.get("MLFLOW_TRACKING_URI") or tracking.default_uri(output)
    registered = [spec for spec in suite.models if spec.plugin == "mlflow"]
    return {
        spec.name: models.origin(spec.arguments["uri"], spec.arguments.get("tracking_uri") or where)
        for spec in registered
    }


def deliver(run: Run, uri: str | None, display: Display, only: str | None) -> Delivered:
    """Write the reports of a run, of all its rows, and log it to MLflow. What could not be logged is said, and can be
    logged later. only: the rows that are returned."""
    display.note(f"{run.submission}: writing the leaderboard")
    everything = results.analysis(run)
    found = results.analysis(run, only) if only else everything
    story = [f"leaderboard: {write_reports(run, everything, run.reports)}"]
    try:
        story += publish(run, everything, uri)
    except TrackingError as problem:
        story += [f"not logged to MLflow: {problem}", f"later: gauntlet publish {run.submission} --output {run.output}"]
    failures = run.failures
    if failures:
        story.append(
            f"{len(failures)} tasks failed: {run.folder / 'failures.jsonl'}; the same command tries them again"
        )
    return Delivered(found.rows, view(run, found), story)


def publish(run: Run, found: Analysis, uri: str | None, owner: str | None = None) -> list[str]:
    """Log a run whose reports are written to MLflow. Returns what the user is told. Raises TrackingError.

    owner: whose it is; left out: of whoever runs this.
    """
    where = uri or tracking.default_uri(run.output)
    shown = view(run, found)
    note = render(found.rows, shown, "md")
    files = artifacts(run, found, shown)
    done = tracking.publish(results.publication(run, found.rows, owner or getpass.getuser(), note, *files), where)
    what = f"{done.created} runs logged" if done.created else "logged already"
    told = [f"MLflow: {what} to experiment '{run.resolved.suite}'", *register_trained(run, where, owner)]
    return [*told, f"browse: {tracking.ui_command(where)}"]


def register_trained(run: Run, uri: str, owner: str | None = None) -> list[str]:
    """Put every model that a recipe trained into the registry, as SUITE.MODEL with the curves of its training.

    The same weights are the same version, however often this is called. Returns what the user is told. Raises
    TrackingError.
    """
    prepare()
    suite, kept, told = run.resolved.suite, 0, []
    for ref in run.resolved.models:
        curves = run.store.curves(ref.training) if ref.training else {}
        if ref.weights is None or not curves:
            continue  # weights that nobody trained here: a file's, or made of another model's
        name, args = f"{suite}.{ref.label}", {**ref.args, "weights": f"{ref.label}.safetensors"}
        try:
            models.register(name, ref.plugin, args, run.store.blob(ref.weights), uri, owner=owner, curves=curves)
            kept += 1
        except PluginError as problem:
            told.append(f"not registered: {name}: {problem}")
    if kept:
        told.append(f"trained models registered as {suite}.MODEL: {kept} (`gauntlet models list`)")
    return told


def view(run: Run, found: Analysis) -> View:
    """How the suite of a run wants its leaderboard, and what the page filters by."""
    wanted = results.leaderboard(run)
    facts = {name: Facts(**what) for name, what in provenance.families(run).items()}
    return View(
        run.resolved.suite,
        run.submission,
        results.shown(run),
        wanted.rank_by,
        wanted.direction,
        separations=found.separations,
        facts=facts,
        published=wanted.published,
        scores=wanted.scores,
        sweeps=tuple(Sweep(**what) for what in provenance.sweeps(run)),
        curves=wanted.curves,
    )


def write_reports(run: Run, found: Analysis, folder: Path) -> Path:
    """Write the page, the cards and the pictures; returns the page's path."""
    return write_book(folder, cards(run, found), view(run, found))


def write_json(run: Run, found: Analysis) -> Path:
    """Write the leaderboard as JSON beside the page; returns its path."""
    path = run.reports / "leaderboard.json"
    write_atomically(path, render(found.rows, view(run, found), "json").encode())
    return path


def cards(run: Run, found: Analysis) -> list[Card]:
    """A card for each row."""
    published, galleries = results.leaderboard(run).published, _galleries(run)
    return [
        Card(
            row,
            provenance.rerun(run, row.model, row.dataset),
            provenance.facts(run, row),
            found.curves[row.model, row.dataset],
            compared(row, found.rows, published),
            galleries.get((row.model, row.dataset), ()),
        )
        for row in found.rows
    ]


def _galleries(run: Run) -> dict[tuple[str, str], list[Gallery]]:
    """The first examples of each attack that kept some, by model and data set."""
    found: dict[tuple[str, str], list[Gallery]] = {}
    for plan, examples in run.examples(enough=SHOWN):
        ref = plan.evaluation
        epsilon = f" ≤ {max(ref.epsilons):g}" if ref.epsilons else ""
        title = f"{ref.label} {formats.NORMS.get(str(ref.norm), str(ref.norm))}{epsilon}"
        found.setdefault((plan.model.label, plan.dataset.label), []).append(
            Gallery(ref.label, title, examples.first(SHOWN))
        )
    return found


def artifacts(run: Run, found: Analysis, shown: View) -> tuple[dict[str, Path | str], RowFiles]:
    """What MLflow shows of the reports: the page and the pictures with every row, and beside them the row's own card;
    without links between them, which lead nowhere there."""
    pictures = sorted((run.reports / "pictures").glob("*.svg"))
    everywhere = {"leaderboard.html": render(found.rows, shown, "html")}
    return (
        {**everywhere, **{f"pictures/{path.name}": path for path in pictures}},
        {key: {"card.html": text} for key, text in loose_cards(cards(run, found), shown).items()},
    )


def write_page(path: Path, rows: Sequence[Row], shown: View) -> Path:
    """Write the HTML leaderboard alone; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(rows, shown, "html"), encoding="utf-8")
    return path


def show(rows: Sequence[Row], shown: View, form: str) -> None:
    """Print the leaderboard on stdout."""
    if form == "table" and sys.stdout.isatty():
        print_table(rows, shown, Console())
    else:
        print(render(rows, shown, form), end="")


def describe_plan(suite: Suite, output: Path, only: str | None) -> str:
    """The tasks of a suite, what of them stands in the store, and how long the rest may take on one worker."""
    resolved, trainings = engine.plan(suite, output, only)
    store, timings = runs.Run(output, resolved.submission).store, Timings(output / "timings.json")
    cells = list(resolved.cells(only))
    lines = [f"{'train' if isinstance(task, TrainTask) else 'fit'} {task.label}" for task in trainings]
    known, guesses, waiting = 0.0, 0, 0
    for cell in cells:
        untrained = cell.model.training is not None and cell.model.weights is None
        done = 0 if untrained else sum(store.has(task.key) for task in cell.tasks())
        seconds = timings.estimate(cell)
        left = None if seconds is None else seconds * (cell.count - done) / cell.count
        known, guesses = (known, guesses + (done < cell.count)) if left is None else (known + left, guesses)
        waiting += cell.count - done
        estimate = "" if done == cell.count else ", no estimate" if left is None else f", about {left:.1f} s"
        lines.append(f"{cell.label}: {counted(cell.count, 'task')}, {done} done{estimate}")
    told = [f"about {known:.0f} s on one worker"] if known or not guesses else []
    told += [f"no estimate for {counted(guesses, 'evaluation')} never run here"] if guesses else []
    made = counted(sum(isinstance(task, TrainTask) for task in trainings), "training")
    lines.append(
        f"{resolved.submission}: {counted(planned(cells), 'task')}, {waiting} to do, {made}; {', and '.join(told)}"
    )
    return "\n".join(lines) + "\n"


def listing(kind: str, output: Path, uri: str | None) -> list[dict[str, Any]]:
    """What there is of a kind, a dictionary each. Raises SuiteError for an unknown kind."""
    if kind in REGISTRIES:
        prepare()
        return [_described(kind, name) for name in REGISTRIES[kind]]
    if kind == "models":
        if not (where := _models_uri(output, uri)):
            return []
        return [
            {"name": entry.name, "version": entry.version, "adapter": entry.adapter, "created": entry.created}
            for entry in models.list_models(where)
        ]
    if kind == "suites":
        found = sorted(SUITES.glob("*.yaml"))
        return [{"name": path.stem, "file": path, "about": _first_comment(path)} for path in found]
    kinds = [*REGISTRIES, "models", "suites"]
    raise SuiteError(
        [Mistake("", "KIND", f"nothing of the kind '{kind}'{did_you_mean(kind, kinds)} ({', '.join(kinds)})")]
    )


def models_uri(output: Path, uri: str | None) -> str:
    """Where models are registered. Raises TrackingError where none has been, before a database is made to look in."""
    if not (where := _models_uri(output, uri)):
        raise TrackingError(f"no model is registered in {output}", "--output or --tracking-uri names another place")
    return where


def _models_uri(output: Path, uri: str | None) -> str:
    """Empty where there is none."""
    return uri or (tracking.default_uri(output) if (output / "mlflow.db").exists() else "")


def register_model(
    name: str,
    adapter: str,
    assignments: Sequence[str],
    weights: Path | None,
    modules: Sequence[str],
    output: Path,
    uri: str | None,
) -> int:
    """Store a model in MLflow's registry; returns its version."""
    built, data = _adapter(adapter, assignments, weights, modules)
    where = uri or tracking.default_uri(output)
    return models.register(name, adapter, built.model_dump(mode="json", exclude_unset=True), data, where)


def check_adapter(
    adapter: str, assignments: Sequence[str], weights: Path | None, modules: Sequence[str]
) -> list[conformance.Breach]:
    """Run the adapter contract. An adapter that would be trained has to be given weights."""
    built, data = _adapter(adapter, assignments, weights, modules)
    if data is None and built.training() is not None:
        raise PluginError(f"adapter '{adapter}' needs trained weights to be checked", "give --weights FILE")
    return conformance.check(built, data)


def arguments(assignments: Sequence[str]) -> dict[str, Any]:
    """`KEY=VALUE`, the value as in a suite. Raises SuiteError with everything that is wrong."""
    found: dict[str, Any] = {}
    mistakes: list[Mistake] = []
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        document = suite_yaml.compose(value, f"--set {key}")
        mistakes += [Mistake(document.source, "", finding.message) for finding in document.findings]
        if not equals:
            mistakes.append(Mistake(f"--set {assignment}", "", "must be KEY=VALUE"))
        found[key] = document.data
    if mistakes:
        raise SuiteError(mistakes)
    return found


def _adapter(
    name: str, assignments: Sequence[str], weights: Path | None, modules: Sequence[str]
) -> tuple[Adapter, bytes | None]:
    prepare()
    for module in modules:
        path = Path(module)
        plugins.load_source(plugins.read_source(path.name, path.parent))
    given = arguments(assignments)
    if weights is not None:
        if not weights.is_file():
            raise OperatorError(f"no file {weights}", "--weights names the file with the model's weights")
        given["weights"] = str(weights)
    try:
        built = adapters.build(name, given)
    except ValidationError as problem:
        found = suite_words.troubles(problem, given, adapters.get(name))
        raise SuiteError([Mistake(f"adapter '{name}'", ".".join(map(str, t.keys)), t.message) for t in found]) from None
    return built, None if weights is None else weights.read_bytes()


def _described(kind: str, name: str) -> dict[str, Any]:
    cls = REGISTRIES[kind].get(name)
    line: dict[str, Any] = {"name": name}
    if kind == "attacks":
        line |= {"norms": " ".join(cls.norms), "knowledge": str(cls.knowledge)}
    fields = [field for field in cls.model_fields if field not in ("norm", "weights", "split")]
    return {**line, "about": cls.summary(), "arguments": " ".join(fields)}


def _first_comment(path: Path) -> str:
    """The first sentence of the comment that a suite begins with."""
    lines = takewhile(lambda line: line.startswith("#"), path.read_text().splitlines())
    text = " ".join(line.lstrip("# ") for line in lines)
    return re.split(r"(?<=[.?:])\s", text, maxsplit=1)[0]
