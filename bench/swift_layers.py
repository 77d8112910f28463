"""Convolutions whose backward pass, to the input alone, is a convolution with weights that are laid out beforehand.

Torch turns a gradient back to one or three colours with a kernel made for sixteen channels and more: the first layer
of most nets then costs as much as one with sixteen times the work. Here a square of pixels counts as channels.
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  the name that every torch program uses
from torch import Tensor, fx, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.fusion import fuse_conv_bn_eval

LANES = 16  # channels that a vector instruction takes at once (AVX-512, float32)
BLOCKS = (4, 2, 1)  # sides of the squares of pixels, the best first


class Convolution(nn.Module):
    """A frozen convolution of stride 1; the same numbers as `layer`, up to rounding. Channels-last."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        assert not isinstance(layer.padding, str)
        self.weight = nn.Parameter(layer.weight.detach().contiguous(memory_format=torch.channels_last), False)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach(), False)
        self.padding = (layer.padding[0], layer.padding[1])
        kernel = self.weight.shape[2:]
        self.back_padding = (kernel[0] - 1 - self.padding[0], kernel[1] - 1 - self.padding[1])
        blocks = [side for side in BLOCKS if side == 1 or layer.in_channels * side**2 <= LANES]
        self.back = {side: _backwards(self.weight, side) for side in blocks}

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad and torch.is_grad_enabled():
            found: Tensor = _Pass.apply(x, self)  # type: ignore[no-untyped-call]
            return found
        return F.conv2d(x, self.weight, self.bias, 1, self.padding)

    def pull(self, slope: Tensor, size: torch.Size) -> Tensor:
        """The gradient to the input, (n, in, *size), of one to the output, (n, out, ...)."""
        slope = slope.contiguous(memory_format=torch.channels_last)
        side = next(side for side in self.back if not (size[0] % side or size[1] % side))
        found = F.conv2d(slope, self.back[side], None, side, self.back_padding)
        return F.pixel_shuffle(found, side) if side > 1 else found


class _Pass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Convolution) -> Tensor:
        ctx.layer, ctx.size = layer, x.shape[2:]
        return F.conv2d(x, layer.weight, layer.bias, 1, layer.padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return ctx.layer.pull(slope, ctx.size), None


def _backwards(weight: Tensor, side: int) -> Tensor:
    """Weights (in * side², out, kh + side - 1, kw + side - 1) of the convolution, of stride `side`, that turns slopes
    of the outputs into slopes of squares of inputs. weight: (out, in, kh, kw)."""
    outward, inward, height, width = weight.shape
    turned = weight.transpose(0, 1).flip(2, 3)
    made = weight.new_zeros(inward, side, side, outward, height + side - 1, width + side - 1)
    for down in range(side):
        for right in range(side):
            made[:, down, right, :, down : down + height, right : right + width] = turned
    return made.flatten(0, 2).contiguous(memory_format=torch.channels_last)


def replaced(module: nn.Module) -> nn.Module:
    """The module, every convolution in it that `Convolution` can stand for replaced. Changes the module."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Conv2d and _fits(child):
                setattr(parent, name, Convolution(child))
    return module


def _fits(layer: nn.Conv2d) -> bool:
    plain = layer.stride == (1, 1) and layer.dilation == (1, 1) and layer.groups == 1 and layer.padding_mode == "zeros"
    if not plain or isinstance(layer.padding, str) or layer._forward_hooks or layer._forward_pre_hooks:
        return False
    return all(pad < kernel for pad, kernel in zip(layer.padding, layer.kernel_size, strict=True))


def simplified(module: nn.Module) -> nn.Module:
    """The module in eval mode with fewer passes over memory: BatchNorm folded into the convolution before it, and
    ReLU behind the pooling that follows it, where it has a quarter of the work. Shares what it does not change.

    Raises what torch.fx raises where the module cannot be traced.
    """
    traced = fx.symbolic_trace(module)
    for node in list(traced.graph.nodes):
        layer, before = _layer(traced, node), node.args[0] if node.args else None
        if not isinstance(before, fx.Node) or len(before.users) != 1:
            continue
        source = _layer(traced, before)
        if type(layer) is nn.BatchNorm2d and type(source) is nn.Conv2d and layer.track_running_stats:
            name = f"folded_{node.name}"
            traced.add_module(name, fuse_conv_bn_eval(source, layer))
            before.target = name
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
        elif type(layer) is nn.MaxPool2d and not layer.return_indices and _is_relu(source):
            node.replace_input_with(before, before.args[0])
            with traced.graph.inserting_after(node):
                late = traced.graph.call_function(torch.relu, (node,))
            node.replace_all_uses_with(late)
            late.replace_input_with(late, node)
            traced.graph.erase_node(before)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


def _layer(traced: fx.GraphModule, node: fx.Node) -> Any:
    """The module or function that a node calls."""
    return traced.get_submodule(str(node.target)) if node.op == "call_module" else node.target


def _is_relu(layer: Any) -> bool:
    return type(layer) is nn.ReLU or layer in (torch.relu, F.relu, "relu")
