"""What is told of a submission, and how it becomes runs of MLflow. Pure: knows no client and no file's content."""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.contracts import ThreatModel
from bench.records import Metric, Row

METRICS_PER_ROW = 40  # more make MLflow's tables unreadable; all of them are in the artifact row.json


@dataclass(frozen=True)
class ModelFact:
    """What a model of the suite is: its adapter, the digest of its weights (None: it has none), its arguments.

    curves: of its training, by name, a point an epoch.
    """

    adapter: str
    weights: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class DatasetFact:
    """What a data set of the suite is: its registered name, the digest of its content, samples taken, classes."""

    name: str
    digest: str
    n: int
    classes: int


@dataclass(frozen=True)
class Evaluation:
    """One attack, probe or detector on one model and data set, by their labels in the suite."""

    model: str
    dataset: str
    label: str
    metrics: Mapping[str, Metric]
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Publication:
    """All that is told of one submission.

    `models` and `datasets` are by label, and hold every label of `rows`. `params` and `row_files` are by (model,
    dataset). `files` go with every row. A file is a Path to copy, or its text. `note` is the leaderboard in Markdown.
    """

    suite: str
    submission: str
    owner: str
    status: str
    rows: Sequence[Row]
    models: Mapping[str, ModelFact]
    datasets: Mapping[str, DatasetFact]
    evaluations: Sequence[Evaluation] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    files: Mapping[str, Path | str] = field(default_factory=dict)
    row_files: Mapping[tuple[str, str], Mapping[str, Path | str]] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class RunSpec:
    """A run as it should stand in MLflow."""

    name: str
    key: tuple[str, ...]  # model, dataset[, evaluation]
    content: str
    dataset: DatasetFact
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    files: Mapping[str, Path | str]
    failed: bool = False
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)  # the point of step 1 first


def row_runs(publication: Publication) -> Iterator[RunSpec]:
    """One run per row. The rows of a model share one digest: they are replaced together, with their logged model."""
    for model in sorted({row.model for row in publication.rows}):
        fact = publication.models[model]
        rows = [row for row in publication.rows if row.model == model]
        runs = []
        for row in rows:
            key = (row.model, row.dataset)
            metrics, notes = _figures(row.metrics, METRICS_PER_ROW)
            notes |= {f"threat/{name}": _threat(threat) for name, threat in row.threats.items()}
            notes |= {"flags": ", ".join(row.flags), "failures": str(len(row.failures))}
            params = {"adapter": fact.adapter, "weights": fact.weights or "none", **publication.params.get(key, {})}
            own = {"row.json": row.model_dump_json(indent=2), **publication.row_files.get(key, {})}
            runs.append(
                _run(publication, key, notes, params, metrics, {**publication.files, **own}, bool(row.failures))
            )
        content = _digest([[row.model_dump(mode="json") for row in rows], asdict(fact), [_told(run) for run in runs]])
        curves = {mlflow_key(f"training/{name}"): curve for name, curve in fact.curves.items()}
        yield from (replace(run, content=content, curves=curves) for run in runs)


def evaluation_runs(publication: Publication) -> Iterator[RunSpec]:
    """One run per single evaluation."""
    for evaluation in publication.evaluations:
        metrics, notes = _figures(evaluation.metrics)
        key = (evaluation.model, evaluation.dataset, evaluation.label)
        run = _run(publication, key, notes, evaluation.params, metrics, {}, failed=False)
        yield replace(run, content=_digest(_told(run)))


def _threat(threat: ThreatModel) -> str:
    return f"{threat.goal}, {threat.knowledge}, {threat.spends}"


def _run(
    publication: Publication,
    key: tuple[str, ...],
    notes: Mapping[str, str],
    params: Mapping[str, Any],
    metrics: Mapping[str, float],
    files: Mapping[str, Path | str],
    failed: bool,
) -> RunSpec:
    tags = {**publication.tags, **notes, "submission": publication.submission, "owner": publication.owner}
    tags |= {"status": publication.status, "mlflow.user": publication.owner, "mlflow.source.name": "gauntlet"}
    tags |= dict(zip(("model", "dataset", "evaluation"), key, strict=False))
    dataset = publication.datasets[key[1]]
    return RunSpec(" · ".join(key), key, "", dataset, tags, mlflow_params(params), metrics, files, failed)


def _figures(metrics: Mapping[str, Metric], limit: int | None = None) -> tuple[dict[str, float], dict[str, str]]:
    """Metrics that MLflow can sort by, and tags for the rest: intervals, and why a value is missing."""
    values: dict[str, float] = {}
    notes: dict[str, str] = {}
    left_out: list[str] = []
    for name, metric in metrics.items():
        key = mlflow_key(name)
        while key in values or f"absent/{key}" in notes:
            key += "_"  # two names that differ only in what MLflow refuses
        if metric.value is None or not math.isfinite(metric.value):
            notes[f"absent/{key}"] = "not measured" if metric.value is None else str(metric.value)
        elif limit is not None and len(values) == limit:
            left_out.append(name)
        else:
            values[key] = metric.value
            if metric.low is not None and metric.high is not None:
                count = "" if metric.n is None else f", n = {metric.n}"
                notes[f"interval/{key}"] = f"{metric.low:.6g} to {metric.high:.6g}{count}"
    if left_out:
        notes["gauntlet.left_out"] = cut(f"{len(left_out)} over {limit}, in row.json: {', '.join(left_out)}", 7_900)
    return values, notes


def mlflow_key(name: str) -> str:
    """The name with what MLflow refuses replaced: `=`, `@`, `,` and their like, empty parts, `.` and `..`."""
    parts = re.sub(r"[^\w./ -]", "_", name, flags=re.ASCII).split("/")
    return "/".join("_" * max(len(part), 1) if part in ("", ".", "..") else part for part in parts)[:250]


def mlflow_params(params: Mapping[str, Any]) -> dict[str, str]:
    """The parameters as text, within MLflow's limits."""
    return {mlflow_key(name): cut(str(value), 5_900) for name, value in params.items()}


def cut(text: str, limit: int) -> str:
    """The text, or its first `limit` characters and a word that says so."""
    return text if len(text) <= limit else text[:limit] + " … (cut)"


def _told(run: RunSpec) -> Any:
    return [run.name, asdict(run.dataset), dict(run.tags), dict(run.params), dict(run.metrics)]


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
