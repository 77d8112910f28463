"""Processes: the face under uvicorn, the dispatcher, and the small supervisor that keeps both alive."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI

from bench.errors import OperatorError

HEADERS = 16 << 10  # bytes of a request's line and headers that have come without their end
SUPERVISED = "GAUNTLET_SUPERVISED"  # set for children: their stdin ends when the supervisor does
SLOWEST = 30.0  # seconds between two starts of what dies again and again
STEADY = 60.0  # seconds after which a process counts as well
GRACE = 40.0  # seconds that children have to end

log = logging.getLogger(__name__)


class Lines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and whatever was given as `extra` (submission, owner)."""

    USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage(),
        }  # fmt: skip
        line |= {name: value for name, value in vars(record).items() if name not in self.USUAL}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log_lines() -> None:
    """Log to stderr as JSON lines."""
    handler = logging.StreamHandler()
    handler.setFormatter(Lines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)


def serve(app: FastAPI, host: str, port: int) -> None:
    """Answer HTTP until SIGTERM. Raises OperatorError where the port is taken."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as problem:
            raise OperatorError(f"cannot listen at {host}:{port}: {problem.strerror}", "--port names another") from None
    uvicorn.Server(configuration(app, host, port)).run()


def configuration(app: FastAPI, host: str, port: int) -> uvicorn.Config:
    """HTTP/1.1 and nothing else, with limits."""
    return uvicorn.Config(
        app, host=host, port=port, h11_max_incomplete_event_size=HEADERS, http="h11", ws="none", lifespan="off",
        limit_concurrency=512, timeout_keep_alive=15, timeout_graceful_shutdown=5, server_header=False,
        proxy_headers=False, log_config=None, access_log=False,
    )  # fmt: skip


def on_signal(stop: Callable[[], None]) -> None:
    """Ask to stop on SIGTERM and SIGINT."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop())


def end_with_supervisor() -> None:
    """SIGTERM to oneself when the supervisor has gone, however it went."""
    if SUPERVISED in os.environ:
        threading.Thread(target=_wait_for_end, daemon=True).start()


def _wait_for_end() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


@dataclass
class Child:
    """A process that is started again when it dies, sooner or later."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
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
            code, self.process, self.due = self.process.returncode, None, now + wait
            log.warning("a process has died", extra={"child": self.name, "code": code, "again_in": wait})
        if now >= self.due:
            environment = {**os.environ, **self.environment, SUPERVISED: "1"}
            self.process = subprocess.Popen(self.command, env=environment, stdin=subprocess.PIPE)
            self.started = now
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


def supervise(children: Sequence[Child]) -> None:
    """Keep these processes alive until SIGTERM or SIGINT; then end them."""
    stop = threading.Event()
    on_signal(stop.set)
    try:
        while not stop.is_set():
            for child in children:
                child.look(time.monotonic())
            stop.wait(0.2)
    finally:
        for child in children:
            child.stop()
        until = time.monotonic() + GRACE
        for child in children:
            child.wait(until)
