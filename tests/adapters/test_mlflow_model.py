"""The adapter `mlflow`: fetched once on the driver, built anywhere."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from adapters.mlflow_model import RegisteredModel
from bench.contracts import adapters
from bench.errors import PluginError, TrackingError
from bench.models import register
from tests.bench.linear import Linear, fitted, linear

__all__ = ["linear"]  # a fixture


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('registry')}/mlflow.db"


def test_it_builds_what_the_inner_adapter_builds(linear: str, registry: str) -> None:
    _, x, weights = fitted()
    register("digits", linear, {"scale": 2.0}, weights, registry)
    artefact = RegisteredModel(uri="models:/digits/1", tracking_uri=registry).artefact()
    elsewhere = RegisteredModel(uri="models:/digits/1")  # a worker does not know the registry
    classifier = elsewhere.build(artefact)
    direct = Linear(scale=2.0).build(weights)
    assert torch.equal(classifier.logits(torch.from_numpy(x)), direct.logits(torch.from_numpy(x)))
    assert (classifier.input_shape, classifier.classes) == ((64,), 10)


def test_its_size_is_that_of_the_weights_alone(linear: str, registry: str) -> None:
    _, _, weights = fitted()
    register("digits", linear, {}, weights, registry)
    model = RegisteredModel(uri="digits", tracking_uri=registry)
    artefact = model.artefact()
    assert model.build(artefact).size_bytes() == len(weights) < len(artefact)


def test_the_inner_adapter_places_it(linear: str, registry: str) -> None:
    register("digits", linear, {}, fitted()[2], registry)
    model = RegisteredModel(uri="digits", tracking_uri=registry)
    assert model.place(model.build(model.artefact()), "cpu").device == "placed on cpu"


def test_the_registry_may_be_named_by_the_environment(
    linear: str, registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    register("digits", linear, {}, fitted()[2], registry)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry)
    assert RegisteredModel(uri="digits/1").artefact().startswith(b'{"adapter": "linear"')
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(PluginError, match="MLFLOW_TRACKING_URI"):
        RegisteredModel(uri="digits/1").artefact()


def test_a_node_that_lacks_the_inner_adapter_says_which(
    linear: str, registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    register("digits", linear, {}, fitted()[2], registry)
    model = RegisteredModel(uri="digits/1", tracking_uri=registry)
    artefact = model.artefact()
    monkeypatch.delitem(adapters._classes, "linear")
    with pytest.raises(PluginError, match=r"'digits/1': no adapter 'linear'"):
        model.build(artefact)


@pytest.mark.parametrize("artefact", [None, b"", b"weights\n", b"[]\n", b"{}\nweights"])
def test_bytes_that_are_no_artefact_are_refused(artefact: bytes | None) -> None:
    with pytest.raises(PluginError, match="not what the model registry gave"):
        RegisteredModel(uri="digits/1").build(artefact)


@pytest.mark.parametrize("uri", ["models:/a/b/c", "runs:/1/model", "../x", "a/0", "http://host/a"])
def test_an_address_that_is_no_registered_model_is_refused_at_validation(uri: str) -> None:
    with pytest.raises(ValidationError, match="uri"):
        RegisteredModel(uri=uri)


def test_a_model_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="no registered model 'nothing'"):
        RegisteredModel(uri="nothing/1", tracking_uri=f"sqlite:///{tmp_path}/mlflow.db").artefact()
