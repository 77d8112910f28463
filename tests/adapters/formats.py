"""Writers of the formats that the data sets read, in few plain lines: the independent side of the tests."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from bench.catalogue import CATALOGUE, Known, Remote


def idx_bytes(array: np.ndarray) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(path: Path, array: np.ndarray) -> Path:
    content = idx_bytes(array)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings, as CIFAR's batches have them."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_bytes(self, value: bytes) -> None:
        self.write(b"T" + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch[bytes] = save_bytes


def python2_pickle(value: object) -> bytes:
    out = io.BytesIO()
    Python2Pickler(out, protocol=2).dump(value)
    return out.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def write_archive(path: Path, folder: str, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_image(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def publish(monkeypatch: pytest.MonkeyPatch, name: str, members: dict[str, bytes]) -> Known:
    """Makes the catalogue expect these contents instead of the published ones."""
    known = CATALOGUE[name]
    checksums = {file: hashlib.md5(content).hexdigest() for file, content in members.items()}
    changed = Known(known.folder, known.files, known.about, checksums)
    monkeypatch.setitem(CATALOGUE, name, changed)
    return changed


def remote(name: str, content: bytes, *urls: str, unpacked: str = "") -> Remote:
    return Remote(name, len(content), hashlib.md5(content).hexdigest(), urls, unpacked)
