"""How much each channel of a convolutional net matters, by nine criteria: what pruning ranks channels by.

Every channel has a gate, a factor of 1 on its feature map. Removing the channel is setting the gate to 0, so the change
of the loss C is C(g=0) - C(g=1), exactly (`oracle`), to the first order (`taylor`) or to the second (`obd`).

Source, where a function names no other: Molchanov et al. 2017, "Pruning Convolutional Neural Networks for Resource
Efficient Inference", section 2.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  the name that every torch program uses
from torch import Tensor, nn

from bench.errors import PluginError

BATCH = 256  # samples of one pass: memory grows with it, results do not depend on it but by rounding
BINS = 8  # of equal frequency, for the mutual information
FOLLOWING = (nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Tanh, nn.Sigmoid)  # what makes a map of a convolution


@dataclass(frozen=True)
class Maps:
    """The feature maps of one convolution: its name, and the name of the layer that gives out the maps."""

    convolution: str
    output: str


def feature_maps(net: nn.Module) -> list[Maps]:
    """Every convolution of a net of one path, with the normalisation and activation that follow it.

    Raises PluginError for a net that is not an nn.Sequential of plain layers, or without a convolution.
    """
    layers = list(net.named_children())
    if not isinstance(net, nn.Sequential) or any(list(layer.children()) for _, layer in layers):
        raise PluginError(
            f"channels are ranked in nets of one path, and {type(net).__name__} is no nn.Sequential of plain layers",
            "build the net as an nn.Sequential of convolutions, normalisations, activations, pooling and linear layers",
        )
    found: list[Maps] = []
    for position, (name, layer) in enumerate(layers):
        if isinstance(layer, nn.Conv2d):
            output = name
            for following, other in layers[position + 1 :]:
                if not isinstance(other, FOLLOWING):
                    break
                output = following
            found.append(Maps(name, output))
    if not found:
        raise PluginError("the net has no convolution, so no channels to rank")
    return found


def importance(
    criterion: str, net: nn.Module, x: Tensor, y: Tensor, random: torch.Generator | None = None
) -> list[Tensor]:
    """Importance of every channel, larger is more important: one (channels,) float64 per convolution, in their order.

    net: in eval mode, as `feature_maps` takes it. x: (n, *shape) float32, y: (n,) int64, n > 0. random: of the
    criterion `random` alone. Raises PluginError for a net that cannot be ranked; KeyError for an unknown criterion.
    """
    maps = feature_maps(net)
    if criterion == "random":
        return [torch.rand(_width(net, each), generator=random, dtype=torch.float64) for each in maps]
    return CRITERIA[criterion](net, maps, x, y)


def normalised(layers: Sequence[Tensor]) -> list[Tensor]:
    """Each layer's importance divided by its L2 norm (section 2.2, "Normalization"), so that layers can be compared."""
    return [layer / layer.norm().clamp(min=1e-30) for layer in layers]


def flops_per_map(net: nn.Module, example: Tensor) -> list[float]:
    """Millions of FLOPs of one map of each convolution, 2·H·W·(Cin·K² + 1) with its output's H and W (equation 11).

    example: (1, *shape).
    """
    found: list[float] = []

    def note(layer: nn.Module, _inputs: Any, out: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d)
        found.append(2e-6 * out.shape[2:].numel() * (layer.weight[0].numel() + 1))

    with _hooked(net, {each.convolution: note for each in feature_maps(net)}), torch.no_grad():
        net(example)
    return found


# --- the criteria -----------------------------------------------------------------------------------------------------

Criterion = Callable[[nn.Module, Sequence[Maps], Tensor, Tensor], list[Tensor]]


def oracle(net: nn.Module, maps: Sequence[Maps], x: Tensor, y: Tensor) -> list[Tensor]:
    """|C without the channel - C|, by really leaving each channel out in turn: what the criteria approximate."""
    whole = _loss(net, x, y)
    found = []
    for each in maps:
        changes = []
        for channel in range(_width(net, each)):
            gate = torch.ones(_width(net, each), 1, 1, device=x.device)
            gate[channel] = 0
            with _gated(net, {each.output: gate}):
                changes.append(abs(_loss(net, x, y) - whole))
        found.append(torch.tensor(changes, dtype=torch.float64))
    return found


