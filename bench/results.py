"""What comes out of a run: the rows of its leaderboard, the export of its records, and what is told to MLflow."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bench import names, suite_yaml
from bench.contracts import ThreatModel
from bench.metrics.corruption import with_baselines
from bench.metrics.curves import Curves, curves
from bench.metrics.efficiency import with_ratios
from bench.metrics.evidence import Evidence, evidence
from bench.metrics.groups import with_groups, without_column
from bench.metrics.rows import rows as rows_of_cells
from bench.metrics.scores import with_scores
from bench.metrics.separation import Separation, separation
from bench.plan import EvaluationRef
from bench.publication import DatasetFact, Evaluation, ModelFact, Publication
from bench.records import SAMPLES, Cell, Row
from bench.runs import Run
from bench.suite import Leaderboard

DERIVED = ("attack_success", *names.OF_PASSES, *names.PASSES)  # last, where there is room for few figures

# The schema of `gauntlet records`: what was evaluated, then the columns of bench.records.SAMPLES.
EXPORT = pa.schema(
    [
        pa.field("model", pa.string(), False, {"doc": "label of the model in the suite"}),
        pa.field("dataset", pa.string(), False, {"doc": "label of the data set in the suite"}),
        pa.field("evaluation", pa.string(), False, {"doc": "label of the evaluation: 'clean', 'pgd'"}),
        pa.field("kind", pa.string(), False, {"doc": "clean, attack, detector or certificate"}),
        pa.field("plugin", pa.string(), False, {"doc": "registered name of the attack, detector or certificate"}),
        pa.field("norm", pa.string(), True, {"doc": "norm of the attack's threat model"}),
        pa.field("knowledge", pa.string(), True, {"doc": "what the attacker may see"}),
        pa.field("epsilons", pa.list_(pa.float64()), False, {"doc": "radii that `broken` is about, ascending"}),
        *SAMPLES,
    ]
)


@dataclass(frozen=True)
class Analysis:
    """The rows of a run; by data set what the figure that ranks tells apart; by model and data set the curves."""

    rows: list[Row]
    separations: dict[str, Separation]
    curves: dict[tuple[str, str], Curves]


def rows(run: Run, only: str | None = None) -> list[Row]:
    """A row per model and data set, in the order of the suite."""
    wanted = leaderboard(run)
    groups = groupby(run.cells(only), key=lambda cell: (cell.model, cell.dataset))
    return _compared(run, [_row(list(cells), wanted) for _, cells in groups], wanted)


def _row(cells: Sequence[Cell], wanted: Leaderboard) -> Row:
    [row] = rows_of_cells(cells)
    return with_groups(row, cells, {group.by: group.metrics for group in wanted.groups})


def _compared(run: Run, found: Sequence[Row], wanted: Leaderboard) -> list[Row]:
    """With what needs the row of another model, and what is combined of all these."""
    baselines = _baselines(run)
    found = without_column(found, {group.by: group.metrics for group in wanted.groups})
    return with_scores(with_baselines(with_ratios(found, baselines), baselines), wanted.scores)


def _baselines(run: Run) -> dict[str, str]:
    return {ref.label: ref.baseline for ref in run.resolved.models if ref.baseline}


def analysis(run: Run, only: str | None = None) -> Analysis:
    """The rows, and every pair of models tested on the same samples. One row's records are in memory at a time."""
    wanted = leaderboard(run)
    metric = wanted.rank_by or names.CLEAN_ACCURACY
    made: list[Row] = []
    drawn: dict[tuple[str, str], Curves] = {}
    behind: dict[str, dict[str, Evidence]] = {}  # by data set and model
    for (model, dataset), group in groupby(run.cells(only), key=lambda cell: (cell.model, cell.dataset)):
        cells = list(group)
        made.append(_row(cells, wanted))
        drawn[model, dataset] = curves(cells)
        if (found := evidence(cells).get(metric)) is not None:
            behind.setdefault(dataset, {})[model] = found
    made = _compared(run, made, wanted)
    datasets = dict.fromkeys(row.dataset for row in made)
    return Analysis(
        made,
        {
            dataset: separation(metric, [row for row in made if row.dataset == dataset], behind.get(dataset, {}))
            for dataset in datasets
        },
        drawn,
    )


def leaderboard(run: Run) -> Leaderboard:
    """How the suite wants its results shown."""
    return Leaderboard.model_validate(
        suite_yaml.compose(run.read("resolved.yaml"), "resolved.yaml").data["leaderboard"]
    )


def shown(run: Run) -> tuple[str, ...]:
    """The columns that the suite wants, and those of attacks that were added where its figures were suspect."""
    columns = leaderboard(run).shown
    added = [ref for ref in run.resolved.evaluations if ref.remedy] if columns else []
    return (
        *columns,
        *(names.robust_accuracy(str(ref.norm), ref.label, epsilon) for ref in added for epsilon in ref.epsilons),
    )


