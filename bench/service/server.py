"""What a process of the service needs: log lines, signals, and uvicorn under the face."""

import asyncio
import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from bench.errors import OperatorError

HEADERS = 16 << 10  # bytes of a request's line and headers that have come without their end
IDLE = 15  # seconds without a request
SUPERVISED = "GAUNTLET_SUPERVISED"  # set for children: their stdin ends when the supervisor does

log = logging.getLogger(__name__)


class Prompt(H11Protocol):
    """A connection that is closed where no request has come, up to the end of its headers, IDLE seconds after it was
    made or its last answer went out. uvicorn's own clock begins after an answer and stops at the next byte: whoever
    sends nothing, or a byte now and then, would keep a connection for ever."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def data_received(self, data: bytes) -> None:
        self.conn.receive_data(data)
        self.handle_events()


class Lines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and whatever was given as `extra` (submission, owner)."""

    USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage(),
        }  # fmt: skip
        given = {name: value for name, value in vars(record).items() if name not in self.USUAL}
        line |= {name: value for name, value in given.items() if not name.startswith("_")}  # Ray adds some of its own
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log_lines() -> None:
    """Log to stderr as JSON lines."""
    handler = logging.StreamHandler()
    handler.setFormatter(Lines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)


class Server(uvicorn.Server):
    """Ends streams of events, which have no end of their own, before it waits for answers that are under way."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.config.app.state.end_streams()  # type: ignore[union-attr]
        await super().shutdown(sockets)


def serve(app: FastAPI, host: str, port: int) -> None:
    """Answer HTTP until SIGTERM. Raises OperatorError where the port is taken."""
    must_be_free(host, port, "--port")
    Server(configuration(app, host, port)).run()


def must_be_free(host: str, port: int, option: str, patience: float = 0.0) -> None:
    """Raises OperatorError where somebody else listens. option: what names another port. patience: seconds to wait."""
    until = time.monotonic() + patience
    while True:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
                return
            except OSError as problem:
                if time.monotonic() >= until:
                    told = f"cannot listen at {host}:{port}: {problem.strerror}"
                    raise OperatorError(told, f"{option} names another") from None
        time.sleep(0.2)


def configuration(app: FastAPI, host: str, port: int) -> uvicorn.Config:
    """HTTP/1.1 and nothing else, with limits."""
    return uvicorn.Config(
        app, host=host, port=port, h11_max_incomplete_event_size=HEADERS, http=Prompt, ws="none", lifespan="off",
        limit_concurrency=512, timeout_keep_alive=IDLE, timeout_graceful_shutdown=5, server_header=False,
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
    while os.read(0, 1024):  # not sys.stdin, whose lock Python needs to end
        pass
    os.kill(os.getpid(), signal.SIGTERM)
