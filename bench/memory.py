"""How much host memory this process holds, and how much it held at the most."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.contracts import Loading

_PROCESS = Path("/proc/self")


@contextmanager
def loading() -> Iterator[Callable[[], Loading]]:
    """Around the loading of a model; call what it yields, afterwards, to know what that took."""
    told: list[Loading] = []
    begun = time.monotonic()
    with peak() as bytes_:
        yield lambda: told[0]
    told.append(Loading(time.monotonic() - begun, bytes_()))


@contextmanager
def peak() -> Iterator[Callable[[], int | None]]:
    """Around some work; what it yields tells, afterwards, the most bytes held above those at the beginning.

    The kernel's high-water mark is set back before (Linux: 5 to /proc/self/clear_refs); None where it cannot be.
    """
    told: list[int | None] = []
    before = _status("VmRSS") if _set_back() else None
    yield lambda: told[0]
    most = _status("VmHWM")
    told.append(None if before is None or most is None else max(0, most - before))


def _set_back() -> bool:
    try:
        (_PROCESS / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _status(key: str) -> int | None:
    """A line of /proc/self/status, in bytes."""
    try:
        lines = (_PROCESS / "status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{key}:")]
    return 1024 * int(found[0]) if found else None
