"""Leaderboards in MLflow. The only file of the engine that imports mlflow, and only once something is asked of it.

| Gauntlet                           | MLflow                                                                          |
|------------------------------------|---------------------------------------------------------------------------------|
| suite                              | experiment of that name; its note is the leaderboard in Markdown                |
| model × data set of a submission   | one flat run: a row of the leaderboard                                          |
| model of a submission              | one logged model: its metrics, linked to each data set, make up the Models page |
| single evaluation of a row         | one flat run of the sibling experiment `<suite>.evaluations`                    |
| training of a model                | metrics `training/…` of its rows, a step an epoch                               |

Nothing depends on an active run, and results never depend on MLflow: what could not be published is in the store,
and `publish` may be called again. A submission that was already published leaves every run where it is; a model whose
rows have changed gets new runs, and its old ones are deleted only after that.
"""

import json
import logging
import math
import os
import re
import shlex
import shutil
import socket
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import requests

from bench.errors import TrackingError
from bench.publication import ModelFact, Publication, RunSpec, cut, evaluation_runs, mlflow_params, row_runs

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run
    from mlflow.entities import Metric as Figure

WAIT = 10.0  # seconds that a server has to say that it is there: a busy one may need some
CONTENT = "gauntlet.content"  # tag, written last: the digest of what a run was made from
AGAIN = "the results are safe in the store: once it answers, `gauntlet publish RUN --tracking-uri {uri}` logs them"

NOTE = 19_000  # characters of an experiment's note
LINKED = 40  # rows that it links

