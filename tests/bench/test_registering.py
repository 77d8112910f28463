"""What a suite's recipes trained comes into MLflow's model registry, and out of it again as the same model."""

import uuid
from pathlib import Path

import numpy as np
import pytest
import torch

from adapters.cnn import Cnn
from adapters.torch_classifier import state_from_bytes, state_to_bytes
from bench import models, tracking
from bench.contracts import adapters
from bench.errors import PluginError, TrackingError
from bench.plan import ModelRef
from bench.runs import Run
from bench.verbs import models_uri, register_trained
from tests.adapters.families import SMALL, digits, small_cnn
from tests.reports.lab import made_run

CURVES = {"loss": [1.5, 0.5], "accuracy": [0.6, 0.9]}


def run_with(folder: Path, suite: str, *refs: ModelRef, weights: bytes, trained: str = "") -> Run:
    """A finished run whose models are these; the training `trained` made the weights."""
    run = made_run(folder, suite=suite)
    digest = run.store.put_blob(weights)
    run.set_resolved(
        run.resolved.model_copy(update={"models": tuple(ref.model_copy(update={"weights": digest}) for ref in refs)})
    )
    if trained:
        run.store.set_trained(trained, digest, 1.0, CURVES)
    return run


@pytest.fixture
def suite() -> str:
    """A name that no other test uses."""
    return f"suite-{uuid.uuid4().hex[:8]}"


def a_cnn(label: str, **changes: object) -> ModelRef:
    args = Cnn(**SMALL).model_dump(mode="json", exclude={"weights"})
    return ModelRef(**{"label": label, "plugin": "cnn", "args": args, "training": "t"} | changes)


def versions(suite: str, uri: str) -> dict[str, int]:
    return {one.name: one.version for one in models.list_models(uri) if one.name.startswith(suite)}


def test_what_was_trained_is_a_version_with_its_curves_and_predicts_the_same(
    tmp_path: Path, suite: str, tracking_uri: str
) -> None:
    run = run_with(tmp_path, suite, a_cnn("small.net"), weights=small_cnn(), trained="t")
    told = register_trained(run, tracking_uri, owner="ada")
    assert told == [f"trained models registered as {suite}.MODEL: 1 (`gauntlet models list`)"]
    name = f"{suite}.small.net"
    spec, weights = models.fetch(name, tracking_uri)
    assert weights == small_cnn()
    x = digits("test").fetch(np.arange(20))
    again = adapters.build(spec.adapter, spec.args).build(weights)
    assert torch.equal(again.logits(x), Cnn(**SMALL).build(small_cnn()).logits(x))
    with tracking.connect(tracking_uri) as client:
        run_id = client.get_model_version(name, "1").run_id
        found = client.get_metric_history(run_id, "training/accuracy")
    assert sorted((point.step, point.value) for point in found) == [(1, 0.6), (2, 0.9)]


def test_the_same_weights_are_registered_once_and_others_are_the_next_version(
    tmp_path: Path, suite: str, mlflow_file: str
) -> None:
    run = run_with(tmp_path / "a", suite, a_cnn("cnn"), weights=small_cnn(), trained="t")
    register_trained(run, mlflow_file)
    register_trained(run, mlflow_file)
    assert versions(suite, mlflow_file) == {f"{suite}.cnn": 1}
    other = run_with(tmp_path / "b", suite, a_cnn("cnn"), weights=changed(small_cnn()), trained="t")
    register_trained(other, mlflow_file)
    assert [one.version for one in models.list_models(mlflow_file) if one.name == f"{suite}.cnn"] == [2, 1]


def test_what_stands_there_already_is_found_without_building_it(
    tmp_path: Path, suite: str, mlflow_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_with(tmp_path, suite, a_cnn("cnn"), weights=small_cnn(), trained="t")
    register_trained(run, mlflow_file)

    def build(self: Cnn, weights: bytes | None) -> None:
        raise PluginError("built")

    monkeypatch.setattr(Cnn, "build", build)
    assert register_trained(run, mlflow_file)[0].startswith("trained models registered")
    assert versions(suite, mlflow_file) == {f"{suite}.cnn": 1}
    other = run_with(tmp_path / "b", suite, a_cnn("cnn"), weights=changed(small_cnn()), trained="t")
    assert register_trained(other, mlflow_file) == [f"not registered: {suite}.cnn: built"]


def test_what_nobody_trained_here_is_left_out(tmp_path: Path, suite: str, mlflow_file: str) -> None:
    run = run_with(tmp_path, suite, a_cnn("from_a_file", training=None), a_cnn("derived"), weights=small_cnn())
    assert register_trained(run, mlflow_file) == []
    assert versions(suite, mlflow_file) == {}


def test_a_model_that_cannot_be_registered_is_told_and_stops_no_other(
    tmp_path: Path, suite: str, mlflow_file: str
) -> None:
    broken = a_cnn("gone", plugin="no_longer_there")
    run = run_with(tmp_path, suite, broken, a_cnn("cnn"), weights=small_cnn(), trained="t")
    first, second = register_trained(run, mlflow_file)
    assert first.startswith(f"not registered: {suite}.gone: no adapter 'no_longer_there'")
    assert second.startswith("trained models registered")
    assert versions(suite, mlflow_file) == {f"{suite}.cnn": 1}


def test_looking_where_nothing_was_registered_makes_no_database(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="no model is registered in"):
        models_uri(tmp_path, None)
    assert list(tmp_path.iterdir()) == []
    assert models_uri(tmp_path, "sqlite:///x") == "sqlite:///x"


def changed(weights: bytes) -> bytes:
    """The same shapes with other values."""
    state = state_from_bytes(weights)
    return state_to_bytes({name: value + 1 if value.is_floating_point() else value for name, value in state.items()})
