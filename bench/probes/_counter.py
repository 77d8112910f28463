"""Counts multiply-accumulates from the shapes of the operations that one pass really runs.

Each convolution and matrix product is seen as torch dispatches it, so masks, branches and functional calls count as
executed; hooks on the modules say whose operation it is. An operation that multiplies and is not in the tables below
is named, never passed over.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from bench.probes._operations import Form, Operation

# operation -> position of its left operand: every element of the result sums over that operand's last dimension
PRODUCTS = {"mm": 0, "bmm": 0, "mv": 0, "dot": 0, "matmul": 0, "linear": 0, "addmm": 1, "baddbmm": 1, "addmv": 1}
RECURRENT = {"mkldnn_rnn_layer"}  # one direction of one layer of an LSTM: two matrix products per step
CONVOLUTIONS = {"convolution", "conv1d", "conv2d", "conv3d"}
TRANSPOSED = {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}

# words in the name of an operation that multiplies: not in the tables above means unknown
MULTIPLIES = {
    *("mm", "addmm", "bmm", "baddbmm", "addbmm", "matmul", "mv", "addmv", "dot", "vdot", "vecdot", "addr", "ger"),
    *("linear", "trilinear", "convolution", "conv1d", "conv2d", "conv3d", "conv", "attention", "encoder", "einsum"),
    *("rnn", "lstm", "gru", "cdist", "fft"),
}

# layers with parameters that do no more than scale, shift or look up: 0 MACs by convention
POINTWISE = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.PReLU,
    nn.Embedding,
)


@dataclass
class Count:
    """What one pass did. `unknown` names what was not counted, and where it ran."""

    operations: list[Operation] = field(default_factory=list)
    normalised: int = 0  # elements that a BatchNorm scaled and shifted
    unknown: set[str] = field(default_factory=set)

    @property
    def macs(self) -> int:
        return sum(one.macs for one in self.operations)

    @property
    def binary_macs(self) -> int:
        """Of 1-bit weights with 1-bit activations; a part of `macs`."""
        return sum(one.macs for one in self.operations if one.binary)

    @property
    def effective_macs(self) -> int:
        return sum(one.effective_macs for one in self.operations)

    @property
    def bias_adds(self) -> int:
        return sum(one.bias_adds for one in self.operations)

    @property
    def bit_operations(self) -> int:
        """Sum of MACs x bits of a weight x bits of an activation."""
        return sum(one.macs * prod(one.bits) for one in self.operations)


def count(run: Callable[[Tensor], object], module: nn.Module, x: Tensor) -> Count:
    """What `run(x)` costs; `module` is what it runs, and tells which layer an operation belongs to.

    A layer that computes on fewer bits than its float tensors have says so in an attribute
    `operand_bits = (bits of a weight, bits of an activation)`; one that multiplies each element by a weight, and so has
    no product to count, has an attribute `pointwise`.
    """
    counter = _Counter(module)
    with ExitStack() as stack, torch.no_grad():
        for name, layer in module.named_modules():
            if isinstance(layer, torch.jit.ScriptModule):
                continue  # takes no hooks; its operations are seen all the same
            enter = layer.register_forward_pre_hook(counter.entering(name or "the model", layer))
            leave = layer.register_forward_hook(counter.leaving, always_call=True)
            stack.callback(enter.remove)
            stack.callback(leave.remove)
        stack.enter_context(counter)
        run(x)
    return counter.count


@dataclass
class _Visit:
    """One call of one layer."""

    name: str
    layer: nn.Module
    products: int = 0


class _Counter(TorchDispatchMode):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.count = Count()
        self.visits: list[_Visit] = []
        self.learnt = {tensor.data_ptr() for tensor in module.parameters() if tensor.layout == torch.strided}

    def entering(self, name: str, layer: nn.Module) -> Callable[..., None]:
        return lambda *_: self.visits.append(_Visit(name, layer))

    def leaving(self, layer: nn.Module, *_: object) -> None:
        visit = self.visits.pop()
        own = any(True for _ in layer.parameters(recurse=False))
        leaf = not any(True for _ in layer.children())
        if own and leaf and not visit.products and not isinstance(layer, POINTWISE) and not hasattr(layer, "pointwise"):
            self.count.unknown.add(f"{type(layer).__name__} ({visit.name})")

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = operation(*args, **(kwargs or {}))
        name = operation.overloadpacket.__name__
        multiplies = operation.namespace not in ("aten", "prims", "prim") or MULTIPLIES & set(name.split("_"))
        if multiplies:
            self._multiplied(f"{operation.namespace}::{name}", name, args, result)
        elif "batch_norm" in name:
            self.count.normalised += (result[0] if isinstance(result, tuple) else result).numel()
        return result

    def _multiplied(self, full_name: str, name: str, args: tuple[Any, ...], result: Any) -> None:
        visit = self.visits[-1] if self.visits else _Visit("outside the model's module", nn.Module())
        visit.products += 1
        known = name in PRODUCTS or name in CONVOLUTIONS or name in TRANSPOSED or name in RECURRENT
        tensors = [value for value in args if isinstance(value, Tensor)]
        if not known or not full_name.startswith("aten::"):
            self.count.unknown.add(f"{full_name} ({visit.name})")
        elif any(tensor.layout != torch.strided for tensor in tensors):
            self.count.unknown.add(f"{full_name} of sparse tensors ({visit.name})")
        else:
            self.count.operations.append(
                _recurrent(args, visit) if name in RECURRENT else self._operation(name, args, result, visit)
            )

    def _operation(self, name: str, args: tuple[Any, ...], result: Tensor, visit: _Visit) -> Operation:
        place = PRODUCTS.get(name, 0)
        inputs, weight = args[place], args[place + 1]
        form = _form(name, inputs, weight)
        if form is Form.LINEAR and inputs.data_ptr() in self.learnt:  # W @ x instead of x @ W
            inputs, weight = weight, inputs
        macs = _macs(name, args, result)
        elements = weight.numel() if form is not Form.PRODUCT else 0
        nonzero = int(torch.count_nonzero(weight)) if elements else 0
        active = int(torch.count_nonzero(inputs)) / inputs.numel() if inputs.numel() else 0.0
        given = getattr(visit.layer, "operand_bits", None)
        return Operation(
            layer=visit.name,
            form=form,
            macs=macs,
            effective_macs=macs if not elements else macs * nonzero // elements,  # each weight is used equally often
            outputs=result.numel(),
            biased=_biased(name, args),
            bits=(given[0], given[1]) if given else (8 * weight.element_size(), 8 * inputs.element_size()),
            weights=elements,
            nonzero=nonzero,
            active=active,
        )


def _recurrent(args: tuple[Any, ...], visit: _Visit) -> Operation:
    """args: inputs (steps, batch, numbers), the weights of the inputs, those of the state, ..."""
    inputs, weights = args[0], torch.cat([args[1].flatten(), args[2].flatten()])
    steps, nonzero = inputs.shape[0] * inputs.shape[1], int(torch.count_nonzero(weights))
    return Operation(
        layer=visit.name,
        form=Form.LINEAR,
        macs=steps * weights.numel(),
        effective_macs=steps * nonzero,
        outputs=steps * args[1].shape[0],
        biased=True,
        bits=(8 * weights.element_size(), 8 * inputs.element_size()),
        weights=weights.numel(),
        nonzero=nonzero,
        active=int(torch.count_nonzero(inputs)) / inputs.numel() if inputs.numel() else 0.0,
    )


def _form(name: str, left: Tensor, right: Tensor) -> Form:
    """A product of two matrices is a linear layer's; one of two stacks of matrices multiplies activations."""
    if name not in PRODUCTS:
        return Form.CONVOLUTION
    return Form.LINEAR if (left.ndim <= 2 and right.ndim <= 2) or name == "linear" else Form.PRODUCT


def _biased(name: str, args: tuple[Any, ...]) -> bool:
    if name in ("addmm", "addmv", "baddbmm"):
        return True
    return name not in ("mm", "mv", "bmm", "dot", "matmul") and len(args) > 2 and args[2] is not None


def _macs(name: str, args: tuple[Any, ...], result: Tensor) -> int:
    """A convolution does, per element of its result (transposed: of its input), one MAC per weight of that element."""
    if name in PRODUCTS:
        return result.numel() * int(args[PRODUCTS[name]].shape[-1])
    inputs, weight = args[0], args[1]
    transposed = name in TRANSPOSED or (name == "convolution" and args[6])
    return int((inputs if transposed else result).numel() * prod(weight.shape[1:]))