def taylor(net: nn.Module, maps: Sequence[Maps], x: Tensor, y: Tensor) -> list[Tensor]:
    """|mean over pixels of activation × gradient of the loss|, mean over samples (equation 8)."""

    def of(out: Tensor, gates: list[Tensor], labels: Tensor, pixels: list[int]) -> list[Tensor]:
        slopes = torch.autograd.grad(F.cross_entropy(out, labels, reduction="sum"), gates)
        return [slope.abs() / size for slope, size in zip(slopes, pixels, strict=True)]

    return _over_gates(net, maps, x, y, of)


def obd(net: nn.Module, maps: Sequence[Maps], x: Tensor, y: Tensor) -> list[Tensor]:
    """Half the second derivative of the loss by the channel's gate: optimal brain damage (LeCun et al. 1990, eq. 4).

    With cross-entropy over p = softmax(z), and a net that is piecewise linear in any one gate (convolutions, BatchNorm
    in eval mode, ReLU, max pooling), it is ½ (Σ p_k J_k² - (Σ p_k J_k)²), J_k = dz_k/dg: no Hessian has to be made.
    """

    def of(out: Tensor, gates: list[Tensor], labels: Tensor, pixels: list[int]) -> list[Tensor]:
        p = out.detach().double().softmax(1)
        squares = [torch.zeros_like(gate[:, :, 0, 0], dtype=torch.float64) for gate in gates]
        means = [square.clone() for square in squares]
        for k in range(out.shape[1]):
            slopes = torch.autograd.grad(out[:, k].sum(), gates, retain_graph=k + 1 < out.shape[1])
            for layer, slope in enumerate(slopes):
                j = slope[:, :, 0, 0].double()
                squares[layer] += p[:, k, None] * j**2
                means[layer] += p[:, k, None] * j
        return [(square - mean**2) / 2 for square, mean in zip(squares, means, strict=True)]

    return _over_gates(net, maps, x, y, of)


def weight_norm(net: nn.Module, maps: Sequence[Maps], x: Tensor, y: Tensor) -> list[Tensor]:
    """Mean of the squared weights of the channel's filter."""
    return [_weight(net, each).detach().double().square().flatten(1).mean(1).cpu() for each in maps]


def mean_activation(net: nn.Module, maps: Sequence[Maps], x: Tensor, y: Tensor) -> list[Tensor]:
    """Mean of the map over samples and pixels."""
    return [part.mean(0) for part in _statistics(net, maps, x, lambda out: out.mean((2, 3)))]


def sd_activation(net: nn.Module, maps: Sequence[Maps], x: Tensor, y: Tensor) -> list[Tensor]:
    """Standard deviation of the map over samples and pixels."""
    first = _statistics(net, maps, x, lambda out: out.mean((2, 3)))
    second = _statistics(net, maps, x, lambda out: out.square().mean((2, 3)))
    pairs = zip(first, second, strict=True)
    return [(squares.mean(0) - means.mean(0) ** 2).clamp(min=0).sqrt() for means, squares in pairs]


def apoz(net: nn.Module, maps: Sequence[Maps], x: Tensor, y: Tensor) -> list[Tensor]:
    """Share of the map that is not zero: 1 - APoZ, the average percentage of zeros (Hu et al. 2016, equation 1)."""
    return [part.mean(0) for part in _statistics(net, maps, x, lambda out: (out != 0).double().mean((2, 3)))]


def mutual_information(net: nn.Module, maps: Sequence[Maps], x: Tensor, y: Tensor) -> list[Tensor]:
    """Mutual information, in nats, of the label and the map's mean over pixels, cut into 8 bins of equal frequency."""
    found = []
    for means in _statistics(net, maps, x, lambda out: out.mean((2, 3))):
        cuts = means.quantile(torch.linspace(0, 1, BINS + 1, dtype=torch.float64)[1:-1], dim=0)
        bins = (means[None] > cuts[:, None]).sum(0)  # (n, channels)
        found.append(torch.stack([_information(column, y.cpu()) for column in bins.T]))
    return found


