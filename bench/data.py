"""Where data lie: one folder for all; how its files are found, verified and fetched; which samples make a subset."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.catalogue import CATALOGUE, Known, Remote
from bench.download import MirrorError, Progress, download
from bench.errors import DataError, Mistake, SuiteError, did_you_mean
from bench.randomness import seed_of

ROOT = "GAUNTLET_DATA"  # the environment variable that names the folder


@dataclass(frozen=True)
class Entry:
    """A line of `gauntlet data list`. `missing` names the files that are absent, or not as long as published."""

    name: str
    about: str
    folder: Path
    size: int  # bytes to fetch, in all
    missing: tuple[str, ...]

    @property
    def present(self) -> bool:
        return not self.missing


def data_root() -> Path:
    """The folder of all data: $GAUNTLET_DATA, or ~/.cache/gauntlet/data. It need not exist."""
    return Path(os.environ.get(ROOT) or "~/.cache/gauntlet/data").expanduser().absolute()


def resolve(path: Path) -> Path:
    """The path as given if it is absolute or exists, else below the data root."""
    return path if path.is_absolute() or path.exists() else data_root() / path


def locate(*candidates: str | Path, fetch: str = "") -> Path:
    """The first candidate that exists, as given or below the data root.

    fetch: the name in the catalogue of the data set that it belongs to. Raises DataError that says where to put it.
    """
    places = [resolve(Path(candidate)) for candidate in candidates]
    for place in places:
        if place.exists():
            return place
    others = "".join(f", nor {place.name}" for place in places[1:])
    advice = f"lace it there, or name the folder of your data in {ROOT}"
    raise DataError(
        f"{fetch or 'data'}: no file {places[0]}{others}",
        f"`gauntlet data fetch {fetch}` downloads it; without a network, p{advice}" if fetch else f"P{advice}",
    )


def verify(name: str, file: str, content: bytes, where: Path) -> None:
    """Raises DataError unless `content` has the checksum that the catalogue knows for that file of data set `name`."""
    known = CATALOGUE[name].md5(file)
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if known != found:
        raise DataError(
            f"{name}: {where}: {file} is not the published one: MD5 {found}, expected {known or 'a known name'}",
            f"Move it away, then `gauntlet data fetch {name}`; read a changed copy as `idx` or `npz`",
        )


def catalogue() -> list[Entry]:
    """What is known, and what of it is present: by name and length, without reading it. Loading verifies checksums."""
    return [
        Entry(
            name,
            known.about,
            data_root() / known.folder,
            sum(file.size for file in known.files),
            tuple(file.name for file in known.files if not _present(data_root() / known.folder, file)),
        )
        for name, known in sorted(CATALOGUE.items())
    ]


def fetch(name: str, progress: Progress = lambda file, done, size: None) -> Path:
    """Downloads what is missing of a data set of the catalogue, and returns its folder.

    progress: called with (file name, bytes here, bytes in all). Mirrors are tried in turn; a broken download is
    resumed, now or by the next call (`NAME.part` lies in the folder); a file appears under its name only when its
    checksum is right. Raises SuiteError for an unknown name, DataError that names each file that could not be had,
    where to put it, and what each mirror answered.
    """
    if name not in CATALOGUE:
        hint = did_you_mean(name, CATALOGUE)
        raise SuiteError([Mistake("", "", f"no data set '{name}' to fetch{hint} (`gauntlet data list` shows all)")])
    known = CATALOGUE[name]
    folder = data_root() / known.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        answers = {file: _fetch(file, folder, progress) for file in known.files}
    except OSError as error:
        raise DataError(f"{name}: cannot write to {folder}: {error}", f"Name another folder in {ROOT}") from error
    failed = {file: answer for file, answer in answers.items() if answer}
    if failed:
        raise DataError(_not_fetched(name, known, folder, failed), "Then `gauntlet data list` shows it as present")
    return folder


def _fetch(file: Remote, folder: Path, progress: Progress) -> list[str]:
    """Downloads one file unless it is here. Returns what each mirror answered if none had it, else nothing."""
    target, part = folder / file.name, folder / f"{file.name}.part"
    if (file.unpacked and (folder / file.unpacked).exists()) or (target.exists() and _md5(target) == file.md5):
        progress(file.name, file.size, file.size)
        return []
    answers = []
    for url in file.urls:
        # once from where an earlier mirror or run broke off; if the pieces do not fit together, once from the start
        for _ in range(2 if part.exists() else 1):
            try:
                if not part.exists() or part.stat().st_size < file.size:
                    download(url, part, file.size, progress)
            except MirrorError as error:
                answers.append(f"{url}: {error}")
                break
            found = _md5(part)
            if found == file.md5:
                part.replace(target)
                return []
            part.unlink()
            answers.append(f"{url}: wrong content, MD5 {found}, expected {file.md5}")
    return answers


def _not_fetched(name: str, known: Known, folder: Path, failed: dict[Remote, list[str]]) -> str:
    lines = [f"{name}: {len(failed)} of {len(known.files)} files could not be fetched. Place them by hand:"]
    for file, answers in failed.items():
        lines += [f"  {folder / file.name} ({file.size:,} bytes, MD5 {file.md5})"]
        lines += [f"    {answer}" for answer in answers]
    return "\n".join(lines)


def _present(folder: Path, file: Remote) -> bool:
    target = folder / file.name
    return (target.exists() and target.stat().st_size == file.size) or bool(
        file.unpacked and (folder / file.unpacked).exists()
    )


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def subset(labels: ArrayLike, limit: int | None, stratified: bool, seed: int) -> NDArray[np.int64]:
    """Indices of `limit` samples, ascending; of all where limit is None or not below their number.

    labels: (n,) integers. Samples are ranked by a hash of (seed, index): no library's generator decides. Not
    stratified: the first `limit` of the ranking, so a smaller subset lies within a larger one. stratified: each class
    gets its share of `limit`, rounded by largest remainder (ties to the lower label), so it is within 1 of it.
    Raises ValueError for a negative limit.
    """
    classes = np.asarray(labels)
    n = len(classes)
    if limit is not None and limit < 0:
        raise ValueError(f"limit must not be negative, got {limit}")
    if limit is None or limit >= n:
        return np.arange(n, dtype=np.int64)
    ranking = np.array(sorted(range(n), key=lambda index: (seed_of(seed, "subset", index), index)), dtype=np.int64)
    if not stratified:
        return np.sort(ranking[:limit])
    members = [ranking[classes[ranking] == label] for label in np.unique(classes)]
    sizes = _shares([len(member) for member in members], limit)
    return np.sort(np.concatenate([member[:size] for member, size in zip(members, sizes, strict=True)]))


def _shares(counts: Sequence[int], limit: int) -> list[int]:
    """`limit` divided in proportion to the counts: whole numbers by largest remainder (Hamilton's method)."""
    total = sum(counts)
    shares = [limit * count // total for count in counts]
    by_remainder = sorted(range(len(counts)), key=lambda index: (-(limit * counts[index] % total), index))
    for index in by_remainder[: limit - sum(shares)]:
        shares[index] += 1
    return shares
