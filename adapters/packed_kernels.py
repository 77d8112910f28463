"""One-bit arithmetic: activations and weights as bits of 64-bit words, multiplied by XOR and added by popcount.

A bit is 1 for +1 and 0 for -1; channel c is bit c mod 64 of word c div 64, and bits beyond the last channel are 0 in
both operands, where they cancel. Words are (n, height, width, words), uint64.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

WORD = 64


class Kernels(NamedTuple):
    """Functions that numba compiles when they are first called.

    pack(values, threshold, flip): words of (n, channels, height, width) numbers, float32 or int32; bit c is `values >=
    threshold[c]`, or its opposite where flip[c] (uint64) is 1.
    convolve(words, weights, size, stride, channels): a convolution of signs, without padding: (n, maps, height, width)
    int32, exact. weights: (size * size * words, maps) uint64.
    """

    pack: Any
    convolve: Any


@cache
def kernels() -> Kernels:
    """The kernels. numba is imported here: it takes a while, and few commands need it."""
    import numba
    from numba.extending import intrinsic

    @intrinsic
    def popcount(_context: Any, _value: Any) -> Any:
        """The processor's own instruction."""

        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return builder.ctpop(arguments[0])

        return numba.types.uint64(numba.types.uint64), generate

    @numba.njit(nogil=True)
    def pack(values: Any, threshold: Any, flip: Any) -> Any:
        n, channels, height, width = values.shape
        words = np.zeros((n, height, width, (channels + WORD - 1) // WORD), np.uint64)
        for i in range(n):
            for c in range(channels):
                word, bit, limit, turned = c // WORD, np.uint64(c % WORD), threshold[c], flip[c]
                for row in range(height):
                    for column in range(width):
                        above = np.uint64(values[i, c, row, column] >= limit)
                        words[i, row, column, word] |= (above ^ turned) << bit
        return words

    @numba.njit(nogil=True)
    def convolve(words: Any, weights: Any, size: int, stride: int, channels: int) -> Any:
        n, height, width, depth = words.shape
        maps = weights.shape[1]
        high, wide = (height - size) // stride + 1, (width - size) // stride + 1
        out = np.empty((n, maps, high, wide), np.int32)
        differing = np.empty(maps, np.uint64)
        total = size * size * channels
        for i in range(n):
            for row in range(high):
                for column in range(wide):
                    differing[:] = 0
                    k = 0
                    for y in range(size):
                        for x in range(size):
                            for d in range(depth):
                                word = words[i, row * stride + y, column * stride + x, d]
                                for m in range(maps):  # innermost: it becomes vector instructions
                                    differing[m] += popcount(word ^ weights[k, m])  # type: ignore[call-arg]
                                k += 1
                    for m in range(maps):
                        out[i, m, row, column] = total - 2 * np.int32(differing[m])
        return out

    return Kernels(pack, convolve)


def pack_weights(weight: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Weights (maps, channels, size, size) as `convolve` takes them; at least 0 is +1."""
    maps, channels, size, _ = weight.shape
    plain = np.zeros(channels, np.float32), np.zeros(channels, np.uint64)
    packed: NDArray[np.uint64] = kernels().pack(np.ascontiguousarray(weight), *plain)
    return np.ascontiguousarray(packed.reshape(maps, size * size * packed.shape[-1]).T)
