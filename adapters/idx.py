"""IDX files, MNIST's format: MNIST, its like, and any other pair.

A big-endian header (two zero bytes, element type, number of dimensions, each dimension in 32 bits), then the values.
Source: the end of the page http://yann.lecun.com/exdb/mnist/.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from adapters.arrays import samples
from bench.catalogue import CATALOGUE
from bench.contracts import Dataset, Samples, dataset
from bench.data import data_root, locate, verify
from bench.errors import DataError

UNSIGNED_BYTE = 0x08
DIGITS = tuple(str(digit) for digit in range(10))


@dataset("idx")
class Idx(Dataset):
    """Any pair of IDX files of unsigned bytes, compressed with gzip or not.

    images: (n, height, width), (n, channels, height, width) or (n, values); a grey image gets its channel. Inputs are
    value / 255, float32. `{split}` in a path stands for the split; a path without it is the same file for every split.
    Paths are as given, or below the data folder. Without class_names the classes are 0 to the largest label.
    """

    images: Path
    labels: Path
    class_names: tuple[str, ...] = ()
    split: str = Field(default="test", pattern=r"^\w[\w.-]*$")

    def load(self) -> Samples:
        images, labels = (locate(str(path).replace("{split}", self.split)) for path in (self.images, self.labels))
        return _pair(images, _read(images), labels, _read(labels), self.class_names)


class _Published(Dataset):
    """A data set of the catalogue in MNIST's four files; each is verified by its checksum."""

    classes: ClassVar[tuple[str, ...]] = DIGITS

    split: Literal["train", "test"] = "test"

    def load(self) -> Samples:
        folder = data_root() / CATALOGUE[self.name].folder
        stem = "train" if self.split == "train" else "t10k"
        images, labels = (
            locate(folder / f"{file}.gz", folder / file, fetch=self.name)
            for file in (f"{stem}-images-idx3-ubyte", f"{stem}-labels-idx1-ubyte")
        )
        contents = []
        for path in (images, labels):
            content = _read(path)
            verify(self.name, path.name.removesuffix(".gz"), content, path)
            contents.append(content)
        return _pair(images, contents[0], labels, contents[1], self.classes)


@dataset("mnist")
class Mnist(_Published):
    """MNIST: 60,000 + 10,000 handwritten digits, (1, 28, 28), value / 255. LeCun, Cortes, Burges (1998)."""


@dataset("fashion_mnist")
class FashionMnist(_Published):
    """Fashion-MNIST: 60,000 + 10,000 pieces of clothing, (1, 28, 28), value / 255. Xiao, Rasul, Vollgraf (2017)."""

    classes: ClassVar[tuple[str, ...]] = (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    )


@dataset("notmnist")
class NotMnist(_Published):
    """notMNIST: 10,000 letters A to J of many fonts, (1, 28, 28), value / 255: outliers to MNIST. Bulatov (2011)."""

    splits: ClassVar[tuple[str, ...]] = ("test",)
    classes: ClassVar[tuple[str, ...]] = tuple("ABCDEFGHIJ")

    split: Literal["test"] = "test"


def _read(path: Path) -> bytes:
    """The file's bytes, decompressed if they begin as gzip does."""
    content = path.read_bytes()
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{path}: gzip stream is damaged or cut off: {error}", "Fetch or copy the file again"
        ) from error


def _pair(images: Path, image_bytes: bytes, labels: Path, label_bytes: bytes, class_names: tuple[str, ...]) -> Samples:
    pixels = _parse(image_bytes, images, (2, 3, 4))
    if pixels.ndim == 3:
        pixels = pixels[:, np.newaxis]
    where = f"{images} with {labels.name}"
    return samples(pixels, _parse(label_bytes, labels, (1,)), where, class_names=class_names)


def _parse(content: bytes, path: Path, dimensions: tuple[int, ...]) -> NDArray[Any]:
    wanted = " or ".join(f"0x0000{UNSIGNED_BYTE:02x}{count:02x}" for count in dimensions)
    zeros, element, count = struct.unpack(">HBB", content[:4]) if len(content) >= 4 else (1, 0, 0)
    if zeros != 0 or element != UNSIGNED_BYTE or count not in dimensions:
        raise DataError(
            f"{path}: begins with 0x{content[:4].hex()}, expected {wanted} (IDX, unsigned bytes)",
            "Are images and labels exchanged, or is this another format?",
        )
    start = 4 + 4 * count
    shape = struct.unpack(f">{count}I", content[4:start]) if len(content) >= start else ()
    expected = start + math.prod(shape) if shape else start
    if len(content) != expected:
        raise DataError(
            f"{path}: {len(content):,} bytes, expected {expected:,} for the shape {shape} in its header",
            "Fetch or copy the file again",
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)
