"""Small models in every file format that the adapters read, made on the spot."""

import io
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import onnx
import skops.io
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from adapters.torch_classifier import state_to_bytes

SHAPE = (1, 8, 8)
FIELDS = {"input_shape": SHAPE, "classes": 3, "mean": [0.4], "std": [0.3]}


class SmallNet(nn.Module):
    """Every layer whose mode matters: BatchNorm, dropout, an in-place ReLU."""

    def __init__(self, width: int = 4, classes: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(width * 36, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.relu(self.norm(self.conv(x)))).flatten(1))


class Noisy(nn.Module):
    """Draws anew in every pass."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3] + 0.1 * torch.randn(len(x), 3)


def small_net(seed: int = 0) -> SmallNet:
    """In eval mode, with BatchNorm statistics that are not 0 and 1."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = SmallNet()
        net.norm.running_mean.uniform_(-0.2, 0.2)
        net.norm.running_var.uniform_(0.5, 2.0)
    return net.eval()


def images(n: int, shape: Sequence[int] = SHAPE, seed: int = 0) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


def torchscript_bytes(net: nn.Module) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the format is deprecated, the files exist
        torch.jit.save(torch.jit.script(net), file)
    return file.getvalue()


def exported_bytes(net: nn.Module, dynamic: bool = True) -> bytes:
    shapes = ({0: torch.export.Dim("n")},) if dynamic else None
    file = io.BytesIO()
    torch.export.save(torch.export.export(net, (images(5),), dynamic_shapes=shapes), file)
    return file.getvalue()


def onnx_bytes(
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, np.ndarray] | None = None,
    shape: Sequence[int | str] = ("n", *SHAPE),
    outputs: Sequence[str] = ("out",),
    opset: int = 17,
) -> bytes:
    """A graph from `x` to `outputs` with these nodes and initializers."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    return model.SerializeToString()


def onnx_of(net: SmallNet) -> bytes:
    """The net as an ONNX graph, written down by hand, flattened as torch's exporters used to: Shape, Gather, Concat."""
    node = helper.make_node
    return onnx_bytes(
        [
            node("Conv", ["x", "conv.weight", "conv.bias"], ["convolved"], kernel_shape=[3, 3]),
            node(
                "BatchNormalization",
                ["convolved", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"],
                ["normed"],
            ),
            node("Relu", ["normed"], ["activated"]),
            node("Shape", ["activated"], ["sizes"]),
            node("Gather", ["sizes", "zero"], ["rows"], axis=0),
            node("Unsqueeze", ["rows", "axes"], ["rows1"]),
            node("Concat", ["rows1", "rest"], ["wanted"], axis=0),
            node("Reshape", ["activated", "wanted"], ["flat"]),
            node("Gemm", ["flat", "head.weight", "head.bias"], ["out"], transB=1),
        ],
        {name: value.numpy() for name, value in net.state_dict().items() if value.is_floating_point()}
        | {"zero": np.array(0), "axes": np.array([0]), "rest": np.array([-1])},
    )


def sklearn_estimator(classes: int = 3) -> LogisticRegression:
    labels = np.arange(60) % classes
    inputs = np.random.default_rng(0).normal(size=(60, 64)) + labels[:, None]
    return LogisticRegression(max_iter=200).fit(inputs, labels)


def skops_bytes(estimator: object) -> bytes:
    return skops.io.dumps(estimator)


def state_bytes(net: nn.Module) -> bytes:
    return state_to_bytes(net.state_dict())


def calls(module: nn.Module, kind: type[nn.Module], run: Callable[[], object]) -> list[str]:
    """Names of the layers of a kind that `run` calls, in order, each as often as it is called."""
    called: list[str] = []
    hooks = [
        layer.register_forward_hook(lambda *_, name=name: called.append(name))
        for name, layer in module.named_modules()
        if isinstance(layer, kind)
    ]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return called
