"""A torch module as a list of steps that bounds can be pushed through: forwards intervals, backwards planes."""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  the name that every torch program uses
from torch import Tensor, fx, nn
from torch.nn.grad import conv2d_input

from bench.errors import PluginError

Map = Callable[[Tensor], Tensor]


class Unsupported(PluginError):
    """The bounds do not know a layer of this model."""


@dataclass(frozen=True)
class Affine:
    """x -> W x + b on batches. `spread` is |W| r for r >= 0; `pull` takes (s, *out) to (s, *in): rows times W."""

    forward: Map
    spread: Map
    pull: Map


@dataclass(frozen=True)
class Relu:
    """max(x, 0)."""


@dataclass(frozen=True)
class MaxPool:
    """Maximum over windows of one size and stride, without padding."""

    kernel: tuple[int, int]
    stride: tuple[int, int]


@dataclass(frozen=True)
class Add:
    """The sum of two steps: what a residual connection does."""


Operation = Affine | Relu | MaxPool | Add


@dataclass(frozen=True)
class Step:
    """One operation on the results of earlier steps. Step 0 is the input, with no operation. shape: without batch."""

    operation: Operation | None
    inputs: tuple[int, ...]
    shape: tuple[int, ...]


def steps(module: nn.Module, x: Tensor) -> list[Step]:
    """The steps of a module, from one input x (1, ...). The last one gives the logits.

    Raises Unsupported with the layer's name where a layer is not known, or where the module cannot be traced, as where
    its path depends on values.
    """
    try:
        graph = fx.Tracer().trace(module)
    except Exception as problem:
        raise Unsupported(f"bounds: the model cannot be traced: {problem}", "attack it instead") from problem
    return _Reader(module, x).read(graph)


