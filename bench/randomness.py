"""Random numbers that belong to a sample: not to a worker, an order, or the neighbours in a batch.

Every stream is seeded with a hash of (suite seed, what the draw is for, index of the sample in its data set), so that
dropping, splitting or reordering the batch changes no draw.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def seed_of(*parts: Any) -> int:
    """A 63-bit seed from JSON values: the first eight bytes of their blake2b hash."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


class SampleRandom:
    """One random stream per row of a batch.

    Draws are made on the CPU in the requested dtype and moved, so that every device sees the same numbers.
    """

    def __init__(self, streams: Sequence[torch.Generator]) -> None:
        self.streams = tuple(streams)

    @classmethod
    def of(cls, seed: int, purpose: str, indices: Sequence[int]) -> "SampleRandom":
        """Streams for the samples at these indices of their data set. `purpose` keeps uses apart ("pgd/0.1")."""
        streams = []
        for index in indices:
            stream = torch.Generator()
            stream.manual_seed(seed_of(seed, purpose, int(index)))
            streams.append(stream)
        return cls(streams)

    def __len__(self) -> int:
        return len(self.streams)

    def rows(self, rows: Sequence[int] | Tensor) -> "SampleRandom":
        """The streams of some rows; they go on where they stand."""
        return SampleRandom([self.streams[int(row)] for row in rows])

    def uniform(self, shape: Sequence[int], low: float = 0.0, high: float = 1.0, device: str = "cpu") -> Tensor:
        """(n, *shape) float32, uniform in [low, high)."""
        return self._draw(shape, device, lambda out, stream: out.uniform_(low, high, generator=stream))

    def normal(self, shape: Sequence[int], device: str = "cpu") -> Tensor:
        """(n, *shape) float32, standard normal."""
        return self._draw(shape, device, lambda out, stream: out.normal_(generator=stream))

    def integers(self, shape: Sequence[int], low: int, high: int, device: str = "cpu") -> Tensor:
        """(n, *shape) int64, uniform in {low, ..., high - 1}."""
        return self._draw(shape, device, lambda out, stream: out.random_(low, high, generator=stream), torch.int64)

    def _draw(self, shape: Sequence[int], device: str, fill: Any, dtype: torch.dtype = torch.float32) -> Tensor:
        out = torch.empty((len(self.streams), *shape), dtype=dtype)
        for row, stream in zip(out, self.streams, strict=True):
            fill(row, stream)
        return out.to(device)
