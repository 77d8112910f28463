"""An example of every registered adapter: its fields, and the bytes of its weights as the engine hands them over."""

import json
from collections.abc import Callable

from adapters.odin_cnn import OdinCnn
from adapters.reference import SmallCnn, SmallCnnBinarised, SmallCnnPruned
from adapters.reference_nets import binary_weights, pack
from adapters.torch_classifier import state_to_bytes
from bench.contracts import Adapter, adapters
from tests.adapters import models

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


def _odin_cnn() -> tuple[Adapter, bytes]:
    adapter = OdinCnn()
    return adapter, state_to_bytes(adapter.net().state_dict())


def _built(name: str, fields: dict[str, object], weights: bytes) -> tuple[Adapter, bytes]:
    return adapters.build(name, models.FIELDS | fields), weights


EXAMPLES: dict[str, Callable[[], tuple[Adapter, bytes | None]]] = {
    "mlflow": _mlflow,
    "odin_cnn": _odin_cnn,
    "onnx": lambda: _built("onnx", {"feature_layers": ["activated"]}, models.onnx_of(models.small_net())),
    "sklearn": lambda: _built("sklearn", {}, models.skops_bytes(models.sklearn_estimator())),
    "small_cnn": lambda: _reference(SmallCnn),
    "small_cnn_binarised": lambda: _reference(SmallCnnBinarised),
    "small_cnn_pruned": lambda: _reference(SmallCnnPruned),
    "torch": lambda: (adapters.build("torch", TORCH), models.state_bytes(models.small_net())),
    "torch_export": lambda: _built(
        "torch_export", {"trusted": True, "feature_layers": ["relu"]}, models.exported_bytes(models.small_net())
    ),
    "torchscript": lambda: _built("torchscript", {"trusted": True}, models.torchscript_bytes(models.small_net())),
}
