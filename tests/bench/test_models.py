"""Registered models: what comes out of the registry is what went in, or an error."""

import json
import re
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.contracts import adapters
from bench.errors import DataError, PluginError, TrackingError
from bench.models import SPEC, bundle, fetch, list_models, origin, parse, register, remove, show
from bench.tracking import connect, download
from tests.bench.linear import fitted, linear

__all__ = ["linear"]  # a fixture


@pytest.fixture
def name() -> str:
    """A name that no other test registers."""
    return f"digits-{uuid.uuid4().hex[:8]}.v1"


def files_of(name: str, uri: str) -> Path:
    """The folder in which the only version of a model lies, for a registry with local files."""
    entry, _ = show(name, uri)
    return Path(entry.source.removeprefix("file://"))


def test_a_registered_model_predicts_as_the_one_it_was_made_from(name: str, linear: str, tracking_uri: str) -> None:
    sklearn, x, weights = fitted()
    args = {"scale": 2.0, "weights": "/home/ada/digits.safetensors"}
    assert register(name, linear, args, weights, tracking_uri) == 1
    spec, back = fetch(f"models:/{name}/1", tracking_uri)
    assert back == weights
    assert (spec.adapter, spec.args) == ("linear", {"scale": 2.0, "weights": "digits.safetensors"})
    assert (spec.input_shape, spec.bounds, spec.classes) == ((64,), (0.0, 1.0), 10)
    logits = adapters.build(spec.adapter, spec.args).build(back).logits(torch.from_numpy(x))
    np.testing.assert_allclose(logits.numpy(), 2 * sklearn.decision_function(x), atol=1e-4)
    assert (logits.argmax(1).numpy() == sklearn.predict(x)).mean() > 0.998


def test_versions_count_up_and_the_same_content_is_the_same_version(name: str, linear: str, tracking_uri: str) -> None:
    _, _, weights = fitted()
    assert register(name, linear, {}, weights, tracking_uri) == 1
    assert register(name, linear, {"scale": 3.0}, weights, tracking_uri) == 2
    assert register(name, linear, {}, weights, tracking_uri) == 1
    entries = [entry for entry in list_models(tracking_uri) if entry.name == name]
    assert [(entry.version, entry.adapter) for entry in entries] == [(2, "linear"), (1, "linear")]
    assert show(name, tracking_uri)[1].args["scale"] == 3.0
    assert show(f"{name}/latest", tracking_uri)[0].version == 2
    told = rf"{name}/2, registered by \S+ on \d{{4}}-\d\d-\d\d"
    assert re.fullmatch(told, origin(f"models:/{name}/latest", tracking_uri))
    assert "scale" not in show(f"{name}/1", tracking_uri)[1].args


def test_what_is_removed_is_gone_and_the_rest_stays(name: str, linear: str, tracking_uri: str) -> None:
    _, _, weights = fitted()
    for scale in (1.0, 2.0, 3.0):
        register(name, linear, {"scale": scale}, weights, tracking_uri)
    assert remove(f"{name}/2", tracking_uri) == [2]
    with pytest.raises(TrackingError, match=r"has no version 2 \(it has 1, 3\)"):
        fetch(f"{name}/2", tracking_uri)
    assert fetch(f"{name}/3", tracking_uri)[1] == weights
    assert remove(name, tracking_uri) == [1, 3]
    with pytest.raises(TrackingError, match="no registered model"):
        show(name, tracking_uri)
    assert name not in {entry.name for entry in list_models(tracking_uri)}
    assert register(name, linear, {}, weights, tracking_uri) == 1, "the name is free again"


def test_the_curves_of_a_training_stand_in_the_run_that_the_version_names(
    name: str, linear: str, tracking_uri: str
) -> None:
    curves = {"loss": [2.0, 1.0, float("nan")], "channels/conv1": [16.0, 8.0, 4.0]}
    assert register(name, linear, {}, fitted()[2], tracking_uri, owner="ada", curves=curves) == 1
    with connect(tracking_uri) as client:
        made = client.get_model_version(name, "1")
        assert made.tags["gauntlet.weights"] == show(name, tracking_uri)[1].weights.digest
        assert made.tags["gauntlet.owner"] == "ada"
        run = client.get_run(made.run_id)
        assert (run.info.status, run.info.run_name) == ("FINISHED", name)
        told = client.get_metric_history(made.run_id, "training/channels/conv1")
        assert sorted((point.step, point.value) for point in told) == [(1, 16.0), (2, 8.0), (3, 4.0)]
        loss = client.get_metric_history(made.run_id, "training/loss")
        assert sorted((point.step, point.value) for point in loss) == [(1, 2.0), (2, 1.0)]
        remove(name, tracking_uri)
        assert client.get_run(made.run_id).info.lifecycle_stage == "deleted"


@pytest.mark.parametrize("change", ["one bit", "cut short", "gone"])
def test_tampered_weights_are_noticed(name: str, linear: str, mlflow_file: str, change: str) -> None:
    _, _, weights = fitted()
    register(name, linear, {"weights": "digits.safetensors"}, weights, mlflow_file)
    file = files_of(name, mlflow_file) / "digits.safetensors"
    assert file.read_bytes() == weights
    if change == "gone":
        file.unlink()
    else:
        file.write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]) if change == "one bit" else weights[:-1])
    with pytest.raises(DataError, match="missing" if change == "gone" else "not those that were registered"):
        fetch(name, mlflow_file)


