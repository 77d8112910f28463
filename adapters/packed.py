"""A binarised network in one bit: its binary convolutions by XOR and popcount, equal to the float net bit for bit."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import model_validator
from torch import Tensor, nn

from adapters.binarised_nets import BinaryWeightLinear, ScaledBinaryConv2d, StochasticConv2d
from adapters.derived import Derivation, Derived
from adapters.family import Family, check_net
from adapters.packed_kernels import kernels, pack_weights
from adapters.reference_nets import BinaryConv2d, Sign, sign
from adapters.torch_classifier import TorchClassifier, check_input, check_output, no_rows
from bench.contracts import (
    Classifier,
    Gradients,
    Realisation,
    Training,
    adapter,
)
from bench.errors import PluginError

Gate = Callable[[Tensor], Tensor]  # numbers (n, channels, height, width) -> their signs


@adapter("packed")
class Packed(Derived):
    """A binarised network whose binary convolutions run in bits: XOR and popcount on 64-bit words.

    model: the adapter that builds the binary net, such as `binarised` of variant B or C; its trained weights are used
    as they are. BatchNorm, ReLU, scalars and sign between two binary convolutions become one comparison per channel,
    whose threshold is looked up in the float net; the first convolution and what follows the last binary one stay
    torch's. So the scores are the float net's, bit for bit, for the same batch. There are no gradients: attacks are
    crafted on `source`, the float net.
    """

    requires: ClassVar[tuple[str, ...]] = ("torch", "numba")

    @model_validator(mode="after")
    def _of_a_net_that_has_bits(self) -> "Packed":
        if isinstance(original := self.original(), Family):
            check_net(original, binary_layers)
        return self

    def build(self, weights: bytes | None) -> "PackedClassifier":
        source = self.original().build(weights)
        if not isinstance(source, TorchClassifier):
            raise PluginError(f"adapter '{self.model.adapter}' builds no torch net that could be packed")
        return PackedClassifier(source)

    def place(self, classifier: Classifier, device: str) -> Classifier:
        """Stays on the CPU, whatever the device: the kernels are made for it."""
        return classifier

    def training(self) -> Training:
        return _Packing(self)


class _Packing(Derivation):
    def derive(self, parent: bytes, seed: int) -> bytes:
        return parent  # which holds bits already


class PackedClassifier(Classifier):
    """Scores of the binary net, computed in bits. Compiles its kernels when it is built, so that no query waits."""

    gradients = Gradients.NONE
    realisation = Realisation.PACKED_KERNEL
    runtime = "numba"

    def __init__(self, source: TorchClassifier) -> None:
        self._source = source
        self.input_shape, self.bounds, self.classes = source.input_shape, source.bounds, source.classes
        self._head, self._layers, self._tail = _compiled(source)
        self.logits(torch.zeros((1, *self.input_shape)))

    @property
    def source(self) -> Classifier:
        return self._source

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        check_input(x, self.input_shape)
        if not len(x):
            return no_rows(x.detach(), self.classes)
        values = self._head(x.to(torch.float32)).contiguous().numpy()
        for layer in self._layers:
            values = layer(values)
        return check_output(self._tail(torch.from_numpy(values)), len(x), self.classes)


class _Layer:
    """Signs of numbers (n, channels, height, width), and their binary convolution."""

    def __init__(self, convolution: BinaryConv2d, threshold: NDArray[Any], flip: NDArray[np.uint64]) -> None:
        self._threshold, self._flip = threshold, flip
        self._weights = pack_weights(convolution.weight.detach().numpy())
        self._shape = convolution.kernel_size[0], convolution.stride[0], convolution.in_channels
        self._kernels = kernels()

    def __call__(self, values: NDArray[Any]) -> NDArray[np.int32]:
        words = self._kernels.pack(values, self._threshold, self._flip)
        out: NDArray[np.int32] = self._kernels.convolve(words, self._weights, *self._shape)
        return out


def _compiled(source: TorchClassifier) -> tuple[nn.Module, list[_Layer], nn.Module]:
    """The first convolution; the binary ones, each with the comparison before it; what follows, from integers on."""
    ends = binary_layers(source.module)
    layers = list(source.module.children())
    made, shape = [], (1, *source.input_shape)
    for start, end in pairwise([0, *ends]):
        before, convolution = layers[start], layers[end]
        assert isinstance(before, nn.Conv2d)
        assert isinstance(convolution, BinaryConv2d)
        with torch.no_grad():
            shape = before(torch.zeros(shape)).shape
        if start:
            gate = nn.Sequential(_Rescaled(before), *layers[start + 1 : end])
            reach = before.in_channels * before.kernel_size[0] * before.kernel_size[1]
            made.append(_Layer(convolution, *integer_thresholds(gate, shape, reach)))
        else:
            made.append(_Layer(convolution, *float_thresholds(nn.Sequential(*layers[1:end]), shape)))
    last = layers[ends[-1]]
    rest = [_Signed(layer) if isinstance(layer, BinaryWeightLinear) else layer for layer in layers[ends[-1] + 1 :]]
    return layers[0], made, nn.Sequential(_Rescaled(last), *rest).eval()


def binary_layers(net: nn.Module) -> list[int]:
    """Places of the binary convolutions. Raises PluginError for a net that cannot be packed; reads no weights."""
    if not isinstance(net, nn.Sequential):
        raise PluginError("only an nn.Sequential can be packed", "name the adapter of a binarised net")
    layers = list(net)
    if any(isinstance(layer, StochasticConv2d) for layer in layers):
        raise PluginError("weights that are drawn at every pass cannot be packed", "pack variant B or C")
    ends = [index for index, layer in enumerate(layers) if isinstance(layer, BinaryConv2d)]
    if not ends or not isinstance(layers[0], nn.Conv2d) or ends[0] == 0:
        raise PluginError("the net has no binary convolutions behind a first one in float", "pack variant B or C")
    for end in ends:
        _check(layers[end], layers[end - 1])
    return ends


def _check(convolution: nn.Module, before: nn.Module) -> None:
    assert isinstance(convolution, BinaryConv2d)
    square = convolution.kernel_size[0] == convolution.kernel_size[1] and convolution.stride[0] == convolution.stride[1]
    plain = convolution.groups == 1 and set(convolution.dilation) == {1} and set(convolution.padding) == {0}
    if not (square and plain and isinstance(before, Sign)):
        raise PluginError("a binary convolution that is not square, dense and unpadded behind a sign cannot be packed")


class _Rescaled(nn.Module):
    """What a binary convolution gives, of its integers: float32, times XNOR-Net's factors where it has them."""

    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        self.alpha = convolution.alpha if isinstance(convolution, ScaledBinaryConv2d) else None

    def forward(self, integers: Tensor) -> Tensor:
        values = integers.to(torch.float32)
        return values if self.alpha is None else values * self.alpha[:, None, None]


