"""What a run tells while it works, on stderr: bars on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

QUIET = 5.0  # seconds between two plain lines about the same thing


class Display(Protocol):
    """Somebody who wants to know how far a run is."""

    def note(self, text: str) -> None:
        """Something happened that is worth a line."""

    def phase(self) -> None:
        """What begins from now on is counted, and its end estimated, by itself: trainings, then measurements."""

    def begin(self, label: str, total: int, done: int) -> None:
        """A cell with so many tasks, some of them done already; or a training, in per cent."""

    def advance(self, label: str, done: int) -> None:
        """So many of its tasks have ended."""


class Bars:
    """A bar for all, and one for each model and evaluation that is at work."""

    def __init__(self, stream: TextIO) -> None:
        console = Console(file=stream)
        wide = console.width >= 70
        columns = [TextColumn("{task.description}"), BarColumn(bar_width=None if wide else 8), MofNCompleteColumn()]
        timing = [TimeElapsedColumn(), TextColumn("ETA"), TimeRemainingColumn()] if wide else [TimeRemainingColumn()]
        self._progress = Progress(*columns, *timing, console=console, transient=True)
        self._all = self._progress.add_task("everything", total=0)
        self._bars: dict[str, TaskID] = {}
        self._totals: dict[str, tuple[int, int]] = {}

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def note(self, text: str) -> None:
        self._progress.console.print(text, highlight=False, markup=False)

    def phase(self) -> None:
        for bar in self._bars.values():
            self._progress.remove_task(bar)
        self._bars, self._totals = {}, {}
        self._progress.reset(self._all, total=0)

    def begin(self, label: str, total: int, done: int) -> None:
        self._totals[label] = (total, done)
        if done < total:
            self._bars[label] = self._progress.add_task(label, total=total, completed=done, visible=False)
        self._refresh()

    def advance(self, label: str, done: int) -> None:
        total, _ = self._totals[label]
        self._totals[label] = (total, done)
        if label in self._bars:
            self._progress.update(self._bars[label], completed=done, visible=done < total)
        self._refresh()

    def _refresh(self) -> None:
        totals = [total for total, _ in self._totals.values()]
        self._progress.update(self._all, total=sum(totals), completed=sum(done for _, done in self._totals.values()))


class Lines:
    """A line when something begins, ends, or has gone on for a while: for logs and pipes."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._began = clock()
        self._spoke = clock()
        self._totals: dict[str, tuple[int, int]] = {}
        self._at_start = 0

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.flush()

    def note(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def phase(self) -> None:
        self._began, self._at_start, self._totals = self._clock(), 0, {}

    def begin(self, label: str, total: int, done: int) -> None:
        self._totals[label] = (total, done)
        self._at_start += done

    def advance(self, label: str, done: int) -> None:
        total, before = self._totals[label]
        if done == before:
            return
        self._totals[label] = (total, done)
        if done >= total or self._clock() - self._spoke > QUIET:
            self._spoke = self._clock()
            self.note(f"{label}: {done}/{total}{self._overall()}")

    def _overall(self) -> str:
        total = sum(total for total, _ in self._totals.values())
        done = sum(done for _, done in self._totals.values())
        new = done - self._at_start
        if not new or done >= total:
            return f" (all: {done}/{total})"
        eta = (self._clock() - self._began) / new * (total - done)
        return f" (all: {done}/{total}, ETA {eta:.0f} s)"


def display(stream: TextIO) -> Bars | Lines:
    """Bars where the stream is a terminal, lines otherwise."""
    return Bars(stream) if stream.isatty() else Lines(stream)


@contextmanager
def downloads(stream: TextIO) -> Iterator[Callable[[str, int, int], None]]:
    """A callback (file, bytes here, bytes in all) that draws a bar per file, or prints a line per file in a pipe."""
    if not stream.isatty():
        told: set[str] = set()

        def tell(file: str, done: int, total: int) -> None:
            if done >= total and file not in told:
                told.add(file)
                print(f"{file}: {total:,} bytes", file=stream, flush=True)

        yield tell
        return
    columns = [TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()]
    with Progress(*columns, console=Console(file=stream)) as bars:
        known: dict[str, TaskID] = {}

        def draw(file: str, done: int, total: int) -> None:
            if file not in known:
                known[file] = bars.add_task(file, total=total)
            bars.update(known[file], completed=done)

        yield draw
