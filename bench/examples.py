"""Adversarial examples as data: kept in the records of an attack where the suite asks for it, and read again.

An attack with `keep: exact` or `keep: 8bit` has, behind the columns of bench.records.SAMPLES, those of EXAMPLES: each
input as it was, and the verified adversarial one of the smallest epsilon that broke it. So they are stored, resumed,
verified and removed as records are, under the same key.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.contracts import Bounds
from bench.errors import PluginError
from bench.levels import dequantised, quantised
from bench.words import Keep

EXAMPLES = pa.schema(
    [
        pa.field("original", pa.binary(), True, {"doc": "the untouched input: bytes in C order, little-endian"}),
        pa.field("adversarial", pa.binary(), True, {"doc": "the verified adversarial input; null: none found"}),
        pa.field("dtype", pa.string(), True, {"doc": "numpy's: |u1 is a level of 255 between the bounds"}),
        pa.field("shape", pa.list_(pa.int32()), True, {"doc": "of one input"}),
        pa.field("bounds", pa.list_(pa.float64()), True, {"doc": "smallest and largest value of an input"}),
    ]
)


class Keeper:
    """What an attack found on a block of samples. x: (n, *input_shape), untouched. Does nothing where keep is None."""

    def __init__(self, x: Tensor, bounds: Bounds, keep: Keep | None) -> None:
        if keep is Keep.EIGHT_BIT and not x.is_floating_point():
            raise PluginError("`keep: 8bit` rounds real inputs, these are integers", "use `keep: exact`")
        self.x, self.bounds, self.keep = x, bounds, keep
        self.found = x.clone() if keep else x
        self.crafted = np.zeros(len(x), dtype=bool)

    def take(self, rows: NDArray[np.int64], moved: Tensor) -> None:
        """Keep what broke these rows. moved: (len(rows), *input_shape)."""
        if self.keep and len(rows):
            self.found[torch.from_numpy(rows)] = moved
            self.crafted[rows] = True

    def beside(self, table: pa.Table, answer: Callable[[Tensor], NDArray[np.int32]]) -> pa.Table:
        """The records with the columns of EXAMPLES, and with the class of what was found once it is rounded.

        answer: the classes of (n, *input_shape), as the engine judges them.
        """
        if self.keep is None:
            return table
        real = self.x.is_floating_point()
        rounded = dequantised(quantised(self.found, self.bounds), self.bounds) if real else self.found
        classes = answer(rounded) if len(rounded) else np.zeros(0, np.int32)
        classes = np.where(self.crafted, classes, table["prediction"].to_numpy())
        place = table.column_names.index("quantised_prediction")
        table = table.set_column(place, table.schema.field(place), pa.array(classes, pa.int32()))
        stored = [self._stored(inputs) for inputs in (self.x, self.found)]
        n = len(self.crafted)
        columns = {
            "original": [one.tobytes() for one in stored[0]],
            "adversarial": [one.tobytes() if kept else None for one, kept in zip(stored[1], self.crafted, strict=True)],
            "dtype": [stored[0].dtype.str] * n,
            "shape": [list(self.x.shape[1:])] * n,
            "bounds": [list(self.bounds)] * n,
        }
        for field in EXAMPLES:
            table = table.append_column(field, pa.array(columns[field.name], field.type))
        return table

    def _stored(self, inputs: Tensor) -> NDArray[np.generic]:
        kept = quantised(inputs, self.bounds) if self.keep is Keep.EIGHT_BIT else inputs
        array = kept.detach().cpu().numpy()
        return np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<")))


@dataclass(frozen=True)
class Examples:
    """What an attack kept: arrays over n samples, in the order of the records.

    original, adversarial: (n, *input_shape), as stored; adversarial holds the original where `crafted` is False.
    sample: index in the data set's split. distance: of the adversarial input as crafted; NaN where there is none.
    """

    sample: NDArray[np.int64]
    label: NDArray[np.int32]
    prediction: NDArray[np.int32]
    adversarial_prediction: NDArray[np.int32]
    distance: NDArray[np.float64]
    crafted: NDArray[np.bool_]
    original: NDArray[np.generic]
    adversarial: NDArray[np.generic]
    bounds: Bounds

    @classmethod
    def of(cls, table: pa.Table) -> "Examples | None":
        """table: records with the columns of EXAMPLES; None where they lack them, or nothing was kept."""
        if "original" not in table.column_names or table.num_rows == table["original"].null_count:
            return None
        dtype, shape = np.dtype(table["dtype"][0].as_py()), tuple(table["shape"][0].as_py())
        original = table["original"].to_pylist()
        kept = table["adversarial"].to_pylist()

        def arrays(found: list[bytes]) -> NDArray[np.generic]:
            return np.frombuffer(b"".join(found), dtype).reshape(-1, *shape)

        return cls(
            sample=table["sample"].to_numpy(),
            label=table["label"].to_numpy(),
            prediction=table["prediction"].to_numpy(),
            adversarial_prediction=table["adversarial_prediction"].to_numpy(),
            distance=np.array([np.nan if one is None else one for one in table["distance"].to_pylist()], np.float64),
            crafted=np.array([one is not None for one in kept], bool),
            original=arrays(original),
            adversarial=arrays([one if found is None else found for one, found in zip(original, kept, strict=True)]),
            bounds=Bounds(*table["bounds"][0].as_py()),
        )

    def first(self, count: int) -> "Examples":
        """The first samples for which something was crafted, at most so many: chosen by their index alone."""
        rows = np.flatnonzero(self.crafted)[:count]
        arrays = {name: value[rows] for name, value in vars(self).items() if name != "bounds"}
        return replace(self, **arrays)

    def real(self, which: str) -> NDArray[np.float32]:
        """`original` or `adversarial` in input units, (n, *input_shape) float32."""
        stored: NDArray[np.generic] = getattr(self, which)
        if stored.dtype != np.uint8:
            return stored.astype(np.float32)
        return np.asarray(dequantised(torch.from_numpy(stored.copy()), self.bounds).numpy())