_ENVIRONMENT = {  # MLflow reads these when it is imported or used; what the user has set stays
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


@dataclass(frozen=True)
class Published:
    """Where it went. `runs` and `models` are MLflow's ids, by (model, dataset) and by model."""

    uri: str
    experiment: str
    evaluations: str  # id of the sibling experiment
    runs: Mapping[tuple[str, str], str]
    models: Mapping[str, str]
    created: int  # runs made by this call; 0: it was all there
    url: str  # of the experiment's page, empty unless `uri` is a server


def publish(publication: Publication, uri: str, artifacts: str | None = None) -> Published:
    """Log a submission; what already stands there unchanged is left alone.

    uri: anything MLflow takes (`sqlite:///…`, `http://…`, `postgresql://…`). artifacts: folder or URI for the files of
    new experiments; None: the server's own, or `mlartifacts` next to the SQLite file. One writer at a time for each
    submission. Raises TrackingError, within seconds where nothing answers; calling it again is always safe.
    """
    submission = publication.submission
    with connect(uri, hint=AGAIN.format(uri=shown(uri))) as client:
        board = experiment(client, publication.suite, uri, artifacts)
        details = experiment(client, f"{publication.suite}.evaluations", uri, artifacts)
        before = _runs_of(client, board, submission)
        models_before = _models_of(client, board, submission)
        runs: dict[tuple[str, str], str] = {}
        models: dict[str, str] = {}
        kept: list[RunSpec] = []
        created = 0
        for model, group in groupby(sorted(row_runs(publication), key=lambda run: run.key), key=lambda run: run.key[0]):
            wanted = list(group)
            ids = [_standing(before, run) for run in wanted]
            logged = [m for m in models_before if m.tags.get(CONTENT) == wanted[0].content and m.status == "READY"]
            if logged and all(ids):
                models[model] = logged[0].model_id
                kept += wanted
            else:
                fact = publication.models[model]
                models[model], ids = _write_model(client, board, model, fact, wanted)
                created += len(wanted)
            runs |= {(run.key[0], run.key[1]): str(id_) for run, id_ in zip(wanted, ids, strict=True)}
        standing = _runs_of(client, details, submission)
        evaluations = set()
        for run in evaluation_runs(publication):
            id_ = _standing(standing, run)
            created += id_ is None
            evaluations.add(id_ or _write(client, _open(client, details, run), run))
        if created:  # the files speak of the whole submission: refresh them where the numbers stayed
            for run in kept:
                _upload(client, runs[run.key[0], run.key[1]], run.files)
        for old in before + standing:
            if old.info.run_id not in {*runs.values(), *evaluations}:
                client.delete_run(old.info.run_id)
        for old_model in models_before:
            if old_model.model_id not in models.values():
                client.delete_logged_model(old_model.model_id)
        if publication.note:
            links = note_links(board, runs)
            text = f"{cut(publication.note, NOTE - len(links))}{links}"
            client.set_experiment_tag(board, "mlflow.note.content", text)
    url = f"{uri.rstrip('/')}/#/experiments/{board}" if uri.startswith("http") else ""
    return Published(shown(uri), board, details, runs, models, created, url)


def note_links(board: str, runs: Mapping[tuple[str, str], str]) -> str:
    """Links to the runs of a submission in Markdown, as MLflow's own pages address them: the first LINKED rows.

    board: id of the experiment. runs: their ids by model and data set.
    """
    lines = [f"- [{model} · {dataset}](#/experiments/{board}/runs/{id_})" for (model, dataset), id_ in runs.items()]
    more = [f"- and {len(lines) - LINKED} more under *Runs*"] if len(lines) > LINKED else []
    return "\n".join(["", "", "Each row with its page, its card and its records:", "", *lines[:LINKED], *more, ""])


# --- MLflow, tamed ----------------------------------------------------------------------------------------------------


@contextmanager
def connect(uri: str, hint: str = "check the address, and that the server runs") -> "Iterator[MlflowClient]":
    """A client of the tracking server and model registry at `uri`, whose refusals come out as TrackingError.

    A server that is away is noticed within WAIT seconds. MLflow's own log lines below a warning, and the warnings of
    the libraries under it, are not shown; ours are.
    """
    _require(uri, hint)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(mlflow|sqlalchemy|alembic|google|opentelemetry)\b")
        import mlflow.store.db.utils as database
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        database.MAX_RETRY_COUNT = 3  # MLflow has no setting for it, and ten tries at a damaged file take two minutes
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        try:
            yield MlflowClient(tracking_uri=uri, registry_uri=uri)
        except (MlflowException, requests.RequestException, SQLAlchemyError, OSError) as error:
            raise TrackingError(f"MLflow at {shown(uri)}: {_first_line(error)}", hint) from error


def experiment(client: "MlflowClient", name: str, uri: str, artifacts: str | None = None) -> str:
    """The id of the experiment of that name, made if there is none. Raises TrackingError where it was deleted."""
    found = client.get_experiment_by_name(name)
    if found is None:
        root = artifact_root(uri, artifacts)
        place = root and f"{root}/{quote(name, safe='')}"
        tags = {"mlflow.experimentKind": "custom_model_development"}  # which of its layouts the page uses
        return str(client.create_experiment(name, artifact_location=place, tags=tags))
    if found.lifecycle_stage != "active":
        raise TrackingError(
            f"MLflow at {shown(uri)}: experiment '{name}' was deleted, and its name is still taken",
            f"`mlflow experiments restore --experiment-id {found.experiment_id}` brings it back, "
            f"`mlflow gc --experiment-ids {found.experiment_id}` frees the name; then `gauntlet publish RUN`",
        )
    return str(found.experiment_id)


def default_uri(output: Path) -> str:
    """Where a run logs unless it is told otherwise: `mlflow.db` in its output folder."""
    return f"sqlite:///{output.absolute() / 'mlflow.db'}"


def artifact_root(uri: str, artifacts: str | None = None) -> str | None:
    """The URI under which new experiments keep their files; None: the server decides."""
    if artifacts is not None:
        return artifacts if "://" in artifacts else Path(artifacts).absolute().as_uri()
    if uri.startswith("sqlite:///"):
        return Path(uri.removeprefix("sqlite:///")).absolute().with_name("mlartifacts").as_uri()
    if urlsplit(uri).scheme.partition("+")[0] in _PORTS:
        raise TrackingError(
            f"{shown(uri)} is a database, and does not say where files go",
            "give the folder or bucket for artifacts, or the address of an MLflow server in front of that database",
        )
    return None


def ui_command(uri: str, artifacts: str | None = None) -> str:
    """The shell command that opens MLflow's pages on what was published there."""
    if uri.startswith(("http://", "https://")):
        return f"{shlex.quote(sys.executable)} -m webbrowser {shlex.quote(uri)}"
    program = Path(sys.executable).with_name("mlflow")
    if program.is_relative_to(Path.cwd()):
        program = program.relative_to(Path.cwd())
    if uri.startswith("sqlite:///"):
        uri = f"sqlite:///{Path(uri.removeprefix('sqlite:///')).absolute()}"
    words = [str(program), "ui", "--backend-store-uri", uri, "--workers", "1"]
    root = artifact_root(uri, artifacts)
    return shlex.join(words + (["--default-artifact-root", root] if root else []))


def shown(uri: str) -> str:
    """The URI without its password."""
    return re.sub(r"(://[^/:@]*):[^/@]*@", r"\1:***@", uri)


def download(source: str, uri: str, folder: Path) -> Path:
    """Fetch the files under an artifact URI of the server at `uri` into `folder`; returns where they lie."""
    from mlflow.artifacts import download_artifacts

    return Path(download_artifacts(artifact_uri=source, dst_path=str(folder), tracking_uri=uri))


def _require(uri: str, hint: str) -> None:
    """Raise TrackingError unless something answers, before MLflow's own retries spend a minute on it."""
    parts = urlsplit(uri)
    scheme = parts.scheme.partition("+")[0]
    try:
        if scheme in ("http", "https"):
            answer = requests.get(f"{uri.rstrip('/')}/health", timeout=WAIT)
            if answer.status_code >= 500:
                raise TrackingError(f"MLflow at {shown(uri)} answers with status {answer.status_code}", hint)
        elif scheme in _PORTS and parts.hostname:
            socket.create_connection((parts.hostname, parts.port or _PORTS[scheme]), timeout=WAIT).close()
        elif scheme == "sqlite":
            Path(uri.removeprefix("sqlite:///")).absolute().parent.mkdir(parents=True, exist_ok=True)
    except (requests.RequestException, OSError) as error:
        raise TrackingError(f"MLflow at {shown(uri)} cannot be reached: {_first_line(error)}", hint) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


# --- reading and writing runs ---------------------------------------------------------------------------------------


def paged(ask: Callable[[str | None], Any]) -> list[Any]:
    """Everything that a search finds, page by page. ask: the page behind a token, None for the first."""
    found: list[Any] = []
    token = None
    while True:
        page = ask(token)
        found += page
        token = page.token
        if not token:
            return found


def _runs_of(client: "MlflowClient", experiment_id: str, submission: str) -> "list[Run]":
    return paged(lambda token: client.search_runs([experiment_id], _of(submission), page_token=token))


def _models_of(client: "MlflowClient", experiment_id: str, submission: str) -> "list[LoggedModel]":
    return paged(lambda token: client.search_logged_models([experiment_id], _of(submission), page_token=token))


def _of(submission: str) -> str:
    return f"tags.submission = '{submission}'"


def _standing(runs: "Sequence[Run]", wanted: RunSpec) -> str | None:
    """The id of a run that was made from the same content, to its end."""
    for run in runs:
        same = run.data.tags.get(CONTENT) == wanted.content and run.info.run_name == wanted.name
        if same and run.info.status in ("FINISHED", "FAILED"):
            return str(run.info.run_id)
    return None


def _write_model(
    client: "MlflowClient", experiment_id: str, name: str, fact: ModelFact, runs: Sequence[RunSpec]
) -> tuple[str, list[str | None]]:
    """New runs for all rows of a model, and the logged model that joins them."""
    from mlflow.entities import LoggedModelOutput

    ids = [_open(client, experiment_id, run) for run in runs]
    logged = client.create_logged_model(
        experiment_id,
        name=re.sub(r"[/:.%\"']", "_", name),
        source_run_id=ids[0],
        tags={"submission": runs[0].tags["submission"], "model": name, CONTENT: runs[0].content},
        params=mlflow_params({"adapter": fact.adapter, "weights": fact.weights or "none", **fact.params}),
        model_type="classifier",
    )
    for id_, run in zip(ids, runs, strict=True):
        client.log_outputs(id_, [LoggedModelOutput(logged.model_id, step=0)])
        _write(client, id_, run, logged.model_id)
    client.finalize_logged_model(logged.model_id, "READY")
    return str(logged.model_id), list(ids)


def _open(client: "MlflowClient", experiment_id: str, run: RunSpec) -> str:
    tags = {"submission": run.tags["submission"]}  # so that a run that is cut short is found and replaced
    return str(client.create_run(experiment_id, run_name=run.name, tags=tags).info.run_id)


def _write(client: "MlflowClient", run_id: str, run: RunSpec, model_id: str | None = None) -> str:
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param, RunTag
    from mlflow.entities import Metric as Figure

    now = int(time.time() * 1000)
    name, digest = run.key[1], run.dataset.digest[:36]  # MLflow's limit
    source = json.dumps({"name": run.dataset.name, "digest": run.dataset.digest})
    profile = json.dumps({"num_rows": run.dataset.n, "num_classes": run.dataset.classes})
    dataset = Dataset(name, digest, source_type="gauntlet", source=source, profile=profile)
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "evaluation")])])
    _upload(client, run_id, run.files)
    figures = [Figure(key, value, now, 0, model_id, name, digest) for key, value in run.metrics.items()]
    figures += _points(run.curves, now)
    params = [Param(key, value) for key, value in run.params.items()]
    tags = [RunTag(key, cut(value, 7_900)) for key, value in {**run.tags, CONTENT: run.content}.items() if value]
    for start in range(0, max(len(figures), len(params), len(tags)), 100):
        part = slice(start, start + 100)
        client.log_batch(run_id, metrics=figures[part], params=params[part], tags=tags[part])
    client.set_terminated(run_id, "FAILED" if run.failed else "FINISHED")
    return run_id


