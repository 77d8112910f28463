"""One file over HTTP, resumed where it broke off. The only file that imports requests."""

import os
from collections.abc import Callable
from pathlib import Path

import requests

Progress = Callable[[str, int, int], None]  # file name, bytes that are here, bytes in all

CHUNK = 1 << 13  # bytes; what has come of a chunk when the connection breaks is lost
ATTEMPTS = 5  # connections to one mirror, as long as each brings new bytes
TIMEOUT = (10.0, 60.0)  # seconds to connect, seconds between two chunks


class MirrorError(Exception):
    """A mirror did not hand the file over; the text says why."""


def download(url: str, part: Path, size: int, progress: Progress) -> None:
    """Appends to `part` what it lacks of the `size` bytes behind `url`.

    A connection that breaks off is resumed by a Range request as long as each attempt brings new bytes; what has come
    stays in `part`, for the next mirror or the next run. Raises MirrorError; OSError where `part` cannot be written.
    """
    for attempt in range(ATTEMPTS):
        before = _size(part)
        try:
            _stream(url, part, size, progress)
        except requests.RequestException as error:
            if _size(part) == before or attempt == ATTEMPTS - 1:
                raise MirrorError(_reason(error)) from error
            continue
        if _size(part) >= size:
            return
        if _size(part) <= before:
            break
    raise MirrorError(f"ended after {_size(part):,} of {size:,} bytes")


def _stream(url: str, part: Path, size: int, progress: Progress) -> None:
    have = _size(part)
    # identity: a server that compresses on the way would make byte ranges meaningless
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        answer.raise_for_status()
        resumed = answer.status_code == requests.codes.partial_content
        if resumed and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            raise MirrorError(
                f"asked for bytes from {have} on, got {answer.headers.get('Content-Range', 'no range')!r}"
            )
        done = have if resumed else 0
        with part.open("ab" if resumed else "wb") as file:
            for chunk in answer.iter_content(CHUNK):
                done += file.write(chunk)
                if done > size:
                    raise MirrorError(f"more than the {size:,} bytes that were expected")
                progress(part.name.removesuffix(".part"), done, size)
            file.flush()
            os.fsync(file.fileno())


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: requests.RequestException) -> str:
    if error.response is not None:
        return f"HTTP {error.response.status_code} {error.response.reason}"
    return {
        requests.ConnectTimeout: "no connection in time",
        requests.ReadTimeout: "no answer in time",
        requests.ConnectionError: "no connection (is there a network?)",
    }.get(type(error), f"{type(error).__name__}: {error}")