class _Signed(nn.Module):
    """A linear layer whose signs were taken once."""

    def __init__(self, layer: BinaryWeightLinear) -> None:
        super().__init__()
        self.weight = nn.Parameter(sign(layer.weight.detach()), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight)


# --- where a sign changes: every layer between two convolutions is monotone in each channel ---------------------------


@torch.no_grad()
def integer_thresholds(gate: Gate, shape: torch.Size, reach: int) -> tuple[NDArray[np.int32], NDArray[np.uint64]]:
    """(threshold, flip) of each channel: the gate gives +1 where (value >= threshold) differs from flip.

    All integers from -reach to reach are asked. shape: (1, channels, height, width) of what the gate gets. Raises
    PluginError where a channel changes its sign more than once.
    """
    every = torch.arange(-reach, reach + 1, dtype=torch.int32)
    up = gate(every[:, None, None, None].expand(-1, shape[1], 1, 1))[:, :, 0, 0] > 0
    flip = up[0]
    changed = up != flip
    if not torch.equal(changed, changed.cummax(0).values):
        raise PluginError("a sign that changes more than once cannot be packed", "pack a net of BatchNorm, ReLU, sign")
    first = len(every) - changed.sum(0)
    return (first - reach).to(torch.int32).numpy(), flip.numpy().astype(np.uint64)


@torch.no_grad()
def float_thresholds(gate: Gate, shape: torch.Size) -> tuple[NDArray[np.float32], NDArray[np.uint64]]:
    """The same for float32 values: the threshold is found to the last bit by bisection over all floats, in order."""
    low = torch.full((shape[1],), _ordered(-torch.finfo(torch.float32).max))
    high = torch.full((shape[1],), _ordered(torch.finfo(torch.float32).max))

    def positive(ranks: Tensor) -> Tensor:
        values = _of_rank(ranks)[None, :, None, None].expand(shape)
        return gate(values.contiguous())[0, :, 0, 0] > 0

    flip = positive(low)
    never = positive(high) == flip
    while bool((high - low > 1).any()):  # low as the lowest float, high as the highest
        middle = (low + high) // 2
        alike = positive(middle) == flip
        low, high = torch.where(alike, middle, low), torch.where(alike, high, middle)
    threshold = torch.where(never, torch.inf, _of_rank(high))
    return threshold.numpy(), flip.numpy().astype(np.uint64)


def _ordered(value: float) -> int:
    """The rank of a float32 among all: neighbours differ by 1, and -0 and 0 are one."""
    bits = int(np.float32(value).view(np.int32))
    return bits if bits >= 0 else -(bits & 0x7FFFFFFF)


def _of_rank(ranks: Tensor) -> Tensor:
    bits = ranks.abs().to(torch.int32).view(torch.float32)
    return torch.where(ranks < 0, -bits, bits)