def test_a_tampered_spec_is_noticed(name: str, linear: str, mlflow_file: str) -> None:
    _, _, weights = fitted()
    register(name, linear, {}, weights, mlflow_file)
    file = files_of(name, mlflow_file) / SPEC
    spec = json.loads(file.read_text())
    file.write_text(json.dumps(spec | {"adapter": "something_else"}))
    with pytest.raises(DataError, match=r"gauntlet\.json is not the one that was registered"):
        fetch(name, mlflow_file)


def test_a_model_of_another_tool_is_refused_with_what_to_do(name: str, mlflow_file: str, tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("flavors: {pytorch: {}}")
    (tmp_path / "model.pkl").write_bytes(b"would run code")
    with connect(mlflow_file) as client:
        client.create_registered_model(name)
        client.create_model_version(name, tmp_path.as_uri())
    with pytest.raises(TrackingError, match=r"not registered by Gauntlet[\s\S]*gauntlet models register"):
        fetch(name, mlflow_file)
    (entry,) = [entry for entry in list_models(mlflow_file) if entry.name == name]
    assert entry.adapter == ""


def test_a_model_that_does_not_build_is_not_registered(name: str, linear: str, mlflow_file: str) -> None:
    _, _, weights = fitted()
    with pytest.raises(PluginError, match="did you mean 'linear'"):
        register(name, "linaer", {}, weights, mlflow_file)
    with pytest.raises(PluginError, match="sclae: Extra inputs"):
        register(name, linear, {"sclae": 1}, weights, mlflow_file)
    with pytest.raises(PluginError, match="no weights"):
        register(name, linear, {}, None, mlflow_file)
    with pytest.raises(PluginError, match="no bytes were given"):
        register(name, linear, {"weights": "digits.safetensors"}, None, mlflow_file)
    with pytest.raises(PluginError, match="not JSON values"):
        register(name, linear, {"scale": float("inf")}, weights, mlflow_file)
    with pytest.raises(PluginError, match="cannot be registered again"):
        register(name, "mlflow", {"uri": "x/1"}, weights, mlflow_file)
    with pytest.raises(PluginError, match="cannot name a model"):
        register("a/b", linear, {}, weights, mlflow_file)
    assert name not in {entry.name for entry in list_models(mlflow_file)}


def test_a_misspelt_name_gets_the_nearest_one(name: str, linear: str, mlflow_file: str) -> None:
    register(name, linear, {}, fitted()[2], mlflow_file)
    with pytest.raises(TrackingError, match=f"did you mean '{name}'"):
        fetch(name.replace("digits", "digist"), mlflow_file)


@pytest.mark.parametrize(
    ("reference", "parsed"),
    [("resnet", ("resnet", None)), ("a.b/3", ("a.b", 3)), ("models:/a/12", ("a", 12)), ("a/latest", ("a", None))],
)
def test_a_reference_is_a_name_and_a_version(reference: str, parsed: tuple[str, int | None]) -> None:
    assert parse(reference) == parsed


@pytest.mark.parametrize("reference", ["", "a/0", "a/b", "a' OR '1", "runs:/a/1", "../a", "models:/a@prod"])
def test_what_is_no_reference_is_refused(reference: str) -> None:
    with pytest.raises(TrackingError, match="names no registered model"):
        parse(reference)


def test_the_bundle_of_the_same_model_is_the_same_bytes(name: str, linear: str, mlflow_file: str) -> None:
    _, _, weights = fitted()
    register(name, linear, {}, weights, mlflow_file)
    register(name, linear, {"scale": 2.0}, weights, mlflow_file)
    one = bundle(f"{name}/1", mlflow_file)
    assert one == bundle(f"models:/{name}/1", mlflow_file)
    assert one.endswith(b"\n" + weights)
    assert bundle(f"{name}/2", mlflow_file) != one, "other arguments are another model"


def test_the_bundle_changes_with_the_source_and_the_libraries_of_the_inner_adapter(
    name: str, linear: str, mlflow_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(name, linear, {}, fitted()[2], mlflow_file)
    before = bundle(name, mlflow_file)
    with monkeypatch.context() as changed:
        changed.setattr("bench.models.source_digest", lambda cls: "edited")
        assert bundle(name, mlflow_file) != before
    with monkeypatch.context() as changed:
        changed.setattr("bench.models.installed", lambda distribution: "99")
        assert bundle(name, mlflow_file) != before
    assert bundle(name, mlflow_file) == before


def test_a_bundle_needs_the_adapter_to_be_known(name: str, linear: str, mlflow_file: str, monkeypatch) -> None:
    register(name, linear, {}, fitted()[2], mlflow_file)
    monkeypatch.delitem(adapters._classes, "linear")
    with pytest.raises(PluginError, match=r"no adapter 'linear'[\s\S]*`plugins:`"):
        bundle(name, mlflow_file)


def test_nothing_is_left_in_the_working_directory(
    name: str, linear: str, tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    register(name, linear, {}, fitted()[2], tracking_uri)
    fetch(name, tracking_uri)
    remove(name, tracking_uri)
    assert list(tmp_path.iterdir()) == []


def test_files_of_a_version_can_be_read_without_gauntlet(
    name: str, linear: str, tracking_uri: str, tmp_path: Path
) -> None:
    _, _, weights = fitted()
    register(name, linear, {}, weights, tracking_uri)
    entry, spec = show(name, tracking_uri)
    folder = download(entry.source, tracking_uri, tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == [SPEC, "weights.bin"]
    assert json.loads((folder / SPEC).read_text()) == spec.model_dump(mode="json")
