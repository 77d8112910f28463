"""Records on disk or on an object store, under the hash of what made them.

    <url>/records/ab/abcdef….parquet    the records of one task, by the task's key
    <url>/blobs/ab/abcdef…              weights, by the digest of their bytes
    <url>/trained/ab/abcdef….json       which weights a training made, by the training's key, and its curves
    <url>/checkpoints/ab/abcdef…        how far a training is that has not ended, by its key

Nothing but checkpoints is ever changed: a file is written beside its place, synced, and renamed into it (an object
store puts whole objects anyway), so a reader sees all of it or nothing. Writing the same thing twice is harmless. One
process writes: the driver; so no worker needs to see this place.
"""

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import fsspec
import pyarrow as pa

from bench.errors import StoreError
from bench.records import decode

RECORDS, BLOBS, TRAINED, CHECKPOINTS = "records", "blobs", "trained", "checkpoints"
_SUFFIX = {RECORDS: ".parquet", BLOBS: "", TRAINED: ".json", CHECKPOINTS: ""}


def digest(data: bytes) -> str:
    """blake2b of the bytes, 128 bits, as 32 hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


@dataclass(frozen=True)
class Damage:
    """A file that is not what its name says."""

    path: str
    problem: str


class Store:
    """Append-only, content-addressed files at an fsspec URL (a local path, `s3://bucket/prefix`, `memory://x`)."""

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            self._fs, self._root = fsspec.url_to_fs(url)
        except (ValueError, ImportError) as problem:
            raise StoreError(f"no store at '{url}': {problem}", "give a path, or a URL that fsspec knows") from None
        self._local = "file" in _protocols(self._fs)

    # --- records

    def has(self, key: str) -> bool:
        return bool(self._fs.exists(self._path(RECORDS, key)))

    def write(self, key: str, data: bytes) -> None:
        self._write(RECORDS, key, data)

    def read(self, key: str, columns: Sequence[str] | None = None) -> pa.Table:
        """The records of a task, or those of their columns that are asked for.

        Raises StoreError where there are none, or damaged ones.
        """
        data = self._read(RECORDS, key)
        if data is None:
            raise StoreError(f"no records of task {key} in {self.url}", "run the suite again: it makes what is missing")
        try:
            return decode(data, columns)
        except (pa.ArrowInvalid, OSError) as problem:
            raise StoreError(
                f"{self._path(RECORDS, key)}: damaged records ({problem})",
                "`gauntlet store verify --repair` removes them, and the next run makes them again",
            ) from None

    # --- weights

    def put_blob(self, data: bytes) -> str:
        """Keep bytes under their digest, which is returned."""
        key = digest(data)
        if not self._fs.exists(self._path(BLOBS, key)):
            self._write(BLOBS, key, data)
        return key

    def blob(self, key: str) -> bytes:
        """Bytes by their digest, which is checked. Raises StoreError."""
        data = self._read(BLOBS, key)
        if data is None or digest(data) != key:
            problem = "missing" if data is None else "damaged"
            raise StoreError(f"{self._path(BLOBS, key)}: {problem}", "`gauntlet store verify --repair`, then run again")
        return data

    def trained(self, key: str) -> str | None:
        """The digest of the weights that a training made, or None where it has not been done."""
        data = self._read(TRAINED, key)
        if data is None:
            return None
        weights = str(json.loads(data)["weights"])
        return weights if self._fs.exists(self._path(BLOBS, weights)) else None

    def set_trained(
        self, key: str, weights: str, seconds: float | None = None, curves: Mapping[str, Sequence[float]] | None = None
    ) -> None:
        """The training is done, its checkpoint goes. seconds: that it took; curves: a point an epoch, by figure."""
        made = {"weights": weights, "seconds": seconds, "curves": {name: list(c) for name, c in (curves or {}).items()}}
        self._write(TRAINED, key, json.dumps(made).encode())
        path = self._path(CHECKPOINTS, key)
        if self._fs.exists(path):
            self._fs.rm_file(path)

    def cost(self, key: str) -> tuple[float | None, int]:
        """What a training (or a fit) that is done took, and what it made: (seconds, bytes)."""
        made = json.loads(self._read(TRAINED, key) or b"{}")
        return made.get("seconds"), int(self._fs.size(self._path(BLOBS, made["weights"])))

    def curves(self, key: str) -> dict[str, list[float]]:
        """The curves of a training that is done: by name, a point an epoch. Empty where it told none."""
        return dict(json.loads(self._read(TRAINED, key) or b"{}").get("curves") or {})

    def set_checkpoint(self, key: str, state: bytes) -> None:
        """Keep how far a training is, in place of what was kept before."""
        self._write(CHECKPOINTS, key, digest(state).encode() + state)

    def checkpoint(self, key: str) -> bytes | None:
        """How far a training is; None where it has not begun, or has ended. Raises StoreError for a damaged one."""
        data = self._read(CHECKPOINTS, key)
        if data is None:
            return None
        if digest(data[32:]).encode() != data[:32]:
            raise StoreError(
                f"{self._path(CHECKPOINTS, key)}: damaged checkpoint",
                "`gauntlet store verify --repair` removes it, and the training starts anew",
            )
        return data[32:]

    # --- housekeeping

    def keys(self, kind: str) -> Iterator[str]:
        """Every key of a kind, in no order."""
        for path in self._files(kind):
            name = path.rpartition("/")[2]
            if not name.startswith("."):
                yield name.removesuffix(_SUFFIX[kind])

    def verify(self, *, repair: bool = False) -> list[Damage]:
        """Read everything back. With `repair`, what is damaged is removed, so that the next run makes it again."""
        damages = []
        checks: tuple[tuple[str, Callable[[str], object]], ...] = (
            (RECORDS, self.read),
            (BLOBS, self.blob),
            (CHECKPOINTS, self.checkpoint),
        )
        for kind, check in checks:
            for key in self.keys(kind):
                try:
                    check(key)
                except StoreError as problem:
                    damages.append(Damage(self._path(kind, key), problem.message))
                    if repair:
                        self._fs.rm_file(self._path(kind, key))
        return damages

    def collect(self, used: Iterable[str], *, dry_run: bool = False) -> list[str]:
        """Remove what has a key that is not in `used`, and half-written files. Returns the paths."""
        keep = set(used)
        doomed = [path for kind in _SUFFIX for path in self._files(kind) if _key(path, kind) not in keep]
        if not dry_run:
            for path in doomed:
                self._fs.rm_file(path)
        return doomed

    # --- files

    def _files(self, kind: str) -> list[str]:
        folder = f"{self._root}/{kind}"
        return list(self._fs.find(folder)) if self._fs.exists(folder) else []

    def _path(self, kind: str, key: str) -> str:
        return f"{self._root}/{kind}/{key[:2]}/{key}{_SUFFIX[kind]}"

    def _read(self, kind: str, key: str) -> bytes | None:
        try:
            return bytes(self._fs.cat_file(self._path(kind, key)))
        except FileNotFoundError:
            return None
        except OSError as problem:
            raise StoreError(f"{self._path(kind, key)}: cannot be read: {problem}") from None

    def _write(self, kind: str, key: str, data: bytes) -> None:
        path = self._path(kind, key)
        try:
            if self._local:
                write_atomically(Path(path), data)
            else:
                self._fs.pipe_file(path, data)
        except OSError as problem:
            raise StoreError(
                f"{path}: cannot be written: {problem}", "nothing is lost: mend it and run again"
            ) from None


def write_atomically(path: Path, data: bytes) -> None:
    """All of the file or nothing of it, whenever the process or the machine dies. Creates the folders above."""
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with _begun(beside) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
        raise


def _begun(path: Path) -> BinaryIO:
    """The folders are there but for the first file in them: to ask each time takes as long as to write."""
    try:
        return path.open("wb")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("wb")


def _key(path: str, kind: str) -> str:
    return path.rpartition("/")[2].removesuffix(_SUFFIX[kind])


def _protocols(fs: fsspec.AbstractFileSystem) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
