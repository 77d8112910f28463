"""ONNX graphs as torch modules, for their gradients: a table of operators, and what runs it.

Semantics: https://onnx.ai/onnx/operators/. What is not in the table, or is used in a way that is not handled, raises
Unconvertible with the reason; nothing is guessed. The caller compares the result with onnxruntime before using it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

if TYPE_CHECKING:
    import onnx  # a tenth of a second that only who has an ONNX model pays

Attributes = Mapping[str, Any]
Operator = Callable[[list[Any], dict[str, Any]], Tensor]


class UnconvertibleError(Exception):
    """Why a graph has no torch counterpart here. Never reaches a user: its text becomes `gradients_reason`."""


class Converted(nn.Module):
    """The graph from its one input (n, ...) to one of its outputs. Constants are buffers, weights are parameters."""

    def __init__(self, graph: onnx.GraphProto, opset: int, output: str) -> None:
        from onnx import helper, numpy_helper

        super().__init__()
        self._input = input_name(graph)
        self._output = output
        self._values: dict[str, str] = {}  # name in the graph -> name of the buffer or parameter
        statistics = {name for node in graph.node if node.op_type == "BatchNormalization" for name in node.input[3:]}
        for tensor in graph.initializer:
            self._keep(tensor.name, numpy_helper.to_array(tensor), weight=tensor.name not in statistics)
        self._steps: list[tuple[Operator, list[str], str, dict[str, Any], str]] = []
        for node in graph.node:
            attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
            if node.op_type == "Constant":
                self._keep(node.output[0], _constant(attributes), weight=False)
                continue
            if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
                raise UnconvertibleError(
                    f"operator '{node.op_type}' ({node.name or node.output[0]}) is not in the table"
                )
            if any(node.output[1:]):
                raise UnconvertibleError(f"operator '{node.op_type}' ({node.name}) has more than one output")
            place = f"{node.op_type} ({node.name or node.output[0]})"
            self._steps.append((OPERATORS[node.op_type], list(node.input), node.output[0], attributes, place))
            attributes["opset"] = opset

    def _keep(self, name: str, array: np.ndarray[Any, Any], weight: bool) -> None:
        value = torch.from_numpy(np.array(array))
        key = f"value_{len(self._values)}"
        self._values[name] = key
        if weight and value.is_floating_point():
            self.register_parameter(key, nn.Parameter(value, requires_grad=False))
        else:
            self.register_buffer(key, value)

    def forward(self, x: Tensor) -> Tensor:
        """Raises UnconvertibleError, with the place, where an operator is used in a way that is not handled."""
        known: dict[str, Tensor | None] = {name: getattr(self, key) for name, key in self._values.items()}
        known[""] = None  # an optional input that is left out
        known[self._input] = x
        for operator, inputs, output, attributes, place in self._steps:
            try:
                known[output] = operator([known[name] for name in inputs], attributes)
            except (UnconvertibleError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as problem:
                raise UnconvertibleError(f"{place}: {problem}") from problem
        result = known[self._output]
        assert result is not None
        return result


def convert(model: onnx.ModelProto, output: str) -> Converted:
    """The graph as a torch module. Raises UnconvertibleError with the reason."""
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < 7:
        raise UnconvertibleError(f"operator set {opset} is older than 7")
    return Converted(model.graph, opset, output)


def input_name(graph: onnx.GraphProto) -> str:
    """Name of the one input that is not a weight. Raises UnconvertibleError where there are more, or none."""
    weights = {tensor.name for tensor in graph.initializer}
    names = [value.name for value in graph.input if value.name not in weights]
    if len(names) != 1:
        raise UnconvertibleError(f"the graph has {len(names)} inputs ({', '.join(names) or 'none'}), not one")
    return str(names[0])


# --- the operators ----------------------------------------------------------------------------------------------------


def _constant(attributes: Attributes) -> np.ndarray[Any, Any]:
    from onnx import numpy_helper

    if "value" in attributes:
        return numpy_helper.to_array(attributes["value"])
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    for name, dtype in kinds.items():
        if name in attributes:
            return np.asarray(attributes[name], dtype=dtype)
    raise UnconvertibleError(f"a Constant with {', '.join(attributes)} is not handled")


def _ints(value: Tensor) -> list[int]:
    return [int(item) for item in value.reshape(-1).tolist()]


def _axes(inputs: list[Any], at: Attributes) -> list[int] | None:
    """`axes` as an input (newer operator sets) or as an attribute."""
    if len(inputs) > 1 and inputs[1] is not None:
        return _ints(inputs[1])
    return list(at["axes"]) if "axes" in at else None


def _spread(x: Tensor, at: Attributes, value: float) -> Tensor:
    """x padded as the attributes of a convolution or a pooling say."""
    dims = x.ndim - 2
    mode = at.get("auto_pad", b"NOTSET")
    if mode == b"NOTSET":
        pads = list(at.get("pads", [0] * 2 * dims))
    elif mode == b"VALID":
        pads = [0] * 2 * dims
    else:
        raise UnconvertibleError(f"auto_pad {mode.decode()} is not handled")
    return _pad(x, pads, value) if any(pads) else x


def _pad(x: Tensor, pads: Sequence[int], value: float, mode: str = "constant") -> Tensor:
    """pads: all the begins, then all the ends, of the last dimensions; torch wants pairs, from the last one on."""
    half = len(pads) // 2
    pairs = [side for axis in reversed(range(half)) for side in (pads[axis], pads[half + axis])]
    return F.pad(x, pairs, mode, value) if mode == "constant" else F.pad(x, pairs, mode)


def _conv(v: list[Any], at: Attributes) -> Tensor:
    x, weight, bias = (*v, None)[:3]
    dims = x.ndim - 2
    if dims not in (1, 2, 3):
        raise UnconvertibleError(f"a convolution over {dims} dimensions is not handled")
    run = (F.conv1d, F.conv2d, F.conv3d)[dims - 1]
    strides, dilations = list(at.get("strides", [1] * dims)), list(at.get("dilations", [1] * dims))
    return run(_spread(x, at, 0.0), weight, bias, strides, 0, dilations, at.get("group", 1))


def _gemm(v: list[Any], at: Attributes) -> Tensor:
    a, b, c = (*v, None)[:3]
    a, b = (a.T if at.get("transA") else a), (b.T if at.get("transB") else b)
    out: Tensor = at.get("alpha", 1.0) * (a @ b)
    return out if c is None else out + at.get("beta", 1.0) * c


def _max_pool(v: list[Any], at: Attributes) -> Tensor:
    x, kernel = v[0], list(at["kernel_shape"])
    _only(at, ceil_mode=0, storage_order=0)
    run = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(kernel) - 1]
    strides, dilations = list(at.get("strides", [1] * len(kernel))), list(at.get("dilations", [1] * len(kernel)))
    return run(_spread(x, at, -torch.inf), kernel, strides, 0, dilations)


def _average_pool(v: list[Any], at: Attributes) -> Tensor:
    x, kernel = v[0], list(at["kernel_shape"])
    _only(at, ceil_mode=0, dilations=[1] * len(kernel))
    run = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(kernel) - 1]
    strides = list(at.get("strides", [1] * len(kernel)))
    sums = run(_spread(x, at, 0.0), kernel, strides)
    if at.get("count_include_pad", 0) or not any(at.get("pads", [0])):
        return sums
    return sums / run(_spread(torch.ones_like(x), at, 0.0), kernel, strides)


def _batch_norm(v: list[Any], at: Attributes) -> Tensor:
    _only(at, training_mode=0)
    x, scale, bias, mean, variance = v
    return F.batch_norm(x, mean, variance, scale, bias, eps=at.get("epsilon", 1e-5))


def _flatten(v: list[Any], at: Attributes) -> Tensor:
    x: Tensor = v[0]
    axis = at.get("axis", 1)
    axis += x.ndim if axis < 0 else 0
    rows = int(np.prod(x.shape[:axis]))
    return x.reshape(rows, int(np.prod(x.shape[axis:])))


def _reshape(v: list[Any], at: Attributes) -> Tensor:
    _only(at, allowzero=0)
    x: Tensor = v[0]
    wanted = _ints(v[1])
    return x.reshape([x.shape[axis] if size == 0 else size for axis, size in enumerate(wanted)])


def _pad_node(v: list[Any], at: Attributes) -> Tensor:
    pads = _ints(v[1]) if len(v) > 1 else list(at["pads"])
    if len(v) > 3 and v[3] is not None:
        raise UnconvertibleError("Pad with `axes` is not handled")
    value = v[2].item() if len(v) > 2 and v[2] is not None else at.get("value", 0.0)
    mode = at.get("mode", b"constant").decode()
    if mode == "constant":
        return _pad(v[0], pads, value)
    skip, half = 2, len(pads) // 2  # torch mirrors the spatial dimensions only
    if mode not in ("reflect", "edge") or any(pads[:skip] + pads[half : half + skip]):
        raise UnconvertibleError(f"Pad with mode {mode} is not handled here")
    return _pad(v[0], pads[skip:half] + pads[half + skip :], 0.0, "replicate" if mode == "edge" else mode)


def _softmax(v: list[Any], at: Attributes) -> Tensor:
    x = v[0]
    if at["opset"] >= 13:
        return torch.softmax(x, at.get("axis", -1))
    flat = _flatten([x], {"axis": at.get("axis", 1)})  # before operator set 13: over all dimensions from `axis` on
    return torch.softmax(flat, 1).reshape(x.shape)


def _squeeze(v: list[Any], at: Attributes) -> Tensor:
    axes = _axes(v, at)
    if axes is None:
        raise UnconvertibleError("Squeeze without axes would drop a batch of one")
    return torch.squeeze(v[0], axes)


def _unsqueeze(v: list[Any], at: Attributes) -> Tensor:
    x: Tensor = v[0]
    axes = _axes(v, at) or []
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _reduce_mean(v: list[Any], at: Attributes) -> Tensor:
    x: Tensor = v[0]
    axes = _axes(v, at)
    if axes is None:
        axes = [] if at.get("noop_with_empty_axes") else list(range(x.ndim))
    return x.mean(axes, keepdim=bool(at.get("keepdims", 1))) if axes else x


def _gather(v: list[Any], at: Attributes) -> Tensor:
    x: Tensor = v[0]
    indices, axis = v[1], at.get("axis", 0) % x.ndim
    flat = torch.remainder(indices.reshape(-1), x.shape[axis])
    return x.index_select(axis, flat).reshape([*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]])


def _clip(v: list[Any], at: Attributes) -> Tensor:
    low = v[1] if len(v) > 1 else at.get("min")
    high = v[2] if len(v) > 2 else at.get("max")
    x: Tensor = v[0]
    return x if low is None and high is None else torch.clamp(x, low, high)


def _shape(v: list[Any], at: Attributes) -> Tensor:
    return torch.tensor(v[0].shape[at.get("start", 0) : at.get("end")], dtype=torch.int64)


def _divide(v: list[Any], at: Attributes) -> Tensor:
    return torch.div(v[0], v[1], rounding_mode=None if v[0].is_floating_point() else "trunc")


def _dropout(v: list[Any], at: Attributes) -> Tensor:
    if len(v) > 2 and v[2] is not None and bool(v[2]):
        raise UnconvertibleError("Dropout in training mode")
    x: Tensor = v[0]
    return x


def _only(at: Attributes, **handled: Any) -> None:
    for name, value in handled.items():
        if at.get(name, value) != value:
            raise UnconvertibleError(f"{name}={at[name]} is not handled")


OPERATORS: Mapping[str, Operator] = {
    "Add": lambda v, at: v[0] + v[1],
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Concat": lambda v, at: torch.cat(v, at["axis"]),
    "Conv": _conv,
    "Div": _divide,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda v, at: v[0].mean(list(range(2, v[0].ndim)), keepdim=True),
    "Identity": lambda v, at: v[0],
    "LeakyRelu": lambda v, at: F.leaky_relu(v[0], at.get("alpha", 0.01)),
    "MatMul": lambda v, at: v[0] @ v[1],
    "MaxPool": _max_pool,
    "Mul": lambda v, at: v[0] * v[1],
    "Pad": _pad_node,
    "ReduceMean": _reduce_mean,
    "Relu": lambda v, at: F.relu(v[0]),
    "Reshape": _reshape,
    "Shape": _shape,
    "Sigmoid": lambda v, at: torch.sigmoid(v[0]),
    "Softmax": _softmax,
    "Squeeze": _squeeze,
    "Sub": lambda v, at: v[0] - v[1],
    "Tanh": lambda v, at: torch.tanh(v[0]),
    "Transpose": lambda v, at: v[0].permute(*at.get("perm", reversed(range(v[0].ndim)))),
    "Unsqueeze": _unsqueeze,
}
