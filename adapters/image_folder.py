"""Image files in folders named after their class."""

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from adapters.arrays import UNIT, check_indices, digest
from adapters.images import batch, suffixes
from bench.contracts import Dataset, Samples, dataset
from bench.data import locate
from bench.errors import DataError, did_you_mean


@dataset("image_folder")
class ImageFolder(Dataset):
    """Image files, read when needed: `<path>/<split>/<class>/...`, any format that Pillow opens.

    size: (height, width) in pixels; an image of another size is resampled bilinearly. channels: 1 (grey) or 3 (RGB).
    Inputs are (channels, height, width) float32, value / 255. Files are in the order of their names. The classes are
    the folders below all splits together, sorted, so that every split has the same; or class_names, in that order.
    Names that begin with a dot are passed over; any other file that is no image is an error.
    """

    requires: ClassVar[tuple[str, ...]] = ("torch", "pillow")

    path: Path
    size: tuple[int, int]
    channels: Literal[1, 3] = 3
    class_names: tuple[str, ...] = ()
    split: str = Field(default="test", pattern=r"^\w[\w.-]*$")

    def load(self) -> Samples:
        root = locate(self.path)
        splits = _folders(root)
        if root / self.split not in splits:
            hint = did_you_mean(self.split, [folder.name for folder in splits])
            raise DataError(
                f"{root}: no folder '{self.split}' for that split{hint}",
                f"Place the images in {root / self.split}/CLASS/, one folder for each class",
            )
        found = sorted({folder.name for split in splits for folder in _folders(split)})
        names = self.class_names or tuple(found)
        unknown = sorted({folder.name for folder in _folders(root / self.split)} - set(names))
        if unknown:
            raise DataError(f"{root / self.split}: folder '{unknown[0]}' is not among class_names {list(names)}")
        files = [(file, label) for label, name in enumerate(names) for file in _files(root / self.split / name)]
        if not files:
            raise DataError(f"{root / self.split}: no images", "Place them there in one folder for each class")
        labels = np.array([label for _, label in files], dtype=np.int64)

        def fetch(indices: NDArray[np.int64]) -> Tensor:
            rows = check_indices(indices, len(files)).tolist()
            return batch(lambda row: (files[row][0].read_bytes(), str(files[row][0])), rows, self.size, self.channels)

        contents = (digest(file.read_bytes()) for file, _ in files)
        identity = digest("images", [self.channels, *self.size], labels, *contents)
        return Samples(labels, fetch, (self.channels, *self.size), UNIT, names, identity)


def _folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _files(folder: Path) -> list[Path]:
    """Image files below a class's folder, by their path. Raises DataError for a file of another kind."""
    known = suffixes()
    files = []
    for file in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).parts):
        if not file.is_file() or any(part.startswith(".") for part in file.relative_to(folder).parts):
            continue
        if file.suffix.lower() not in known:
            raise DataError(f"{file}: '{file.suffix}' is no kind of image that can be read", "Move it elsewhere")
        files.append(file)
    return files
