"""What stands in MLflow after a publication, as MLflow's own client reads it."""

import json
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import requests

from bench import tracking
from bench.errors import TrackingError
from bench.publication import (
    METRICS_PER_ROW,
    DatasetFact,
    Evaluation,
    ModelFact,
    Publication,
    evaluation_runs,
    row_runs,
)
from bench.records import Failure, Metric, Reason, Row
from bench.tracking import artifact_root, connect, default_uri, publish, shown, ui_command

DIGEST = "0123456789abcdef" * 2


def a_row(model: str, dataset: str, **changes: Metric) -> Row:
    accuracy = {"cnn": 0.97, "bnn": 0.91}[model] - (0.1 if dataset == "hard" else 0.0)
    metrics = {
        "clean_accuracy": Metric(value=accuracy, low=accuracy - 0.02, high=accuracy + 0.02, n=500),
        "robust_accuracy/linf/pgd/0.1": Metric(value=accuracy / 2, n=500),
        "macs": Metric(value=41_472.0),
    }
    return Row(model=model, dataset=dataset, metrics={**metrics, **changes})


@pytest.fixture
def publication() -> Publication:
    """Two models on two data sets, under a suite's name that no other test uses."""
    return Publication(
        suite=f"suite {uuid.uuid4().hex[:8]}",
        submission="quickstart-1a2b3c4d",
        owner="ada",
        status="complete",
        rows=[a_row(model, dataset) for model in ("cnn", "bnn") for dataset in ("easy", "hard")],
        models={name: ModelFact("reference", DIGEST, {"width": 8}) for name in ("cnn", "bnn")},
        datasets={"easy": DatasetFact("digits", DIGEST, 500, 10), "hard": DatasetFact("idx", DIGEST[::-1], 500, 10)},
        evaluations=[
            Evaluation("cnn", "easy", "pgd", {"robust_accuracy/linf/pgd/0.1": Metric(value=0.485)}, {"steps": 40})
        ],
        tags={"hardware": "2 cores", "revision": "abc"},
        params={("cnn", "easy"): {"seed": "7"}},
        files={"suite.yaml": "name: quickstart\n"},
        note="| model | clean |",
    )


def runs(uri: str, experiment: str) -> list:
    with connect(uri) as client:
        return list(client.search_runs([experiment]))


def test_a_row_becomes_a_flat_run_with_its_metrics_tags_and_params(publication: Publication, tracking_uri: str) -> None:
    published = publish(publication, tracking_uri)
    found = {
        (run.data.tags["model"], run.data.tags["dataset"]): run for run in runs(tracking_uri, published.experiment)
    }
    assert {key: run.info.run_id for key, run in found.items()} == published.runs
    assert published.created == 5
    for row in publication.rows:
        run = found[row.model, row.dataset]
        assert run.data.metrics == {name: metric.value for name, metric in row.metrics.items()}
        assert run.info.run_name == f"{row.model} · {row.dataset}"
        assert run.info.status == "FINISHED"
        expected = {"submission": "quickstart-1a2b3c4d", "owner": "ada", "status": "complete", "hardware": "2 cores"}
        assert run.data.tags.items() >= expected.items()
        assert "mlflow.parentRunId" not in run.data.tags
    cnn = found["cnn", "easy"]
    assert cnn.data.params == {"adapter": "reference", "weights": DIGEST, "seed": "7"}
    assert cnn.data.tags["interval/clean_accuracy"] == "0.95 to 0.99, n = 500"
    (given,) = cnn.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("easy", DIGEST)
    with connect(tracking_uri) as client:
        experiment = client.get_experiment(published.experiment)
    assert experiment.name == publication.suite
    note = experiment.tags["mlflow.note.content"]
    assert note.startswith(publication.note)
    assert all(f"(#/experiments/{published.experiment}/runs/{id_})" in note for id_ in published.runs.values())