def write_curves(client: "MlflowClient", experiment_id: str, name: str, curves: Mapping[str, Sequence[float]]) -> str:
    """A run that holds the curves of a training, a step an epoch; returns its id."""
    run_id = str(client.create_run(experiment_id, run_name=name).info.run_id)
    points = _points(curves, int(time.time() * 1000))
    for start in range(0, len(points), 1000):
        client.log_batch(run_id, metrics=points[start : start + 1000])
    client.set_terminated(run_id, "FINISHED")
    return run_id


def _points(curves: Mapping[str, Sequence[float]], now: int) -> "list[Figure]":
    """Steps are counted from 1. MLflow cannot plot what is not finite, so those points are left out."""
    from mlflow.entities import Metric as Figure

    return [
        Figure(key, value, now, step)
        for key, curve in curves.items()
        for step, value in enumerate(curve, 1)
        if math.isfinite(value)
    ]


def _upload(client: "MlflowClient", run_id: str, files: Mapping[str, Path | str]) -> None:
    if not files:
        return
    with tempfile.TemporaryDirectory(prefix="gauntlet-") as folder:
        for name, content in files.items():
            target = Path(folder, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                shutil.copyfile(content, target)
            else:
                target.write_text(content, encoding="utf-8")
        client.log_artifacts(run_id, folder)
