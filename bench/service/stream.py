"""Server-sent events: what happens to a submission, as it happens (WHATWG HTML, section 9.2)."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable

from starlette.concurrency import run_in_threadpool

from bench.service import shapes
from bench.service.database import ENDED
from bench.service.queue import PAGE, Queue, Refused

LOOK = 0.5  # seconds between two looks at the database
ALIVE = 15.0  # seconds between two signs of life, so that proxies keep the connection
ASK = 5.0  # seconds between two looks at the token, which may have expired or been revoked
MOST = 16  # streams of one user in this process
ALL = 256  # streams of all users, so that a face has connections left for everything else


class Streams:
    """Follows submissions. The id of an event is where a client that lost its connection goes on."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._open: Counter[str] = Counter()
        self._ending = False

    def end(self) -> None:
        """All of them, as soon as they look again: their readers go on elsewhere, or later."""
        self._ending = True

    def follow(self, user: str, submission: str, after: int, allowed: Callable[[], object]) -> AsyncIterator[str]:
        """allowed: raises Refused once the user may not see it any more, which ends the stream. Raises Refused: 429."""
        self._must_have_room(user)
        return self._follow(user, submission, after, allowed)

    def _must_have_room(self, user: str) -> None:
        if self._open[user] >= MOST:
            raise Refused(429, f"{MOST} streams of '{user}' are open", "close one")
        if self._open.total() >= ALL:
            raise Refused(429, f"{ALL} streams are open", "ask for the submission itself now and then")

    async def _follow(
        self, user: str, submission: str, after: int, allowed: Callable[[], object]
    ) -> AsyncIterator[str]:
        try:
            self._must_have_room(user)  # of those that were let in together only as many as there may be
        except Refused:
            return
        self._open[user] += 1
        told, quiet, asked = "", 0.0, time.monotonic()
        try:
            while not self._ending:
                if time.monotonic() - asked >= ASK:
                    try:
                        await run_in_threadpool(allowed)
                    except Refused:
                        return
                    asked = time.monotonic()
                try:
                    row = await run_in_threadpool(self._queue.get, submission)
                except Refused:  # it is kept no longer
                    return
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
            self._open -= Counter([user])


def _event(kind: str, data: str, number: int | None = None) -> str:
    return (f"id: {number}\n" if number else "") + f"event: {kind}\ndata: {data}\n\n"
