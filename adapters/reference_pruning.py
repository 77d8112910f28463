"""Removing channels of the small CNN for good: which ones, and the smaller net that is left."""

import torch
import torch.nn.functional as F  # noqa: N812  the name that every torch program uses
from torch import Tensor, nn

from adapters.reference_nets import POOLED, small_cnn

LAYERS = ("1", "2")  # suffixes of the layers whose channels are ranked: conv1-norm1-relu1, conv2-norm2-relu2


def l1_norm(net: nn.Sequential) -> list[Tensor]:
    """Importance of every channel, one (channels,) per layer: the sum of its absolute weights (Li et al. 2017)."""
    return [net.get_submodule(f"conv{layer}").get_parameter("weight").abs().sum((1, 2, 3)) for layer in LAYERS]


def taylor(net: nn.Sequential, x: Tensor, y: Tensor) -> list[Tensor]:
    """Importance of every channel: |mean over pixels of activation x gradient of the loss|, mean over samples.

    Molchanov et al. 2017, equation 8, on what ReLU gives out. x: (n, 1, 8, 8), y: (n,). The net is in eval mode.
    """
    activations: list[Tensor] = []
    hooks = [
        net.get_submodule(f"relu{layer}").register_forward_hook(lambda _layer, _inputs, out: activations.append(out))
        for layer in LAYERS
    ]
    try:
        loss = F.cross_entropy(net(x), y, reduction="sum")
    finally:
        for hook in hooks:
            hook.remove()
    gradients = torch.autograd.grad(loss, activations)
    return [
        (activation * gradient).mean((2, 3)).abs().mean(0).detach()
        for activation, gradient in zip(activations, gradients, strict=True)
    ]


def strongest(importance: Tensor, keep: int) -> Tensor:
    """Indices (keep,) int64, ascending, of the channels to keep; of equals, the earlier one."""
    return importance.sort(descending=True, stable=True).indices[:keep].sort().values


def remove_channels(net: nn.Sequential, first: Tensor, second: Tensor) -> nn.Sequential:
    """A new, smaller net of the channels `first` of conv1 and `second` of conv2; all other maps are gone.

    It computes what `net` computes with the maps of the removed channels set to zero.
    """
    state = net.state_dict()
    pixels = torch.arange(POOLED)
    columns = (second[:, None] * POOLED + pixels).flatten()  # of the linear layer: a channel is POOLED of them
    state["conv1.weight"] = state["conv1.weight"][first]
    state["conv2.weight"] = state["conv2.weight"][second][:, first]
    state["linear.weight"] = state["linear.weight"][:, columns]
    for layer, kept in zip(LAYERS, (first, second), strict=True):
        for name in ("weight", "bias", "running_mean", "running_var"):
            state[f"norm{layer}.{name}"] = state[f"norm{layer}.{name}"][kept]
    smaller = small_cnn(len(first), len(second))
    smaller.load_state_dict(state)
    return smaller.eval()
