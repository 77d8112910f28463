"""Arrays in numpy's .npz files."""

import zipfile
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from adapters.arrays import grouped, samples
from bench.contracts import Bounds, Dataset, Samples, dataset
from bench.data import locate
from bench.errors import DataError, did_you_mean

IMAGES = 4  # dimensions of an array of images
CHANNELS = (1, 3, 4)  # grey, colours, colours and transparency


@dataset("npz")
class Npz(Dataset):
    """Inputs and labels as two arrays in one .npz file.

    x: (n, ...) numbers, y: (n,) integers. layout: where images (four dimensions) have their channels; they become NCHW.
    Left out, it is the one that makes them images of 1, 3 or 4 channels; where both or neither do, it has to be given.
    An input's value is x / scale, float32; scale is 255 for bytes and 1 for all else unless given. `{split}` in path, x
    or y stands for the split (`x: x_{split}`); without it, every split is the same data. The path is as given, or below
    the data folder. Arrays of Python objects are refused, since they would need pickle. groups: names of further arrays
    (n,), by whose values metrics can be told apart.
    """

    path: Path
    x: str = "x"
    y: str = "y"
    layout: Literal["NHWC", "NCHW"] | None = None
    scale: float | None = Field(default=None, gt=0)
    bounds: Bounds = Bounds(0.0, 1.0)
    class_names: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    split: str = Field(default="test", pattern=r"^\w[\w.-]*$")

    def load(self) -> Samples:
        path, *keys = (str(part).replace("{split}", self.split) for part in (self.path, self.x, self.y, *self.groups))
        file = locate(path)
        inputs, labels, *columns = read_npz(file, *keys)
        if inputs.ndim == IMAGES and (self.layout or layout_of(inputs.shape, str(file))) == "NHWC":
            inputs = np.moveaxis(inputs, -1, 1)
        scale = self.scale or (255.0 if inputs.dtype == np.uint8 else 1.0)
        found = samples(inputs, labels, str(file), scale=scale, bounds=self.bounds, class_names=self.class_names)
        return grouped(found, dict(zip(self.groups, columns, strict=True)), str(file))


def layout_of(shape: tuple[int, ...], where: str) -> str:
    """NHWC or NCHW: the one by which images of that shape have as many channels as images have. Raises DataError."""
    last, first = shape[-1] in CHANNELS, shape[1] in CHANNELS
    if last is first:
        why = "may have their channels first or last" if last else "have 1, 3 or 4 channels neither first nor last"
        raise DataError(f"{where}: images of shape {shape[1:]} {why}", "Say `layout: NCHW` or `layout: NHWC`")
    return "NHWC" if last else "NCHW"


def read_npz(path: Path, *keys: str) -> list[NDArray[Any]]:
    """The arrays of those names. Raises DataError for a file that is no .npz, is damaged, lacks one or needs pickle."""
    try:
        with path.open("rb") as file:  # numpy leaves a file open that it opened itself and finds damaged
            arrays = np.load(file, allow_pickle=False)
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise DataError(
                    f"{path}: a single array, not an .npz file", "Save it by numpy.savez(path, x=..., y=...)"
                )
            for key in keys:
                if key not in arrays:
                    hint = did_you_mean(key, arrays.files)
                    raise DataError(f"{path}: no array '{key}'{hint} (it holds {', '.join(arrays.files) or 'nothing'})")
            return [arrays[key] for key in keys]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as .npz: {error}", "It is damaged, or holds Python objects") from error
