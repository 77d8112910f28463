"""What a submission tells while it works, kept until the database is told."""

import threading
import time
from collections import deque
from collections.abc import Callable

LINES = 1000  # kept until they are fetched


class Watch:
    """A `bench.progress.Display` that prints nothing."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._lines: deque[str] = deque(maxlen=LINES)
        self._totals: dict[str, tuple[int, int]] = {}
        self._began = clock()
        self._at_start = 0
        self._told: tuple[int, int, int, float | None] | None = None
        self.failed = 0
        self.lacks = ""  # why it waits for a node
        self._lacked = ""  # what was told of that

    def waits(self, text: str) -> None:
        """It waits for a node, and why; nothing: it waits no more."""
        if text != self.lacks:
            self._lines.append(f"{text}: waits for one" if text else "there is a node for it: goes on")
        self.lacks = text

    def note(self, text: str) -> None:
        self._lines.append(text)

    def phase(self) -> None:
        with self._lock:
            self._began, self._at_start, self._totals = self._clock(), 0, {}

    def begin(self, label: str, total: int, done: int) -> None:
        with self._lock:
            self._totals[label] = (total, done)
            self._at_start += done

    def advance(self, label: str, done: int) -> None:
        with self._lock:
            if label in self._totals:  # news of a training may come when the next phase has begun
                self._totals[label] = (self._totals[label][0], done)

    def lacking(self) -> str | None:
        """Why it waits for a node, or that it does not; None where nothing has changed."""
        if self.lacks == self._lacked:
            return None
        self._lacked = self.lacks
        return self._lacked

    def lines(self) -> list[str]:
        """Lines since the last call."""
        return [self._lines.popleft() for _ in range(len(self._lines))]

    def figures(self) -> tuple[int, int, int, float | None] | None:
        """(done, failed, total, seconds until the end) of the present phase; None where nothing has changed."""
        with self._lock:
            done = sum(done for _, done in self._totals.values())
            total = sum(total for total, _ in self._totals.values())
            new = done - self._at_start
            eta = round((self._clock() - self._began) / new * (total - done), 1) if new > 0 else None
            found = (done, self.failed, total, eta)
            if self._told is not None and self._told[:3] == found[:3]:
                return None
            self._told = found
            return found