def test_the_curves_of_a_training_stand_with_the_rows_of_its_model_a_step_an_epoch(
    publication: Publication, tracking_uri: str
) -> None:
    curves = {"loss": [2.0, 1.0, 0.5], "accuracy": [0.2, float("nan"), 0.9]}
    fact = replace(publication.models["cnn"], curves=curves)
    published = publish(replace(publication, models={**publication.models, "cnn": fact}), tracking_uri)
    with connect(tracking_uri) as client:
        for dataset in ("easy", "hard"):
            run = published.runs["cnn", dataset]
            loss = client.get_metric_history(run, "training/loss")
            assert sorted((point.step, point.value) for point in loss) == [(1, 2.0), (2, 1.0), (3, 0.5)]
            accuracy = client.get_metric_history(run, "training/accuracy")
            assert sorted((point.step, point.value) for point in accuracy) == [(1, 0.2), (3, 0.9)]
        assert client.get_metric_history(published.runs["bnn", "easy"], "training/loss") == []
    assert publish(replace(publication, models={**publication.models, "cnn": fact}), tracking_uri).created == 0


def test_the_models_page_ranks_models_by_a_metric_on_one_data_set(publication: Publication, tracking_uri: str) -> None:
    published = publish(publication, tracking_uri)
    hard = {"dataset_name": "hard", "dataset_digest": DIGEST[::-1]}
    with connect(tracking_uri) as client:
        found = client.search_logged_models(
            [published.experiment],
            datasets=[hard],
            order_by=[{"field_name": "metrics.clean_accuracy", "ascending": False, **hard}],
        )
    assert [model.name for model in found] == ["cnn", "bnn"]
    assert {model.name: model.model_id for model in found} == published.models
    for model in found:
        assert model.status == "READY"
        assert model.params == {"adapter": "reference", "weights": DIGEST, "width": "8"}
        linked = {(m.dataset_name, m.key): m.value for m in model.metrics}
        rows = [row for row in publication.rows if row.model == model.name]
        expected = {(row.dataset, name): m.value for row in rows for name, m in row.metrics.items()}
        assert linked == expected
        assert {m.run_id for m in model.metrics} == {
            published.runs[model.name, "easy"],
            published.runs[model.name, "hard"],
        }


def test_artifacts_come_back_as_they_were_given(publication: Publication, tracking_uri: str, tmp_path: Path) -> None:
    records = tmp_path / "anything.parquet"
    records.write_bytes(b"PAR1 of no meaning PAR1")
    published = publish(
        replace(publication, row_files={("bnn", "easy"): {"records/records.parquet": records}}), tracking_uri
    )
    with connect(tracking_uri) as client:
        (tmp_path / "back").mkdir()
        folder = Path(client.download_artifacts(published.runs["bnn", "easy"], "", str(tmp_path / "back")))
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert names == {"suite.yaml", "row.json", "records/records.parquet"}
    assert (folder / "records/records.parquet").read_bytes() == records.read_bytes()
    assert (folder / "suite.yaml").read_text() == "name: quickstart\n"
    assert Row.model_validate_json((folder / "row.json").read_text()) == publication.rows[2]


def test_single_evaluations_stand_in_the_sibling_experiment(publication: Publication, tracking_uri: str) -> None:
    published = publish(publication, tracking_uri)
    (run,) = runs(tracking_uri, published.evaluations)
    assert run.info.run_name == "cnn · easy · pgd"
    assert run.data.metrics == {"robust_accuracy/linf/pgd/0.1": 0.485}
    assert run.data.params == {"steps": "40"}
    with connect(tracking_uri) as client:
        assert client.get_experiment(published.evaluations).name == f"{publication.suite}.evaluations"


def test_publishing_twice_leaves_the_same_runs(publication: Publication, tracking_uri: str) -> None:
    first = publish(publication, tracking_uri)
    second = publish(publication, tracking_uri)
    assert second == replace(first, created=0)
    assert len(runs(tracking_uri, first.experiment)) == 4
    assert len(runs(tracking_uri, first.evaluations)) == 1


