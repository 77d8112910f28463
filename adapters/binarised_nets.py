"""The CNN of the CleverHans tutorial in the variants of Attacking Binarized Neural Networks (Galloway et al. 2018).

    conv1 (float) ReLU scale | BatchNorm sign conv2 ReLU scale | BatchNorm sign conv3 | BatchNorm ReLU scale linear

K maps after the first convolution, 2K after the others. Convolutions 2 and 3 and the linear layer have binary weights;
the binary convolutions take binary activations, the linear layer what the last ReLU gives. The last BatchNorm stands
before its ReLU, which gets sums of thousands of signs and would die without it.
"""

from collections import OrderedDict
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  the name that every torch program uses
from torch import Tensor, nn

from adapters.reference_nets import BinaryConv2d, Sign, sign

SIGMA = 0.2  # of the truncated normal that weights start from


class Kernel(NamedTuple):
    """Of a convolution, square."""

    size: int
    stride: int
    padding: int


KERNELS: dict[int, tuple[Kernel, Kernel, Kernel]] = {  # by height and width of the input; 1 by 1 comes out
    28: (Kernel(8, 2, 3), Kernel(6, 2, 0), Kernel(5, 1, 0)),  # the tutorial's
    8: (Kernel(3, 1, 1), Kernel(4, 2, 0), Kernel(3, 1, 0)),  # ours, for the digits
}


class Scale(nn.Module):
    """A learned scalar, 1 at the start: what makes variant C of variant B."""

    pointwise = True  # no product of matrices, for the probe `macs`

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class ScaledBinaryConv2d(BinaryConv2d):
    """XNOR-Net's: each output channel times the mean magnitude of its latent weights (Rastegari et al. 2016, eq. 6)."""

    def __init__(self, *args: int, **options: int | bool) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self.register_buffer("alpha", torch.ones(self.out_channels))

    alpha: Tensor

    def forward(self, x: Tensor) -> Tensor:
        alpha = self.magnitudes() if self.training else self.alpha
        return super().forward(x) * alpha[:, None, None]

    def magnitudes(self) -> Tensor:
        """(maps,) the mean magnitude of each output channel's latent weights."""
        return self.weight.abs().mean((1, 2, 3))


class StochasticConv2d(nn.Conv2d):
    """A convolution whose weights are drawn anew at every pass: +1 with the hard sigmoid of the latent weight, else -1.

    Courbariaux et al. 2016, equation 2. Backward the identity inside [-1, 1], as for the deterministic sign. Drawn
    from torch's global generator. No padding.
    """

    operand_bits = (1, 1)

    def forward(self, x: Tensor) -> Tensor:
        chance = (self.weight + 1) / 2
        drawn = torch.where(torch.rand_like(chance) < chance, 1.0, -1.0)
        inside = self.weight.clamp(-1, 1)
        return F.conv2d(x, inside + (drawn - inside).detach(), None, self.stride)


class BinaryWeightLinear(nn.Linear):
    """A linear layer with the signs of its weights, on inputs that are not binary."""

    operand_bits = (1, 32)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, sign(self.weight))


def float_cnn(shape: tuple[int, ...], classes: int, width: int) -> nn.Sequential:
    """Variant A: (n, *shape) to (n, classes)."""
    first, second, third = _convolutions(shape, width)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (convolution, maps) in enumerate(((first, width), (second, 2 * width), (third, 2 * width)), 1):
        layers[f"conv{number}"] = nn.Conv2d(*convolution, bias=False)
        layers[f"norm{number}"] = nn.BatchNorm2d(maps)
        layers[f"relu{number}"] = nn.ReLU()
    layers |= {"flatten": nn.Flatten(), "linear": nn.Linear(2 * width, classes)}
    return _started(nn.Sequential(layers))


def binary_cnn(
    shape: tuple[int, ...], classes: int, width: int, *, scaled: bool, stochastic: bool, channel_scaling: bool
) -> nn.Sequential:
    """Variants B, C (scaled) and S (stochastic third layer): (n, *shape) to (n, classes)."""
    first, *hidden = _convolutions(shape, width)
    kind = ScaledBinaryConv2d if channel_scaling else BinaryConv2d
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv1=nn.Conv2d(*first, bias=False), relu1=nn.ReLU())
    if scaled:
        layers["scale1"] = Scale()
    for number, convolution in enumerate(hidden, 2):
        layers[f"norm{number}"] = nn.BatchNorm2d(convolution[0])
        layers[f"sign{number}"] = Sign()
        chosen = StochasticConv2d if stochastic and number == 3 else kind
        layers[f"conv{number}"] = chosen(*convolution, bias=False)
        if number == 3:
            layers["norm4"] = nn.BatchNorm2d(convolution[1])
        layers[f"relu{number}"] = nn.ReLU()
        if scaled:
            layers[f"scale{number}"] = Scale()
    layers |= {"flatten": nn.Flatten(), "linear": BinaryWeightLinear(2 * width, classes, bias=False)}
    return _started(nn.Sequential(layers))


LATENT = (BinaryConv2d, StochasticConv2d, BinaryWeightLinear)


def clamp_latent(net: nn.Module) -> None:
    """Latent weights stay in [-1, 1]: beyond, the straight-through gradient is 0 and they would be stuck.

    XNOR-Net's factors follow them: they are what is left of the magnitudes where only signs are kept.
    """
    for layer in net.modules():
        if isinstance(layer, LATENT):
            layer.weight.clamp_(-1, 1)
        if isinstance(layer, ScaledBinaryConv2d):
            layer.alpha.copy_(layer.magnitudes())


def packed_weights(net: nn.Module) -> list[str]:
    """Names of the weights, in the net's state, of which only the sign counts."""
    one_bit = (BinaryConv2d, BinaryWeightLinear)
    return [f"{name}.weight" for name, layer in net.named_modules() if isinstance(layer, one_bit)]


def _convolutions(shape: tuple[int, ...], width: int) -> list[tuple[int, int, int, int, int]]:
    """Channels in and out, size, stride and padding of the three convolutions."""
    channels = (shape[0], width, 2 * width, 2 * width)
    return [(channels[i], channels[i + 1], *kernel) for i, kernel in enumerate(KERNELS[shape[1]])]


def _started(net: nn.Sequential) -> nn.Sequential:
    for layer in net:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=SIGMA, a=-2 * SIGMA, b=2 * SIGMA)
    return net
