"""A thread that writes records, so that whoever hands out tasks never waits for a disk."""

import threading
from collections import deque
from collections.abc import Callable

MOST = 64  # things that are yet to be done
BYTES = 64 << 20  # that they hold, unless one alone holds more


class Writer:
    """Does what it is given, one thing after the other, from when it is entered until it is left: then all is done."""

    def __init__(self, most: int = MOST, most_bytes: int = BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._left: deque[tuple[Callable[[], None], int]] = deque()  # the first one is being done
        self._changed = threading.Condition()
        self._ending = False
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        self._thread.join()

    def do(self, act: Callable[[], None], size: int = 0) -> None:
        """As soon as what was given before is done; waits while too much is left. size: bytes that it holds.

        Raises what something has raised.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._has_room(size) or self._problem)
            if self._problem is not None:
                raise self._problem
            self._left.append((act, size))
            self._changed.notify_all()

    def wait(self, seconds: float | None = None) -> None:
        """Until nothing is left to do, or for so long."""
        with self._changed:
            self._changed.wait_for(lambda: not self._left, seconds)

    def _has_room(self, size: int) -> bool:
        held = sum(each for _, each in self._left)
        return not self._left or (len(self._left) < self._most and held + size <= self._most_bytes)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._left or self._ending)
                if not self._left:
                    return
                act, _ = self._left[0]
            try:
                act()
            except BaseException as problem:  # noqa: BLE001 - raised where the next thing is given
                self._problem = self._problem or problem
            with self._changed:
                self._left.popleft()
                self._changed.notify_all()