def test_another_submission_stands_beside_the_first(publication: Publication, mlflow_file: str) -> None:
    first = publish(publication, mlflow_file)
    second = publish(replace(publication, submission="quickstart-other"), mlflow_file)
    assert len(runs(mlflow_file, first.experiment)) == 8
    assert not set(first.runs.values()) & set(second.runs.values())


def test_a_changed_row_replaces_the_runs_of_its_model_and_no_other(publication: Publication, mlflow_file: str) -> None:
    first = publish(publication, mlflow_file)
    rows = [*publication.rows[:3], a_row("bnn", "hard", macs=Metric(value=1.0))]
    second = publish(replace(publication, rows=rows, files={"suite.yaml": "new\n"}), mlflow_file)
    assert second.created == 2
    assert second.runs["cnn", "easy"] == first.runs["cnn", "easy"]
    assert second.runs["bnn", "hard"] != first.runs["bnn", "hard"]
    found = {run.info.run_id: run for run in runs(mlflow_file, first.experiment)}
    assert set(found) == set(second.runs.values())
    assert found[second.runs["bnn", "hard"]].data.metrics["macs"] == 1.0
    with connect(mlflow_file) as client:
        assert {m.model_id for m in client.search_logged_models([first.experiment])} == set(second.models.values())
        kept = Path(client.download_artifacts(second.runs["cnn", "easy"], "suite.yaml"))
        assert kept.read_text() == "new\n", "the files speak of the whole submission"


def test_a_row_that_is_gone_takes_its_run_along(publication: Publication, mlflow_file: str) -> None:
    publish(publication, mlflow_file)
    second = publish(replace(publication, rows=publication.rows[:2]), mlflow_file)
    assert {run.data.tags["model"] for run in runs(mlflow_file, second.experiment)} == {"cnn"}


def test_a_publication_that_broke_off_is_completed_by_the_next(
    publication: Publication, mlflow_file: str, tmp_path: Path
) -> None:
    late = tmp_path / "late.parquet"
    broken = replace(publication, row_files={("cnn", "hard"): {"records.parquet": late}})
    with pytest.raises(TrackingError, match=r"late\.parquet"):
        publish(broken, mlflow_file)
    late.write_bytes(b"there")
    published = publish(broken, mlflow_file)
    found = runs(mlflow_file, published.experiment)
    assert sorted((run.data.tags["model"], run.data.tags["dataset"]) for run in found) == sorted(published.runs)
    assert {run.info.status for run in found} == {"FINISHED"}
    with connect(mlflow_file) as client:
        assert len(client.search_logged_models([published.experiment])) == 2


def test_a_run_that_was_never_ended_is_replaced(publication: Publication, mlflow_file: str) -> None:
    first = publish(publication, mlflow_file)
    with connect(mlflow_file) as client:
        client.update_run(first.runs["cnn", "hard"], status="RUNNING")
    second = publish(publication, mlflow_file)
    assert second.created == 2
    assert second.runs["cnn", "hard"] != first.runs["cnn", "hard"]
    assert {run.info.status for run in runs(mlflow_file, first.experiment)} == {"FINISHED"}


def test_a_row_with_failed_tasks_is_a_failed_run(publication: Publication, mlflow_file: str) -> None:
    failure = Failure(
        key="k", model="cnn", dataset="easy", evaluation="pgd", start=0, stop=9, reason=Reason.TIMEOUT, message="late"
    )
    row = publication.rows[0].model_copy(update={"failures": (failure,)})
    published = publish(replace(publication, rows=[row, *publication.rows[1:]], status="failed tasks"), mlflow_file)
    found = {run.info.run_id: run for run in runs(mlflow_file, published.experiment)}
    run = found[published.runs["cnn", "easy"]]
    assert (run.info.status, run.data.tags["failures"], run.data.tags["status"]) == ("FAILED", "1", "failed tasks")
    assert (
        publish(replace(publication, rows=[row, *publication.rows[1:]], status="failed tasks"), mlflow_file).created
        == 0
    )


