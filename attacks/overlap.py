"""Gradient overlap: how many paths of a net lead from a pixel to its outputs, whatever its weights."""

import copy

import torch
from torch import Tensor, fx, nn

from bench.contracts import Classifier
from bench.errors import PluginError

WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
PROGRAMS = (torch.jit.ScriptModule, fx.GraphModule, torch.export.UnflattenedModule)


def gradient_overlap(model: Classifier, x: Tensor) -> Tensor:
    """(1, *input_shape): the gradient of the sum of the logits where all weights are 1 and everything is linear.

    x: (1, *input_shape), for its shape. Every layer is a sum of its inputs: normalisation and activation are left out,
    a maximum becomes a mean. Scaled to a largest value of 1. Raises PluginError for a model without a torch module, for
    a program (TorchScript, torch.export), and where nothing leads to any pixel.
    """
    if model.module is None or any(isinstance(part, PROGRAMS) for part in model.module.modules()):
        had = "has none" if model.module is None else "is a program, which has no layers to look into"
        raise PluginError(f"the gradient overlap reads a torch module, and this model {had}", "take `where: gradient`")
    net = copy.deepcopy(model.module)
    unchanging = _unchanging(net, x)
    for parent in list(net.modules()):
        for name, layer in parent.named_children():
            if layer in unchanging:
                setattr(parent, name, nn.Identity())
            elif isinstance(layer, nn.MaxPool2d):
                mean = nn.AvgPool2d(layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode)
                setattr(parent, name, mean)
            elif isinstance(layer, WEIGHTED):
                layer.weight.data.fill_(1.0)
                if layer.bias is not None:
                    layer.bias.data.zero_()
    leaf = torch.ones_like(x).requires_grad_()
    (overlap,) = torch.autograd.grad(net(leaf).sum(), leaf, allow_unused=True)
    if overlap is None or not bool(overlap.isfinite().all()) or not bool(overlap.any()):
        raise PluginError("no path leads from an input of this net to its outputs", "take `where: gradient`")
    return overlap.abs() / overlap.abs().max()


def _unchanging(net: nn.Module, x: Tensor) -> set[nn.Module]:
    """Layers that map each value by itself: normalisations, activations, dropout. They keep the shape."""
    found: set[nn.Module] = set()

    def look(layer: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        if len(inputs) == 1 and inputs[0].shape == out.shape and all(part.ndim < 2 for part in layer.parameters()):
            found.add(layer)

    leaves = [layer for layer in net.modules() if not list(layer.children()) and not isinstance(layer, nn.MaxPool2d)]
    hooks = [layer.register_forward_hook(look) for layer in leaves]
    with torch.no_grad():
        net(x)
    for hook in hooks:
        hook.remove()
    return found