class _Reader:
    """Walks through a traced graph; keeps the value of each node for x, to know shapes and to fold constants."""

    def __init__(self, module: nn.Module, x: Tensor) -> None:
        self.module, self.x = module, x
        self.found: list[Step] = []
        self.place: dict[fx.Node, int] = {}
        self.value: dict[fx.Node, Any] = {}

    def read(self, graph: fx.Graph) -> list[Step]:
        runner = fx.Interpreter(self.module, graph=graph)
        for node in graph.nodes:
            if node.op == "output":
                last = node.args[0]
                if not isinstance(last, fx.Node) or self.place.get(last) != len(self.found) - 1:
                    raise Unsupported("bounds: the model does not return its last step", "attack it instead")
                return self.found
            if node.op == "placeholder":
                self.value[node] = self.x
                self._add(node, None)
                continue
            args = fx.node.map_arg(node.args, self.value.__getitem__)
            kwargs = fx.node.map_arg(node.kwargs, self.value.__getitem__)
            with torch.no_grad():
                self.value[node] = getattr(runner, node.op)(node.target, args, kwargs)
            if any(source in self.place for source in node.all_input_nodes) and not _of_shapes(node):
                self._step(node, args, kwargs)
        raise Unsupported("bounds: the model returns nothing", "attack it instead")

    def _step(self, node: fx.Node, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        sources = [source for source in node.all_input_nodes if source in self.place]
        if len(sources) == 2 and node.target in (operator.add, operator.iadd, torch.add) and len(args) == 2:
            if self.value[sources[0]].shape == self.value[sources[1]].shape:
                self._add(node, Add(), *sources)
                return
        elif len(sources) == 1 and args and node.args[0] is sources[0]:
            layer = self.module.get_submodule(str(node.target)) if node.op == "call_module" else node.target
            if not isinstance(self.value[node], Tensor):
                raise Unsupported(f"bounds: '{node.name}' makes no tensor of one", "attack the model instead")
            before, after = self.value[sources[0]].shape[1:], self.value[node].shape[1:]
            operation = _operation(layer, args, kwargs, tuple(before), tuple(after))
            if operation is not None:
                self._add(node, operation, *sources)
                return
        what = type(self.module.get_submodule(str(node.target))).__name__ if node.op == "call_module" else node.target
        raise Unsupported(f"bounds: no bound is known through '{node.name}' ({what})", "attack the model instead")

    def _add(self, node: fx.Node, operation: Operation | None, *sources: fx.Node) -> None:
        self.place[node] = len(self.found)
        inputs = tuple(self.place[source] for source in sources)
        self.found.append(Step(operation, inputs, tuple(self.value[node].shape[1:])))


def _of_shapes(node: fx.Node) -> bool:
    """Whether it asks a tensor for its shape, which no input changes: `x.size(0)`, `x.shape`."""
    if node.op == "call_method":
        return node.target in ("size", "dim", "numel")
    return node.target is getattr and node.args[1] in ("shape", "ndim")


def _operation(
    layer: Any, args: Sequence[Any], kwargs: Mapping[str, Any], before: tuple[int, ...], after: tuple[int, ...]
) -> Operation | None:
    """The operation of a layer or function with one input; None where it is not known. Types are compared exactly:
    a class derived from a convolution may do anything."""
    kind = type(layer)
    if kind is nn.Conv2d and layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
        return _convolution(layer, before)
    if kind is nn.Linear:
        weight, bias = layer.weight, layer.bias
        return Affine(
            lambda x: F.linear(x, weight, bias), lambda r: F.linear(r, weight.abs()), lambda rows: rows @ weight
        )
    if kind in (nn.BatchNorm1d, nn.BatchNorm2d) and layer.running_mean is not None:
        return _normalisation(layer, len(after))
    if kind is nn.ReLU or layer in (torch.relu, F.relu, "relu"):
        return Relu()
    if kind is nn.MaxPool2d and layer.padding in (0, (0, 0)) and layer.dilation in (1, (1, 1)) and not layer.ceil_mode:
        return MaxPool(_pair(layer.kernel_size), _pair(layer.stride))
    if kind in (nn.AvgPool2d, nn.AdaptiveAvgPool2d):
        return Affine(layer, layer, _transpose(layer, before))
    if kind in (nn.Flatten, nn.Dropout, nn.Dropout2d, nn.Identity) or layer in _RESHAPING:
        return _reshape(before, after) if _size(before) == _size(after) else None
    if layer in _ARITHMETIC and len(args) == 2 and not kwargs:
        return _arithmetic(layer, args[1])
    return None


_RESHAPING = (torch.flatten, torch.reshape, "flatten", "reshape", "view")
_ARITHMETIC = (operator.add, operator.sub, operator.mul, operator.truediv)


def _convolution(layer: nn.Conv2d, before: tuple[int, ...]) -> Affine:
    assert not isinstance(layer.padding, str)
    weight, stride, padding = layer.weight, layer.stride, layer.padding
    dilation, groups = layer.dilation, layer.groups
    return Affine(
        layer,
        lambda r: F.conv2d(r, weight.abs(), None, stride, padding, dilation, groups),
        lambda rows: conv2d_input((len(rows), *before), weight, rows, stride, padding, dilation, groups),
    )


def _normalisation(layer: nn.BatchNorm1d | nn.BatchNorm2d, dimensions: int) -> Affine:
    assert layer.running_mean is not None
    assert layer.running_var is not None
    scale = (layer.running_var + layer.eps).rsqrt() * (1.0 if layer.weight is None else layer.weight)
    offset = (0.0 if layer.bias is None else layer.bias) - layer.running_mean * scale
    across = (-1,) + (1,) * (dimensions - 1)
    factor, shift = scale.reshape(across), offset.reshape(across)
    return Affine(lambda x: x * factor + shift, lambda r: r * factor.abs(), lambda rows: rows * factor)


def _reshape(before: tuple[int, ...], after: tuple[int, ...]) -> Affine:
    forward: Map = lambda x: x.reshape(-1, *after)  # noqa: E731
    return Affine(forward, forward, lambda rows: rows.reshape(-1, *before))


def _arithmetic(operation: Any, constant: Any) -> Affine:
    """x + c, x - c, x * c and x / c for a constant that needs no more room than x."""
    scale = constant if operation is operator.mul else 1 / constant if operation is operator.truediv else 1.0
    factor = torch.as_tensor(scale)
    return Affine(lambda x: operation(x, constant), lambda r: r * factor.abs(), lambda rows: rows * factor)


def _transpose(layer: Map, before: tuple[int, ...]) -> Map:
    def pull(rows: Tensor) -> Tensor:
        with torch.enable_grad():
            x = torch.zeros((len(rows), *before), dtype=rows.dtype, device=rows.device, requires_grad=True)
            return torch.autograd.grad(layer(x), x, rows)[0]

    return pull


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _size(shape: Sequence[int]) -> int:
    return int(torch.Size(shape).numel())
