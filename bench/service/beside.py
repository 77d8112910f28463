"""A process beside the dispatcher's that makes leaderboards and tells MLflow (bench.service.reporter).

Seconds of processor time for each submission: in the dispatcher's own process it would keep workers waiting.
"""

import json
import logging
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from bench.errors import GauntletError, TrackingError
from bench.plugins import Source
from bench.run import Stopped

COMMAND = (sys.executable, "-m", "bench.service.reporter")
SECRETS = ("GAUNTLET_DATABASE", "RAY_AUTH_TOKEN")  # of the environment: it needs neither
TRIES = 2  # times that it may die over one thing: somebody else may have killed it
JOBS = 200  # then it is replaced: what libraries keep does not grow for ever
MEMORY = 2 << 30  # bytes; the same
GLANCE = 0.2  # seconds between two looks at whether it is still wanted

log = logging.getLogger(__name__)


class Reporter:
    """One thing at a time. It ends when this process does, however that ends; killed, it is started again."""

    def __init__(self, output: Path, uri: str | None = None, command: Sequence[str] = COMMAND) -> None:
        self._about = {"output": str(output), "uri": uri}
        self._command = command
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._done = 0

    def wake(self) -> None:
        """Start it, where there will be something to do: that takes seconds."""
        if self._turn.acquire(blocking=False):
            try:
                self._awake()
            finally:
                self._turn.release()

    def draw(self, submission: str, stop: Callable[[], bool], sources: Sequence[Source] = ()) -> None:
        """Write a submission's leaderboard. sources: installed modules that it needs, which are loaded first.

        Raises Stopped as soon as `stop` says so, and GauntletError.
        """
        self._ask({"verb": "draw", "submission": submission, "modules": _pinned(sources)}, stop)

    def publish(
        self, submission: str, owner: str, stop: Callable[[], bool], sources: Sequence[Source] = ()
    ) -> list[str]:
        """Log it to MLflow; returns what the user is told. Raises TrackingError, and the same."""
        given = {"verb": "publish", "submission": submission, "owner": owner, "modules": _pinned(sources)}
        return self._ask(given, stop)

    def close(self) -> None:
        with self._turn:
            self._end()

    # --- inside

    def _ask(self, given: dict[str, Any], stop: Callable[[], bool]) -> list[str]:
        with self._my_turn(stop):
            answer = self._answer(given, stop)
        kinds = {"tracking": TrackingError, "expected": GauntletError}
        if "error" in answer:
            raise kinds[answer["error"]](answer["message"], answer["hint"])
        return list(answer["told"])

    @contextmanager
    def _my_turn(self, stop: Callable[[], bool]) -> Iterator[None]:
        mine = False
        while not mine:
            if stop():
                raise _stopped()
            mine = self._turn.acquire(timeout=GLANCE)
        try:
            yield
        finally:
            self._turn.release()

    def _answer(self, given: dict[str, Any], stop: Callable[[], bool]) -> dict[str, Any]:
        line = (json.dumps({**self._about, **given}) + "\n").encode()
        for _ in range(TRIES):
            process = self._awake()
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # it has died: its stdout says so, too
                process.stdin.write(line)
                process.stdin.flush()
            if (answer := self._line(process, stop)).endswith(b"\n"):
                self._replace_a_large_one(process)
                return dict(json.loads(answer))
            self._end()
            about = {"submission": given["submission"], "code": process.returncode}
            log.warning("the process that makes leaderboards has died", extra=about)
        raise GauntletError(
            f"the process that makes leaderboards died {TRIES} times over this one (code {process.returncode})",
            "the records are kept: retry",
        )

    def _line(self, process: "subprocess.Popen[bytes]", stop: Callable[[], bool]) -> bytes:
        """Its answer, a line; less where it has died."""
        assert process.stdout is not None
        waiting = select.poll()  # select.select takes no more than 1,024 files
        waiting.register(process.stdout, select.POLLIN)
        while not waiting.poll(1000 * GLANCE):
            if stop():
                self._end()
                raise _stopped()
        return process.stdout.readline()

    def _awake(self) -> "subprocess.Popen[bytes]":
        if self._process is None or self._process.poll() is not None:
            self._end()
            around = {name: value for name, value in os.environ.items() if name not in SECRETS}
            pipe = subprocess.PIPE
            self._process, self._done = subprocess.Popen(self._command, env=around, stdin=pipe, stdout=pipe), 0
        return self._process

    def _replace_a_large_one(self, process: "subprocess.Popen[bytes]") -> None:
        self._done += 1
        with suppress(psutil.NoSuchProcess):
            taken = psutil.Process(process.pid).memory_info().rss
            if self._done >= JOBS or taken > MEMORY:
                log.info("the process that makes leaderboards is replaced", extra={"done": self._done, "bytes": taken})
                self._end()
                self._awake()

    def _end(self) -> None:
        """At once, whatever it is at: all that it does can be done again."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()
        self._process = None


def _pinned(sources: Sequence[Source]) -> list[tuple[str, str]]:
    return [(source.module, source.pinned) for source in sources]


def _stopped() -> Stopped:
    return Stopped("stopped before its leaderboard was made", "the records are kept")
