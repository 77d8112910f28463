"""Server-sent events: what happens to a submission, as it happens (WHATWG HTML, section 9.2)."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator

from starlette.concurrency import run_in_threadpool

from bench.service import shapes
from bench.service.database import ENDED
from bench.service.queue import PAGE, Queue, Refused

LOOK = 0.5  # seconds between two looks at the database
ALIVE = 15.0  # seconds between two signs of life, so that proxies keep the connection
MOST = 16  # streams of one user in this process


class Streams:
    """Follows submissions. The id of an event is where a client that lost its connection goes on."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._open: Counter[str] = Counter()

    def follow(self, user: str, submission: str, after: int) -> AsyncIterator[str]:
        """Raises Refused: 429."""
        if self._open[user] >= MOST:
            raise Refused(429, f"{MOST} streams of '{user}' are open", "close one")
        return self._follow(user, submission, after)

    async def _follow(self, user: str, submission: str, after: int) -> AsyncIterator[str]:
        self._open[user] += 1
        told, quiet = "", 0.0
        try:
            while True:
                row = await run_in_threadpool(self._queue.get, submission)
                events = await run_in_threadpool(self._queue.events, submission, after)
                for event in events:
                    after = event.id
                    yield _event(event.kind, json.dumps({"time": event.time, "text": event.text}), event.id)
                now = shapes.Submission.model_validate(row).model_dump_json()
                if now != told:
                    told, quiet = now, 0.0
                    yield _event("progress", now)
                if len(events) == PAGE:
                    continue
                if row.state in ENDED:
                    return
                quiet += LOOK
                if quiet >= ALIVE:
                    quiet = 0.0
                    yield ": still here\n\n"
                await asyncio.sleep(LOOK)
        finally:
            self._open[user] -= 1


def _event(kind: str, data: str, number: int | None = None) -> str:
    return (f"id: {number}\n" if number else "") + f"event: {kind}\ndata: {data}\n\n"
