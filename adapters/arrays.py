"""Samples out of arrays in memory, checked once. For data sets of any format, in this folder or outside."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.contracts import Bounds, Samples
from bench.errors import DataError

UNIT = Bounds(0.0, 1.0)


def samples(
    inputs: NDArray[Any],
    labels: NDArray[Any],
    where: str,
    *,
    scale: float = 255.0,
    bounds: Bounds = UNIT,
    class_names: Sequence[str] = (),
) -> Samples:
    """Samples that keep `inputs` in memory as they are and convert what is fetched.

    inputs: (n, *input_shape), integers or floats; an input's value is inputs / scale, in float32, and has to be in
    `bounds`. labels: (n,) integers in [0, len(class_names)); without class_names, classes are 0 to the largest label.
    where: names the data in messages. Raises DataError.
    """
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(f"{where}: labels must be one column of integers, found {labels.dtype} {labels.shape}")
    if len(inputs) != len(labels):
        raise DataError(f"{where}: {len(inputs)} inputs, but {len(labels)} labels", "One of the two files is another's")
    if not len(labels) or inputs.ndim < 2 or not inputs[0].size:
        raise DataError(f"{where}: no samples: inputs {inputs.shape}, labels {labels.shape}")
    names = tuple(class_names) or tuple(str(label) for label in range(max(int(labels.max()), 0) + 1))
    check_labels(labels, names, where)
    _check_bounds(inputs, scale, bounds, where)
    inputs = np.ascontiguousarray(inputs)
    labels = labels.astype(np.int64)

    def fetch(indices: NDArray[np.int64]) -> Tensor:
        return _scaled(inputs[check_indices(indices, len(labels))], scale)

    return Samples(labels, fetch, inputs.shape[1:], bounds, names, digest(inputs, labels, scale))


def grouped(found: Samples, columns: Mapping[str, NDArray[Any]], where: str) -> Samples:
    """The samples with group columns, which join the digest; as they are where there are none.

    columns: name -> (n,) text, whole numbers or booleans, one value per sample. Raises DataError for anything else.
    """
    for name, values in columns.items():
        if values.shape != (len(found),) or values.dtype.kind not in "Uiub":
            raise DataError(
                f"{where}: the group column '{name}' must hold one text or whole number for each of {len(found)} "
                f"samples, found {values.dtype} {values.shape}"
            )
    if not columns:
        return found
    texts = {name: values.astype(str) for name, values in columns.items()}
    parts = [part for name, values in texts.items() for part in (name, values.tolist())]
    return replace(found, groups=texts, digest=digest(found.digest, *parts))


def digest(*parts: Any) -> str:
    """blake2b in 32 hexadecimal digits: of arrays (type, shape, content; not byte order), bytes and JSON values."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, np.ndarray):
            little = part.astype(part.dtype.newbyteorder("<"), copy=False)
            part = np.ascontiguousarray(little).data  # noqa: PLW2901 - the same part, as bytes
            state.update(f"{little.dtype.str}{little.shape}".encode())
        elif not isinstance(part, bytes):
            part = json.dumps(part, sort_keys=True).encode()  # noqa: PLW2901 - the same part, as bytes
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.hexdigest()


def check_indices(indices: Any, n: int) -> NDArray[np.int64]:
    """Indices as int64. Raises IndexError unless all are in [0, n), TypeError unless they are integers."""
    found = np.asarray(indices)
    if found.size and found.dtype.kind not in "iu":
        raise TypeError(f"indices must be integers, got {found.dtype}")
    if found.ndim != 1:
        raise IndexError(f"indices must be of shape (k,), got {found.shape}")
    if found.size and (found.min() < 0 or found.max() >= n):
        raise IndexError(f"indices must be in [0, {n}), got {found.min()} to {found.max()}")
    return found.astype(np.int64)


def check_labels(labels: NDArray[Any], class_names: Sequence[str], where: str) -> None:
    """Raises DataError for the first label outside [0, len(class_names))."""
    wrong = np.flatnonzero((labels < 0) | (labels >= len(class_names)))
    if len(wrong):
        raise DataError(
            f"{where}: label {labels[wrong[0]]} of sample {wrong[0]} is outside 0..{len(class_names) - 1}"
            f" ({len(wrong)} labels are)",
            "The labels belong to another data set, or class_names lacks names",
        )


def _scaled(values: NDArray[Any], scale: float) -> Tensor:
    out = torch.from_numpy(values.astype(np.float32))
    return out if scale == 1.0 else out.div_(scale)


def _check_bounds(inputs: NDArray[Any], scale: float, bounds: Bounds, where: str) -> None:
    if inputs.dtype.kind not in "iuf":
        raise DataError(f"{where}: inputs must be numbers, found {inputs.dtype}")
    extremes = _scaled(np.array([inputs.min(), inputs.max()]), scale)  # NaN anywhere makes both NaN
    low, high = extremes.tolist()
    if not (bounds.low <= low and high <= bounds.high):
        raise DataError(
            f"{where}: values from {low:g} to {high:g} are outside the bounds {bounds.low:g} to {bounds.high:g}",
            "Set `scale`, by which values are divided, or `bounds`; NaN has to go",
        )
