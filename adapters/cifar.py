"""CIFAR-10 and CIFAR-100 in their Python form: pickles, read by an unpickler that knows nothing but arrays.

A batch is a dictionary: `data` (n, 3072) uint8, red, green and blue planes of 32×32, and a list of labels. Source:
https://www.cs.toronto.edu/~kriz/cifar.html; Krizhevsky, "Learning multiple layers of features from tiny images" (2009).
"""

import io
import pickle
import tarfile
import zlib
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from adapters.arrays import samples
from adapters.npz import read_npz
from bench.catalogue import CATALOGUE
from bench.contracts import Dataset, Samples, dataset
from bench.data import data_root, locate, verify
from bench.errors import DataError

# numpy's own function to rebuild an array, by the module names it had when the batches were written, and has now
REBUILD = np.empty(0).__reduce__()[0]
ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): REBUILD,
    ("numpy._core.multiarray", "_reconstruct"): REBUILD,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataset("cifar10")
class Cifar10(Dataset):
    """CIFAR-10: 50,000 + 10,000 photographs of ten kinds of things, (3, 32, 32), value / 255.

    Read from `cifar10/` in the data folder: the archive, or its unpacked folder, with each batch verified by its
    checksum; or `<split>.npz` (x: uint8, NHWC; y), which has no published checksum. The split train_10k is the first
    10,000 training images, kept as `train_10k.npz` only.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "test", "train_10k")

    split: Literal["train", "test", "train_10k"] = "test"

    def load(self) -> Samples:
        folder = data_root() / CATALOGUE["cifar10"].folder
        packed = folder / f"{self.split}.npz"
        if self.split == "train_10k":
            packed = locate(packed)
        else:
            archive = CATALOGUE["cifar10"].files[0]
            source = locate(folder / archive.unpacked, folder / archive.name, packed, fetch="cifar10")
            if source != packed:
                batches = (
                    [f"data_batch_{number}" for number in range(1, 6)] if self.split == "train" else ["test_batch"]
                )
                return _samples("cifar10", source, batches, b"labels", CIFAR10)
        images, labels = read_npz(packed, "x", "y")
        _check_images(images, (32, 32, 3), packed)
        return samples(np.moveaxis(images, -1, 1), labels, str(packed), class_names=CIFAR10)


@dataset("cifar100")
class Cifar100(Dataset):
    """CIFAR-100: 50,000 + 10,000 photographs of a hundred kinds of things, (3, 32, 32), value / 255, fine labels.

    Read from `cifar100/` in the data folder: the archive, or its unpacked folder, each file verified by its checksum.
    """

    split: Literal["train", "test"] = "test"

    def load(self) -> Samples:
        folder = data_root() / CATALOGUE["cifar100"].folder
        archive = CATALOGUE["cifar100"].files[0]
        source = locate(folder / archive.unpacked, folder / archive.name, fetch="cifar100")
        meta = _unpickle(_members("cifar100", source, ["meta"])["meta"], source / "meta")
        names = tuple(name.decode() for name in _entry(meta, b"fine_label_names", source / "meta"))
        return _samples("cifar100", source, [self.split], b"fine_labels", names)


def _samples(name: str, source: Path, batches: list[str], key: bytes, class_names: tuple[str, ...]) -> Samples:
    images, labels = [], []
    contents = _members(name, source, batches)
    for batch in batches:
        where = source / batch
        content = _unpickle(contents[batch], where)
        rows = _entry(content, b"data", where)
        _check_images(rows, (3072,), where)
        images.append(rows.reshape(-1, 3, 32, 32))
        labels.append(np.asarray(_entry(content, key, where)))
    return samples(np.concatenate(images), np.concatenate(labels), str(source), class_names=class_names)


def _members(name: str, source: Path, wanted: list[str]) -> dict[str, bytes]:
    """The verified bytes of files in the folder or the archive `source`. Nothing is written to disk."""
    contents = {}
    if source.is_dir():
        contents = {file: locate(source / file, fetch=name).read_bytes() for file in wanted}
    else:
        try:
            with tarfile.open(source, "r|*") as archive:
                for member in archive:
                    stream = archive.extractfile(member)
                    if stream is not None and Path(member.name).name in wanted:
                        contents[Path(member.name).name] = stream.read()
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            raise DataError(
                f"{source}: archive is damaged or cut off: {error}", f"`gauntlet data fetch {name}` completes it"
            ) from error
    for file in wanted:
        if file not in contents:
            raise DataError(f"{source}: holds no {file}", f"Move it away, then `gauntlet data fetch {name}`")
        verify(name, file, contents[file], source)
    return contents


class _ArrayUnpickler(pickle.Unpickler):
    """Builds numbers, strings, lists, dictionaries and numpy arrays; whatever else a pickle names is refused."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which an array does not need") from None


def _unpickle(content: bytes, where: Path) -> Any:
    try:
        return _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle raises almost anything
        raise DataError(f"{where}: not a batch of CIFAR: {error}", "Fetch or copy the file again") from error


def _entry(content: Any, key: bytes, where: Path) -> Any:
    if not isinstance(content, dict) or key not in content:
        found = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise DataError(f"{where}: no entry {key!r}, found {found}", "Is this the other one of CIFAR-10 and CIFAR-100?")
    return content[key]


def _check_images(images: NDArray[Any], shape: tuple[int, ...], where: Path) -> None:
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != shape:
        found = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise DataError(f"{where}: images must be uint8 of shape (n, {', '.join(map(str, shape))}), found {found}")
