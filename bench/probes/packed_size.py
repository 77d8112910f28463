"""How many bytes a model would take if each weight took only the bits that it needs."""

from collections.abc import Iterator, Sequence
from math import ceil

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from bench.contracts import Classifier, Figure, Probe, Samples, probe
from bench.probes._counter import POINTWISE
from bench.probes.parameters import NO_MODULE, hidden

INDEX_BITS = {False: 5, True: 8}  # of a gap between nonzero weights: linear layers, convolutions (Han et al. 2015)
OF_WEIGHT = ("weight", "weight_orig", "weight_mask")  # what torch's masks make of a parameter


@probe("packed_size")
class PackedSize(Probe):
    """Bytes of the weights packed to their bits, with an index for zeros where that is smaller.

    A weight of a convolution or linear layer takes the bits that its layer states in `operand_bits`, else those of its
    type. A layer is stored dense, or sparse as in Han et al. 2015 (section 2): each nonzero weight with the gap before
    it, in 5 bits (linear) or 8 (convolution), and a zero filled in where a gap is wider; whichever takes fewer bytes.
    `packed_bytes/weights` is those layers' weights, `packed_bytes/other` everything else (biases, BatchNorm with its
    statistics) as its type has it, `packed_bytes` the sum, `float_bytes` the same weights at 32 bits. Nothing else of
    Han's (no shared values, no Huffman code). What the stored file really takes is `size_bytes` of the probe `size`.
    """

    def measure(self, model: Classifier, samples: Samples, artefact: bytes | None) -> Sequence[Figure]:
        if model.module is None:
            return [Figure(name=name, value=None, unit="B", flags=(NO_MODULE,)) for name in self.figures()]
        every = _layers(model.module)
        layers = _once(every)
        weights = sum(_packed(layer, weight) for layer, weight in layers)
        others = _others(model.module, [layer for layer, _ in every])
        other = sum(tensor.numel() * tensor.element_size() for tensor in others)
        values = (weights + other, weights, other, 4 * sum(weight.numel() for _, weight in layers))
        flags = hidden(model.module)
        return [
            Figure(name=name, value=value, unit="B", flags=flags)
            for name, value in zip(self.figures(), values, strict=True)
        ]

    @classmethod
    def figures(cls) -> tuple[str, ...]:
        return ("packed_bytes", "packed_bytes/weights", "packed_bytes/other", "float_bytes")


def packed_bytes(weight: NDArray[np.generic], bits: int, index_bits: int) -> int:
    """Bytes of the weights, dense or sparse, whichever are fewer. weight: any shape; bits: of one weight."""
    dense = ceil(weight.size * bits / 8)
    positions = np.flatnonzero(weight)
    gaps = np.diff(positions, prepend=-1)  # 1: it follows the one before immediately
    fillers = int(((gaps - 1) // 2**index_bits).sum())
    return min(dense, ceil((len(positions) + fillers) * (bits + index_bits) / 8))


def _packed(layer: nn.Module, weight: Tensor) -> int:
    bits = getattr(layer, "operand_bits", (8 * weight.element_size(),))[0]
    values = weight.detach().cpu().numpy()
    if bits == 1:  # every bit is a sign, and a sign is never zero
        return ceil(values.size / 8)
    return packed_bytes(values, bits, INDEX_BITS[weight.ndim > 2])


def _layers(module: nn.Module) -> list[tuple[nn.Module, Tensor]]:
    """Layers whose weight is multiplied, with that weight as it is used."""
    found = []
    for layer in module.modules():
        weight = getattr(layer, "weight", None)
        if isinstance(weight, Tensor) and weight.ndim >= 2 and not isinstance(layer, POINTWISE):
            found.append((layer, weight))
    return found


def _once(layers: list[tuple[nn.Module, Tensor]]) -> list[tuple[nn.Module, Tensor]]:
    """Without the weights that an earlier layer shares."""
    return list({weight.data_ptr(): (layer, weight) for layer, weight in reversed(layers)}.values())


def _others(module: nn.Module, weighty: Sequence[nn.Module]) -> Iterator[Tensor]:
    """Floating-point parameters and buffers that are no layer's weight, nor what one is made of; each once."""
    makers = [layer.get_submodule("parametrizations.weight") for layer in weighty if is_parametrized(layer, "weight")]
    made = {id(part) for maker in makers for part in maker.modules()}
    mine = {id(layer) for layer in weighty}
    seen: set[int] = set()
    for layer in module.modules():
        for name, tensor in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]:
            part = id(layer) in made or (id(layer) in mine and name in OF_WEIGHT)
            if tensor.is_floating_point() and not part and id(tensor) not in seen:
                seen.add(id(tensor))
                yield tensor
