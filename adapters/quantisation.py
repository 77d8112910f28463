"""Quantisers of weights and activations, layers that train through them, and their codes packed into bytes."""

from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  the name that every torch program uses
from torch import Tensor, nn

Bits = int | Literal["ternary"]


def bits_of(precision: Bits) -> int:
    """Bits that hold one code: ternary takes two."""
    return 2 if precision == "ternary" else precision


def codes(weight: Tensor, precision: Bits) -> tuple[Tensor, float]:
    """(codes, unit) with weight ≈ codes × unit: codes of the weight's shape, whole numbers as float32.

    ternary: -1, 0, 1; weights up to 0.7·mean|w| become 0, and the unit is the mean magnitude of the others (Li and Liu
    2016, "Ternary Weight Networks", equations 5 and 6). k bits, 2 to 8: the 2^k - 1 codes from -(2^(k-1) - 1) to
    2^(k-1) - 1, evenly spaced up to the largest magnitude; Mishra et al. 2018 (WRPN, section 3) has 1 in place of that
    magnitude, which suits nets trained from scratch alone. A weight of zeros has codes 0.
    """
    size = weight.detach().abs()
    if precision == "ternary":
        kept = size > 0.7 * size.mean()
        found = torch.where(kept, weight.detach().sign(), 0.0)
        return found, float(size[kept].double().mean()) if kept.any() else 1.0
    levels = 2 ** (precision - 1) - 1
    unit = float(size.max()) / levels or 1.0
    return (weight.detach() / unit).round().clamp(-levels, levels), unit


def quantised(weight: Tensor, precision: Bits) -> Tensor:
    """codes × unit. The gradient passes straight through (Bengio et al. 2013)."""
    found, unit = codes(weight, precision)
    return weight + (found * unit - weight).detach()


def pack(found: Tensor, precision: Bits) -> Tensor:
    """Codes as uint8 bytes, `bits_of(precision)` bits each, first code highest, offset so that none is negative."""
    bits = bits_of(precision)
    numbers = (found.flatten().to(torch.int64) + 2 ** (bits - 1) - 1).to(torch.uint8).numpy()
    return torch.from_numpy(np.packbits(np.unpackbits(numbers[:, None], axis=1)[:, 8 - bits :]))


def unpack(packed: Tensor, precision: Bits, shape: torch.Size) -> Tensor:
    """Inverse of `pack`: float32 of this shape."""
    bits = bits_of(precision)
    flat = np.unpackbits(packed.numpy(), count=bits * shape.numel()).reshape(-1, bits)
    numbers = flat.astype(np.int64) @ (1 << np.arange(bits)[::-1])
    return torch.from_numpy(numbers - (2 ** (bits - 1) - 1)).to(torch.float32).reshape(shape)


# --- layers -----------------------------------------------------------------------------------------------------------


class _Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


class QuantisedReLU(nn.Module):
    """The input clipped to [0, 1] and rounded to k bits (Mishra et al. 2018, WRPN, section 3).

    The gradient is that of clipping: it passes the rounding straight through.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.levels = 2**bits - 1

    def forward(self, x: Tensor) -> Tensor:
        scaled = x.clamp(0, 1) * self.levels
        rounded = _Rounded.apply(scaled) if scaled.requires_grad else scaled.round()  # type: ignore[no-untyped-call]
        out: Tensor = rounded / self.levels
        return out


class QuantisedConv2d(nn.Conv2d):
    """A convolution that multiplies with its quantised weights, and learns the real ones behind them."""

    precision: Bits

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self._conv_forward(x, quantised(self.weight, self.precision), self.bias)
        return out


class QuantisedLinear(nn.Linear):
    """A linear layer that multiplies with its quantised weights, and learns the real ones behind them."""

    precision: Bits

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = F.linear(x, quantised(self.weight, self.precision), self.bias)
        return out


def inner_layers(net: nn.Sequential) -> list[str]:
    """Names of the convolutions and linear layers but the first and the last, which stay in full precision."""
    names = [name for name, layer in net.named_children() if isinstance(layer, nn.Conv2d | nn.Linear)]
    return names[1:-1]


def lower(net: nn.Sequential, precision: Bits, activation_bits: int | None) -> None:
    """Turn the inner layers into quantised ones, in place, and all activations but the last with them."""
    for name in inner_layers(net):
        layer = net.get_submodule(name)
        layer.__class__ = QuantisedConv2d if isinstance(layer, nn.Conv2d) else QuantisedLinear
        layer.precision = precision  # type: ignore[assignment]  # a module's attributes are tensors or modules to torch
    lower_activations(net, activation_bits)


def lower_activations(net: nn.Sequential, bits: int | None) -> None:
    """Quantise all activations but the last, in place; None leaves them."""
    names = [name for name, layer in net.named_children() if isinstance(layer, nn.ReLU)]
    for name in names[:-1] if bits is not None else ():
        assert bits is not None
        setattr(net, name, QuantisedReLU(bits))