def test_values_that_cannot_be_sorted_are_left_out_and_say_why(publication: Publication, mlflow_file: str) -> None:
    odd = {
        "latency_ms/p50": Metric(value=None),
        "median_distance/l2/cw": Metric(value=float("inf")),
        "score": Metric(value=float("nan")),
    }
    row = Row(model="cnn", dataset="easy", metrics={**publication.rows[0].metrics, **odd})
    published = publish(replace(publication, rows=[row]), mlflow_file)
    (run,) = runs(mlflow_file, published.experiment)
    assert set(run.data.metrics) == set(publication.rows[0].metrics)
    absent = {name.removeprefix("absent/"): why for name, why in run.data.tags.items() if name.startswith("absent/")}
    assert absent == {"latency_ms/p50": "not measured", "median_distance/l2/cw": "inf", "score": "nan"}


def test_a_row_shows_its_first_metrics_and_names_the_rest(publication: Publication) -> None:
    metrics = {f"robust_accuracy/linf/a{i}/0.1": Metric(value=i / 100) for i in range(METRICS_PER_ROW + 2)}
    (run,) = row_runs(replace(publication, rows=[Row(model="cnn", dataset="easy", metrics=metrics)]))
    assert list(run.metrics) == list(metrics)[:METRICS_PER_ROW]
    assert run.tags["gauntlet.left_out"].endswith("robust_accuracy/linf/a40/0.1, robust_accuracy/linf/a41/0.1")
    assert len(json.loads(str(run.files["row.json"]))["metrics"]) == METRICS_PER_ROW + 2


def test_names_that_mlflow_refuses_are_taken_all_the_same(publication: Publication, mlflow_file: str) -> None:
    names = ["a=1", "a@1", "b,c", "x//y", "x/../y", "ε"]
    metrics = {name: Metric(value=float(place)) for place, name in enumerate(names)}
    odd = Evaluation("cnn.v2", "easy", "=", metrics, {"p=": 1, "long": "x" * 10_000})
    named = replace(
        publication,
        rows=[Row(model="cnn.v2", dataset="easy", metrics=metrics)],
        models={"cnn.v2": ModelFact("reference")},
        evaluations=[odd],
    )
    published = publish(named, mlflow_file)
    for experiment in (published.experiment, published.evaluations):
        (run,) = runs(mlflow_file, experiment)
        assert sorted(run.data.metrics.values()) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
        assert {"a_1", "a_1_", "b_c", "x/_/y", "x/__/y"} < set(run.data.metrics)
    assert next(iter(evaluation_runs(named))).params["long"].endswith("(cut)")


def test_more_metrics_params_and_tags_than_one_request_takes_are_all_logged(
    publication: Publication, tracking_uri: str
) -> None:
    metrics = {f"m{i}": Metric(value=float(i), low=0.0, high=1.0) for i in range(1_100)}
    params = {f"p{i}": i for i in range(250)}
    published = publish(
        replace(publication, evaluations=[Evaluation("cnn", "easy", "many", metrics, params)]), tracking_uri
    )
    (run,) = runs(tracking_uri, published.evaluations)
    assert (len(run.data.metrics), len(run.data.params)) == (1_100, 250)
    assert sum(name.startswith("interval/") for name in run.data.tags) == 1_100


