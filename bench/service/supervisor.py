"""The small supervisor that keeps the service's processes alive, and those that it needs."""

import logging
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.service.server import SUPERVISED, on_signal

SLOWEST = 30.0  # seconds between two starts of what dies again and again
STEADY = 60.0  # seconds after which a process counts as well
GRACE = 40.0  # seconds that children have to end

log = logging.getLogger(__name__)


@dataclass
class Child:
    """A process that is started again when it dies, sooner or later. Its stdin ends when the supervisor does.

    log: a file for what it prints; None: where the supervisor's own goes.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    log: Path | None = None
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    due: float = 0.0
    deaths: int = 0

    def look(self, now: float) -> None:
        if self.process is not None:
            if self.process.poll() is None:
                return
            self.deaths = 1 if now - self.started > STEADY else self.deaths + 1
            wait = min(SLOWEST, 0.5 * 2.0 ** (self.deaths - 1))
            code, self.due = self.process.returncode, now + wait
            self._let_go()
            self.process = None
            log.warning("a process has died", extra={"child": self.name, "code": code, "again_in": wait})
        if now >= self.due:
            self.process, self.started = self._start(), now
            log.info("started", extra={"child": self.name, "pid": self.process.pid})

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def wait(self, until: float) -> None:
        if self.process is None:
            return
        try:
            self.process.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.warning("killed, since it did not end", extra={"child": self.name})
            self.process.kill()
            self.process.wait()
        self._let_go()

    def _let_go(self) -> None:
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()

    def _start(self) -> "subprocess.Popen[bytes]":
        environment = {**os.environ, **self.environment, SUPERVISED: "1"}
        if self.log is None:
            return subprocess.Popen(self.command, env=environment, stdin=subprocess.PIPE)
        with self.log.open("ab") as out:
            return subprocess.Popen(
                self.command, env=environment, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT
            )


def supervise(children: Sequence[Child], beneath: Sequence[Child] = ()) -> None:
    """Keep these processes alive until SIGTERM or SIGINT; then end them. beneath: those that the others need: they end
    last."""
    stop = threading.Event()
    on_signal(stop.set)
    try:
        while not stop.is_set():
            for child in (*beneath, *children):
                child.look(time.monotonic())
            stop.wait(0.2)
    finally:
        end(children)
        end(beneath)


def end(children: Sequence[Child]) -> None:
    """Ask all to end, and wait for them."""
    for child in children:
        child.stop()
    until = time.monotonic() + GRACE
    for child in children:
        child.wait(until)