def export(run: Run, path: Path, only: str | None = None) -> int:
    """Write one row per sample and evaluation, with the schema EXPORT, as Parquet; returns the number of rows.

    The rows stand in the order of the suite and of the samples, so equal runs give equal files. One cell is in memory
    at a time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with pq.ParquetWriter(path, EXPORT, compression="zstd") as writer:
        for cell in run.cells(only):
            if not cell.kind.figures and cell.table.num_rows:
                writer.write_table(_named(cell))
                count += cell.table.num_rows
    return count


def publication(
    run: Run,
    found: Sequence[Row],
    owner: str,
    note: str,
    reports: Mapping[str, Path | str],
    row_reports: Mapping[tuple[str, str], Mapping[str, Path | str]],
) -> Publication:
    """Everything that MLflow is told about a run. Writes the records of each row beside the reports.

    reports: files that go with every row; row_reports: those of one (model, data set).
    """
    resolved, manifest = run.resolved, run.manifest
    files: dict[str, Path | str] = {
        "suite.yaml": run.read("suite.yaml"),
        "resolved.yaml": run.read("resolved.yaml"),
        "resolved.json": run.read("resolved.json"),
        "manifest.json": run.read("manifest.json"),
        **reports,
    }
    models = {
        ref.label: ModelFact(ref.plugin, ref.weights, ref.args, run.store.curves(ref.training) if ref.training else {})
        for ref in resolved.models
    }
    facts = {ref.label: DatasetFact(ref.plugin, ref.digest, ref.size, ref.classes) for ref in resolved.datasets}
    hardware = manifest["hardware"]
    columns = leaderboard(run).columns
    found = [_telling_first(row, columns) for row in found]
    return Publication(
        suite=resolved.suite,
        submission=run.submission,
        owner=owner,
        status=run.status["state"],
        rows=found,
        models=models,
        datasets=facts,
        evaluations=list(_singles(run)),
        tags={
            "hardware": hardware["gpu"] if hardware["gpu"] != "none" else hardware["cpu"],
            "git_revision": str(manifest["git_revision"]),
        },
        params={
            (row.model, row.dataset): {
                "seed": resolved.seed,
                "batch_size": resolved.block,
                "threads": resolved.threads,
                **{f"model/{name}": value for name, value in models[row.model].params.items()},
            }
            for row in found
        },
        files=files,
        row_files={
            key: {**_records(run, row), **row_reports.get(key, {})}
            for row in found
            for key in [(row.model, row.dataset)]
        },
        note=note,
    )


def _telling_first(row: Row, columns: Sequence[str]) -> Row:
    """The row with the suite's columns first and what follows from others last: MLflow shows only so many."""

    def place(name: str) -> tuple[int, int]:
        return (0, columns.index(name)) if name in columns else (2 if name.startswith(DERIVED) else 1, 0)

    return row.model_copy(update={"metrics": {name: row.metrics[name] for name in sorted(row.metrics, key=place)}})


def _singles(run: Run) -> Iterator[Evaluation]:
    """Each evaluation by itself, with its own metrics and its plugin's parameters."""
    refs = {ref.label: ref for ref in run.resolved.evaluations}
    for cell in run.cells():
        [row] = rows_of_cells([cell])
        own = {name: value for name, value in row.metrics.items() if f"/{names.WORST}/" not in name}
        yield Evaluation(cell.model, cell.dataset, cell.evaluation, own, _told(refs[cell.evaluation]))


def _told(ref: EvaluationRef) -> Mapping[str, object]:
    return {"plugin": ref.plugin, **ref.args, **({} if ref.threat is None else _threat(ref.threat))}


def _threat(threat: ThreatModel) -> dict[str, object]:
    """A threat model as parameters of MLflow."""
    told = {"epsilons": ", ".join(f"{epsilon:g}" for epsilon in threat.epsilons), "budget": threat.spends}
    told |= {name: str(getattr(threat, name)) for name in ("norm", "goal", "knowledge")}
    return {f"threat/{name}": value for name, value in told.items()}


def _records(run: Run, row: Row) -> dict[str, Path | str]:
    path = run.reports / "records" / f"{row.model}.{row.dataset}.parquet"
    export(run, path, only=f"{row.model}/{row.dataset}/*")
    return {"records.parquet": path}


def _named(cell: Cell) -> pa.Table:
    n = cell.table.num_rows
    constants = [cell.model, cell.dataset, cell.evaluation, cell.kind.value, cell.plugin, cell.norm, cell.knowledge]
    columns = [pa.array([value] * n, pa.string()) for value in constants]
    columns.append(pa.array([list(cell.epsilons)] * n, pa.list_(pa.float64())))
    return pa.Table.from_arrays([*columns, *cell.table.columns], schema=EXPORT)