def test_a_server_that_is_not_there_is_an_error_at_once_that_says_how_to_publish_later(
    publication: Publication,
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://ada:secret@127.0.0.1:{free.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(TrackingError, match="cannot be reached") as caught:
            publish(publication, uri)
    assert time.monotonic() - started < 60, "MLflow itself would try for minutes"
    assert "gauntlet publish RUN --tracking-uri" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_a_server_that_never_answers_is_an_error_within_seconds(
    publication: Publication, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "WAIT", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        port = silent.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):  # the queue of waiting connections is full from here on
            started = time.monotonic()
            with pytest.raises(TrackingError, match="cannot be reached"):
                publish(publication, f"{scheme}://127.0.0.1:{port}/x", artifacts="/tmp/none")
        assert time.monotonic() - started < 60, "MLflow itself would try for minutes"


def test_a_server_that_is_ill_is_an_error(publication: Publication) -> None:
    class Ill(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(503)

        def log_message(self, *_: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Ill) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with pytest.raises(TrackingError, match="status 503"):
                publish(publication, f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()


def test_a_file_that_is_no_database_is_an_error_within_seconds(publication: Publication, tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"not a database, whatever its name says" * 100)
    started = time.monotonic()
    with pytest.raises(TrackingError, match=r"mlflow\.db"):
        publish(publication, default_uri(tmp_path))
    assert time.monotonic() - started < 60, "MLflow itself would try for minutes"


def test_a_deleted_experiment_is_an_error_with_the_way_back(publication: Publication, mlflow_file: str) -> None:
    published = publish(publication, mlflow_file)
    with connect(mlflow_file) as client:
        client.delete_experiment(published.experiment)
    with pytest.raises(TrackingError, match=r"was deleted[\s\S]*restore --experiment-id " + published.experiment):
        publish(publication, mlflow_file)
    with connect(mlflow_file) as client:
        client.restore_experiment(published.experiment)
    assert publish(publication, mlflow_file).runs.keys() == published.runs.keys()


def test_publishing_prints_nothing_and_warns_of_nothing(tmp_path: Path) -> None:
    code = (
        "from bench.publication import *; from bench.tracking import publish; from bench.records import *\n"
        "row = Row(model='m', dataset='d', metrics={'clean_accuracy': Metric(value=1.0)})\n"
        "facts = {'m': ModelFact('a')}, {'d': DatasetFact('d', 'd', 1, 1)}\n"
        f"publish(Publication('s', '1', 'ada', 'complete', [row], *facts), {default_uri(tmp_path)!r})"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_mlflow_is_not_imported_before_something_is_asked_of_it() -> None:
    code = "import sys, bench.tracking, bench.models; print('mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("False", 0), done.stderr


@pytest.mark.parametrize(
    ("uri", "artifacts", "root"),
    [
        ("sqlite:////out/mlflow.db", None, "file:///out/mlartifacts"),
        ("sqlite:////out/mlflow.db", "/files", "file:///files"),
        ("http://tracking:5000", None, None),
        ("postgresql://host/db", "s3://bucket/files", "s3://bucket/files"),
    ],
)
def test_artifacts_lie_where_they_are_told_to(uri: str, artifacts: str | None, root: str | None) -> None:
    assert artifact_root(uri, artifacts) == root


def test_a_database_without_a_place_for_artifacts_is_refused() -> None:
    with pytest.raises(TrackingError, match=r"postgresql://ada:\*\*\*@host/db is a database"):
        artifact_root("postgresql://ada:secret@host/db")


def test_passwords_are_not_shown() -> None:
    assert shown("http://ada:secret@host:5000/x") == "http://ada:***@host:5000/x"
    assert shown("http://host:5000/x@y") == "http://host:5000/x@y"


def test_the_command_for_mlflows_pages_names_the_database_and_the_place_of_the_files(tmp_path: Path) -> None:
    command = ui_command(default_uri(tmp_path / "out"))
    assert command.endswith(
        f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/out/mlflow.db --workers 1 "
        f"--default-artifact-root file://{tmp_path}/out/mlartifacts"
    )
    assert ui_command("http://tracking:5000").endswith("-m webbrowser http://tracking:5000")


def test_the_address_of_the_page_is_told_for_a_server(publication: Publication, mlflow_server: str) -> None:
    published = publish(publication, mlflow_server)
    assert published.url == f"{mlflow_server}/#/experiments/{published.experiment}"
    answer = requests.get(
        f"{mlflow_server}/api/2.0/mlflow/experiments/get", {"experiment_id": published.experiment}, timeout=60
    )
    names: Mapping[str, str] = answer.json()["experiment"]
    assert names["name"] == publication.suite
