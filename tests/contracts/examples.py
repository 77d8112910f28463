"""An example of every registered adapter: its fields, and the bytes of its weights as the engine hands them over."""

import json
from collections.abc import Callable

import numpy as np
import torch

import bench.detectors.odin_pca  # noqa: F401 - registers the detector
from adapters.deployed import pack as pack_deployed
from adapters.odin_cnn import OdinCnn
from adapters.reference import SmallCnn, SmallCnnBinarised, SmallCnnPruned
from adapters.reference_nets import binary_weights, pack
from adapters.refusing import Refusing
from adapters.torch_classifier import state_to_bytes
from bench.contracts import Adapter, Bounds, DatasetChoice, Report, Samples, adapters
from tests.adapters import models


class _Silent(Report):
    def step(self, done: int, total: int, **figures: float) -> None: ...


TORCH = models.FIELDS | {"factory": "tests.adapters.models:SmallNet", "feature_layers": ["relu", "head"]}


def _reference(cls: type[SmallCnn | SmallCnnBinarised | SmallCnnPruned]) -> tuple[Adapter, bytes]:
    """With random weights: what is checked holds before training as after it."""
    adapter = cls()
    net = adapter.net()
    return adapter, state_to_bytes(pack(net.state_dict(), binary_weights(net)))


def _mlflow() -> tuple[Adapter, bytes]:
    head = {"adapter": "torch", "args": TORCH, "weights": "weights.safetensors"}
    weights = models.state_bytes(models.small_net())
    return adapters.build("mlflow", {"uri": "models:/small/1"}), json.dumps(head).encode() + b"\n" + weights


def _refusing() -> tuple[Adapter, bytes]:
    x = torch.rand((60, *models.FIELDS["input_shape"]), generator=torch.Generator().manual_seed(0))
    labels, names = np.arange(60) % 3, ("a", "b", "c")
    data = Samples(labels, lambda rows: x[torch.from_numpy(rows)], tuple(x.shape[1:]), Bounds(0, 1), names, "random")
    fit_on = DatasetChoice(dataset="digits")
    adapter = Refusing(
        adapter="torch", args=json.loads(json.dumps(TORCH)), detector_args={"layer": "relu"}, fit_on=fit_on
    )
    training = adapter.training()
    assert training is not None
    return adapter, training.train(data, models.state_bytes(models.small_net()), 0, _Silent())


def _odin_cnn() -> tuple[Adapter, bytes]:
    adapter = OdinCnn()
    return adapter, state_to_bytes(adapter.net().state_dict())


def _built(name: str, fields: dict[str, object], weights: bytes) -> tuple[Adapter, bytes]:
    return adapters.build(name, models.FIELDS | fields), weights


def _deployed() -> tuple[Adapter, bytes]:
    _, weights = _reference(SmallCnn)
    fields = {"model": {"adapter": "small_cnn"}, "target": "eager"}
    adapter = adapters.build("deployed", fields)
    source = SmallCnn().build(weights)
    facts = {
        "input_shape": list(source.input_shape), "bounds": list(source.bounds), "classes": source.classes,
        "stochastic": False, "gradients": "exact", "realisation": "dense",
    }  # fmt: skip
    return adapter, pack_deployed(weights, weights, facts)


EXAMPLES: dict[str, Callable[[], tuple[Adapter, bytes | None]]] = {
    "deployed": _deployed,
    "mlflow": _mlflow,
    "odin_cnn": _odin_cnn,
    "onnx": lambda: _built("onnx", {"feature_layers": ["activated"]}, models.onnx_of(models.small_net())),
    "sklearn": lambda: _built("sklearn", {}, models.skops_bytes(models.sklearn_estimator())),
    "refusing": _refusing,
    "small_cnn": lambda: _reference(SmallCnn),
    "small_cnn_binarised": lambda: _reference(SmallCnnBinarised),
    "small_cnn_pruned": lambda: _reference(SmallCnnPruned),
    "smoothed": lambda: (adapters.build("smoothed", {"model": {"adapter": "small_cnn"}}), _reference(SmallCnn)[1]),
    "zeroed": lambda: (adapters.build("zeroed", {"model": {"adapter": "small_cnn"}}), _reference(SmallCnn)[1]),
    "torch": lambda: (adapters.build("torch", TORCH), models.state_bytes(models.small_net())),
    "torch_export": lambda: _built(
        "torch_export", {"trusted": True, "feature_layers": ["relu"]}, models.exported_bytes(models.small_net())
    ),
    "torchscript": lambda: _built("torchscript", {"trusted": True}, models.torchscript_bytes(models.small_net())),
}