CRITERIA: Mapping[str, Criterion] = {
    "taylor": taylor,
    "weight_norm": weight_norm,
    "mean_activation": mean_activation,
    "sd_activation": sd_activation,
    "apoz": apoz,
    "obd": obd,
    "mutual_information": mutual_information,
    "oracle": oracle,
}


# --- gates ------------------------------------------------------------------------------------------------------------


@contextmanager
def _hooked(net: nn.Module, hooks: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Inside, these layers have a forward hook each."""
    placed = [net.get_submodule(name).register_forward_hook(hook) for name, hook in hooks.items()]
    try:
        yield
    finally:
        for hook in placed:
            hook.remove()


def _gated(net: nn.Module, gates: Mapping[str, Tensor]) -> AbstractContextManager[None]:
    """Inside, the outputs of these layers are multiplied by their gates, which broadcast."""
    return _hooked(net, {name: lambda _layer, _inputs, out, gate=gate: out * gate for name, gate in gates.items()})


def _over_gates(
    net: nn.Module,
    maps: Sequence[Maps],
    x: Tensor,
    y: Tensor,
    of: Callable[[Tensor, list[Tensor], Tensor, list[int]], list[Tensor]],
) -> list[Tensor]:
    """Mean over samples of what `of` makes of (logits, a gate per sample and channel, labels, pixels of a map)."""
    pixels = [int(out.shape[2:].numel()) for out in _outputs(net, maps, x[:1])]
    sums = [torch.zeros(_width(net, each), dtype=torch.float64) for each in maps]
    for inputs, labels in zip(torch.split(x, BATCH), torch.split(y, BATCH), strict=True):
        shape = [(len(inputs), _width(net, each), 1, 1) for each in maps]
        gates = [torch.ones(each, device=x.device, requires_grad=True) for each in shape]
        with torch.enable_grad(), _gated(net, {each.output: gate for each, gate in zip(maps, gates, strict=True)}):
            parts = of(net(inputs), gates, labels, pixels)
        for layer, part in enumerate(parts):
            sums[layer] += part.detach().double().reshape(len(inputs), -1).sum(0).cpu()
    return [total / len(x) for total in sums]


def _statistics(net: nn.Module, maps: Sequence[Maps], x: Tensor, of: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """(n, channels) float64 on the CPU per layer: `of` the maps (n, channels, height, width) as float64."""
    parts = [[of(out.double()).cpu() for out in _outputs(net, maps, inputs)] for inputs in torch.split(x, BATCH)]
    return [torch.cat(part) for part in zip(*parts, strict=True)]


def _outputs(net: nn.Module, maps: Sequence[Maps], x: Tensor) -> list[Tensor]:
    """The maps of x, in the order of the layers."""
    found: list[Tensor] = []

    def note(_layer: nn.Module, _inputs: Any, out: Tensor) -> None:
        found.append(out.clone())

    with _hooked(net, {each.output: note for each in maps}), torch.no_grad():
        net(x)
    return found


def _information(a: Tensor, b: Tensor) -> Tensor:
    """Mutual information, in nats, of two columns (n,) of integers from 0."""
    joint = torch.zeros(int(a.max()) + 1, int(b.max()) + 1, dtype=torch.float64)
    joint.index_put_((a, b), torch.ones(len(a), dtype=torch.float64), accumulate=True)
    joint /= len(a)
    independent = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    return torch.where(joint > 0, joint * (joint / independent).log(), 0.0).nansum()


def _loss(net: nn.Module, x: Tensor, y: Tensor) -> float:
    """Mean cross-entropy."""
    with torch.no_grad():
        parts = zip(torch.split(x, BATCH), torch.split(y, BATCH), strict=True)
        return sum(F.cross_entropy(net(a).double(), b, reduction="sum").item() for a, b in parts) / len(x)


def _weight(net: nn.Module, maps: Maps) -> Tensor:
    return net.get_submodule(maps.convolution).get_parameter("weight")


def _width(net: nn.Module, maps: Maps) -> int:
    return len(_weight(net, maps))
