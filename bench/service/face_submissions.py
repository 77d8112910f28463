"""The face's requests about submissions: hand in, look, change, follow."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Query, Request, Response
from fastapi import Path as InPath
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from bench.service import intake, shapes
from bench.service.access import Identity, Verb
from bench.service.database import State
from bench.service.door import Door
from bench.service.modules import Modules
from bench.service.queue import PAGE, PRIORITIES, Queue
from bench.service.stream import Streams
from bench.service.traces import Traces

Id = Annotated[str, InPath(pattern=r"^[a-z0-9][a-z0-9_-]{0,95}$")]
Key = Annotated[str | None, Header(alias="Idempotency-Key", pattern=r"^[!-~]{1,128}$")]
Rank = Annotated[int, Query(ge=PRIORITIES[0], le=PRIORITIES[-1])]
SUITE = {
    "required": True,
    "content": {
        kind: {"schema": {"type": "string" if "yaml" in kind else "object"}}
        for kind in ("application/yaml", "application/json")
    },
}


def add_submissions(
    app: FastAPI, door: Door, queue: Queue, known: Modules, working: asyncio.Semaphore, traces: Traces
) -> None:
    """known: modules that suites may name beside what is built in. working: how many suites are read at a time."""
    Who = Annotated[Identity, Depends(door.who)]  # noqa: N806 - a type

    @app.post(
        "/v1/submissions", status_code=202, response_model=shapes.Submission, openapi_extra={"requestBody": SUITE}
    )
    async def submit(
        request: Request, response: Response, me: Who, key: Key = None, priority: Rank = 0, shared: bool = False
    ) -> Any:
        """Hand in a suite. The same Idempotency-Key gives the same submission, however often it is sent."""
        began = time.time()
        me.need(Verb.SUBMIT)
        content = await request.body()
        async with working:
            suite = await run_in_threadpool(lambda: intake.accept(content, known.all()))
        text = content.decode("utf-8-sig")
        enter = partial(queue.submit, key=key, priority=priority, shared=shared)
        made, _ = await run_in_threadpool(enter, me.user, suite.name, text)
        request.state.object = made.id
        traces.span((made.id, f"submit:{began}"), began, time.time(), {"gauntlet.owner": me.user})
        response.headers["Location"] = f"/v1/submissions/{made.id}"
        return made

    @app.get("/v1/submissions", response_model=shapes.Page)
    def submissions(
        me: Who,
        state: State | None = None,
        before: Annotated[float | None, Query(allow_inf_nan=False, ge=0, le=1e12)] = None,
        after: Annotated[str, Query(pattern=r"^[a-z0-9_-]{0,96}$")] = "",
        limit: Annotated[int, Query(ge=1, le=PAGE)] = PAGE,
    ) -> Any:
        """Submissions that you may see, the latest first. before, after: when the last one of the page before was
        created, and its id."""
        me.need(Verb.READ)
        return {"submissions": queue.page(me.owners, state=state, before=before, after=after, limit=limit)}

    @app.get("/v1/submissions/{id}", response_model=shapes.Submission)
    def show(me: Who, id: Id) -> Any:
        """How far it is."""
        return me.see(queue.get(id))

    @app.get("/v1/submissions/{id}/suite", response_class=Response, responses=shapes.answers("application/yaml"))
    def suite(me: Who, id: Id) -> Response:
        """The suite as it was handed in."""
        return Response(me.see(queue.get(id)).text, media_type="application/yaml")


def add_changes(app: FastAPI, door: Door, queue: Queue) -> None:
    """What the owner of a submission may do to it."""
    Who = Annotated[Identity, Depends(door.who)]  # noqa: N806 - a type

    def control(verb: str, act: Callable[[str], Any], about: str) -> None:
        def changed(me: Who, id: Id) -> Any:
            return act(me.control(queue.get(id)).id)

        changed.__doc__ = about
        place = f"/v1/submissions/{{id}}/{verb}"
        app.post(place, response_model=shapes.Submission, name=verb)(changed)

    control("cancel", queue.cancel, "Stop it for good. What was measured is kept.")
    control("pause", queue.pause, "Hand out no more of its tasks.")
    control("resume", queue.resume, "Go on with what was paused.")
    control("retry", queue.retry, "Try again what failed or was canceled; what was measured is not measured again.")

    @app.put("/v1/submissions/{id}/priority", response_model=shapes.Submission)
    def priority(me: Who, id: Id, wanted: shapes.Priority) -> Any:
        """Among your own submissions that wait, the one with the highest priority is next."""
        return queue.prioritise(me.control(queue.get(id)).id, wanted.priority)


def add_events(app: FastAPI, door: Door, queue: Queue, streams: Streams) -> None:
    """What happens to a submission, as it happens."""
    Who = Annotated[Identity, Depends(door.who)]  # noqa: N806 - a type

    @app.get(
        "/v1/submissions/{id}/events",
        response_class=StreamingResponse,
        responses=shapes.answers("text/event-stream"),
    )
    def events(
        me: Who,
        id: Id,
        after: Annotated[int | None, Header(alias="Last-Event-ID", ge=0, le=2**31 - 1)] = None,
    ) -> StreamingResponse:
        """Server-sent events until it ends: `state`, `note` and `progress` (a submission as JSON)."""
        me.see(queue.get(id))
        allowed = lambda: door.access.again(me).see(queue.get(id))  # noqa: E731
        told: AsyncIterator[str] = streams.follow(me.user, id, after or 0, allowed)
        return StreamingResponse(told, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
