"""An example of every registered adapter: its fields, and the bytes of its weights as the engine hands them over."""

import json
from collections.abc import Callable

import numpy as np
import torch

import bench.detectors.odin_pca  # noqa: F401 - registers the detector
from adapters.binarised import Binarised
from adapters.block_drop import BlockDropModel
from adapters.certified import Certified
from adapters.checkerboard import Checkerboard
from adapters.cnn import Cnn
from adapters.deployed import pack as pack_deployed
from adapters.doubly_nested import DoublyNestedModel
from adapters.ensemble import EnsembleAdapter, packed
from adapters.family import Family
from adapters.lstm import Lstm
from adapters.odin_cnn import OdinCnn
from adapters.reference import SmallCnn, SmallCnnBinarised, SmallCnnPruned
from adapters.reference_nets import binary_weights, pack
from adapters.refusing import Refusing
from adapters.torch_classifier import state_to_bytes
from bench.contracts import Adapter, Bounds, DatasetChoice, Report, Samples, adapters, datasets
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


def _ensemble() -> tuple[Adapter, bytes]:
    inside = OdinCnn(size=8, padding=1, classes=3)
    adapter = EnsembleAdapter(adapter="odin_cnn", args={"size": 8, "padding": 1, "classes": 3}, members=2)
    return adapter, packed([state_to_bytes(inside.net().state_dict()) for _ in range(2)])


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


def _untrained(cls: type[Family], **fields: object) -> tuple[Adapter, bytes]:
    """With random weights: what is checked holds before training as after it."""
    adapter = cls.model_validate({"data": {"dataset": "digits"}} | fields)
    torch.manual_seed(0)
    return adapter, state_to_bytes(adapter.net().state_dict())


def _checkerboard() -> tuple[Adapter, bytes]:
    adapter = Checkerboard(data=DatasetChoice(dataset="digits"), padding="fixed")
    before = {f"before.{name}": value for name, value in adapter.control().net().state_dict().items()}
    return adapter, state_to_bytes(adapter.net().state_dict() | before)


def _lstm() -> tuple[Adapter, bytes]:
    words = ("", "<unknown>", *"abcdefgh")
    ids = torch.randint(1, len(words), (12, 6), generator=torch.Generator().manual_seed(0))
    data = Samples(np.arange(12) % 3, lambda rows: ids[rows], (6,), Bounds(0, 9), ("a", "b", "c"), "random", {}, words)
    adapter = Lstm.model_validate({"hidden": 4, "train": {"epochs": 1, "batch_size": 4}})
    training = adapter.training()
    assert training is not None
    return adapter, training.train(data, None, 0, _Silent())


def _family(adapter: Family, parent: bytes | None = None) -> tuple[Adapter, bytes]:
    """Trained for a moment, on noise: BatchNorm has to know what it is given, else nothing passes a sign."""
    x = torch.rand((40, *adapter.shape), generator=torch.Generator().manual_seed(0))
    labels, names = np.arange(40) % 10, tuple("0123456789")
    data = Samples(labels, lambda rows: x[torch.from_numpy(rows)], adapter.shape, Bounds(0, 1), names, "random")
    training = adapter.training()
    assert training is not None
    return adapter, training.train(data, parent, 0, _Silent())


def _packed() -> tuple[Adapter, bytes]:
    _, weights = _family(Binarised(variant="C", width=8, **DIGITS))
    model = {"adapter": "binarised", "args": {"variant": "C", "width": 8, **DIGITS}}
    return adapters.build("packed", {"model": model}), weights


DIGITS = {"data": {"dataset": "digits"}, "train": {"epochs": 30, "batch_size": 20}}


def _cnn() -> tuple[Adapter, bytes]:
    return _family(Cnn(channels=(6, 10), hidden=(16,), **DIGITS))


def _derived(name: str, **fields: object) -> tuple[Adapter, bytes]:
    """Made from the example of `cnn`."""
    cnn, weights = _cnn()
    args = cnn.model_dump(mode="json", exclude={"weights"})
    adapter = adapters.build(name, {"model": {"adapter": "cnn", "args": args}, **fields})
    training = adapter.training()
    assert training is not None
    if isinstance(adapter, Family):
        return _family(adapter, weights if training.parent else None)
    return adapter, training.train(datasets.build("digits", {}).load(), weights, 0, _Silent())


EXAMPLES: dict[str, Callable[[], tuple[Adapter, bytes | None]]] = {
    "binarised": lambda: _family(Binarised(variant="C", width=8, **DIGITS)),
    "bpda": lambda: (adapters.build("bpda", {"model": {"adapter": "small_cnn"}}), _reference(SmallCnn)[1]),
    "bpda_torch": lambda: (
        adapters.build("bpda_torch", {"model": {"adapter": "small_cnn"}, "function": "torch:round"}),
        _reference(SmallCnn)[1],
    ),
    "certified": lambda: _family(Certified(**DIGITS)),
    "cnn": _cnn,
    "deployed": _deployed,
    "ensemble": _ensemble,
    "growl": lambda: _derived("growl", strength=0.01, spread=0.01),
    "block_drop": lambda: _untrained(BlockDropModel),
    "checkerboard": _checkerboard,
    "doubly_nested": lambda: _untrained(DoublyNestedModel, threshold=0.12),
    "lstm": _lstm,
    "mlflow": _mlflow,
    "monte_carlo_quantised": lambda: _derived("monte_carlo_quantised"),
    "odin_cnn": _odin_cnn,
    "pruned_channels": lambda: _derived("pruned_channels", images=20, updates=1),
    "pruned_weights": lambda: _derived("pruned_weights", rounds=1, images=40),
    "quantised": lambda: _derived("quantised", train=DIGITS["train"]),
    "onnx": lambda: _built("onnx", {"feature_layers": ["activated"]}, models.onnx_of(models.small_net())),
    "sklearn": lambda: _built("sklearn", {}, models.skops_bytes(models.sklearn_estimator())),
    "packed": _packed,
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


def _checkerboard_at_random() -> tuple[Adapter, bytes]:
    adapter, weights = _checkerboard()
    return adapter.model_copy(update={"padding": "random"}), weights


def _int8() -> tuple[Adapter, bytes]:
    cnn, weights = _cnn()
    model = {"adapter": "cnn", "args": cnn.model_dump(mode="json", exclude={"weights"})}
    adapter = adapters.build("deployed", {"model": model, "target": "onnx_int8", "calibration": DIGITS["data"]})
    training = adapter.training()
    assert training is not None
    return adapter, training.train(datasets.build("digits", {}).load(), weights, 0, _Silent())


# Other forms of the model families, which have other layers, gradients or promises than their example above.
VARIANTS: dict[str, Callable[[], tuple[Adapter, bytes]]] = {
    "binarised A": lambda: _family(Binarised(variant="A", width=8, **DIGITS)),
    "binarised B, factors per channel": lambda: _family(
        Binarised(variant="B", channel_scaling=True, width=8, **DIGITS)
    ),
    "binarised S": lambda: _family(Binarised(variant="S", width=8, **DIGITS)),
    "quantised to 4 bits, activations too": lambda: _derived(
        "quantised", bits=4, activation_bits=4, train=DIGITS["train"]
    ),
    "checkerboard, padded at random": _checkerboard_at_random,
    "block_drop without a policy": lambda: _untrained(BlockDropModel, policy=False),
    "doubly_nested, one network": lambda: _untrained(DoublyNestedModel, subnet=(2, 1)),
    "deployed as int8": _int8,
}
