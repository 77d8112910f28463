"""The nets behind the reference models: a small CNN, and the same one with binary weights and activations."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  the name that every torch program uses
from torch import Tensor, nn

INPUT_SHAPE = (1, 8, 8)
CLASSES = 10
POOLED = 4 * 4  # pixels of a map after the one pooling


def small_cnn(first: int, second: int) -> nn.Sequential:
    """conv-BN-ReLU twice, max pooling, linear: (n, 1, 8, 8) to (n, 10), `first` and `second` maps wide."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, first, 3, padding=1, bias=False),
            norm1=nn.BatchNorm2d(first),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(first, second, 3, padding=1, bias=False),
            norm2=nn.BatchNorm2d(second),
            relu2=nn.ReLU(),
            pool=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            linear=nn.Linear(second * POOLED, CLASSES),
        )
    )


def small_cnn_binarised(first: int, second: int) -> nn.Sequential:
    """`small_cnn` with +1 and -1 for weights and activations of all layers but the first; logits pass a BatchNorm.

    BatchNorm stands before each sign, and pooling before that BatchNorm, since the maximum of signs is nearly always +1
    (Rastegari et al. 2016, XNOR-Net, section 3.2).
    """
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, first, 3, padding=1, bias=False),
            norm1=nn.BatchNorm2d(first),
            sign1=Sign(),
            conv2=BinaryConv2d(first, second, 3, padding=1, bias=False),
            pool=nn.MaxPool2d(2),
            norm2=nn.BatchNorm2d(second),
            sign2=Sign(),
            flatten=nn.Flatten(),
            linear=BinaryLinear(second * POOLED, CLASSES, bias=False),
            norm3=nn.BatchNorm1d(CLASSES),
        )
    )


# --- binary layers ----------------------------------------------------------------------------------------------------


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return torch.where(x.abs() <= 1, gradients[0], 0.0)


def sign(x: Tensor) -> Tensor:
    """+1 where x >= 0 (so 0 becomes +1, as a packed bit can hold it), else -1.

    Backward it is the identity inside [-1, 1] and 0 outside: the straight-through estimator of Hubara et al. 2016,
    Binarized Neural Networks, equation 4.
    """
    out: Tensor = _Sign.apply(x)  # type: ignore[no-untyped-call]
    return out


class Sign(nn.Module):
    """`sign` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        return sign(x)


class BinaryConv2d(nn.Conv2d):
    """A convolution with the signs of its weights. Padding is -1, never 0: a packed bit holds no third value."""

    operand_bits = (1, 1)  # of a weight and of an activation, for the probe `macs`

    def forward(self, x: Tensor) -> Tensor:
        assert not isinstance(self.padding, str)
        vertical, horizontal = self.padding
        padded = F.pad(x, (horizontal, horizontal, vertical, vertical), value=-1.0)
        return F.conv2d(padded, sign(self.weight), None, self.stride, 0, self.dilation, self.groups)


class BinaryLinear(nn.Linear):
    """A linear layer with the signs of its weights."""

    operand_bits = (1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, sign(self.weight))


BINARY = (BinaryConv2d, BinaryLinear)


def binary_weights(net: nn.Module) -> list[str]:
    """Names of the weights, in the net's state, of which only the sign counts."""
    return [f"{name}.weight" for name, layer in net.named_modules() if isinstance(layer, BINARY)]


def pack(state: Mapping[str, Tensor], names: list[str]) -> dict[str, Tensor]:
    """The state with the weights of these names as uint8, eight signs to a byte (bit 1: +1), first sign highest."""
    packed = dict(state)
    for name in names:
        packed[name] = torch.from_numpy(np.packbits((state[name] >= 0).numpy()))
    return packed


def unpack(state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Inverse of `pack` up to the sign: float32 weights of +1 and -1 of these shapes.

    A tensor that is not packed, or that holds another number of bytes than its shape needs, is left as it is.
    """
    opened = dict(state)
    for name, shape in shapes.items():
        bits = state.get(name)
        if bits is not None and bits.dtype == torch.uint8 and bits.numel() == -(-shape.numel() // 8):
            signs = np.unpackbits(bits.numpy().ravel(), count=shape.numel()).astype(np.float32) * 2 - 1
            opened[name] = torch.from_numpy(signs).reshape(shape)
    return opened
