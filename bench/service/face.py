"""The HTTP face: who is it, may they, is it well formed; then the queue. It holds no state and does no work.

It may be killed at any moment: what it answered 202 to is in the database.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import BackgroundTasks, Depends, FastAPI, Header, Query, Request, Response
from fastapi import Path as InPath
from fastapi.responses import FileResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from bench import __version__, results, runs
from bench.service import intake, shapes
from bench.service.access import LINK, Access, Identity, Role, Verb
from bench.service.around import Around, explain
from bench.service.bodies import Bodies
from bench.service.database import ENDED, Database, State
from bench.service.door import Door
from bench.service.face_models import add_models, registry_uri, scan
from bench.service.figures import Figures
from bench.service.page import add_page
from bench.service.queue import PAGE, PRIORITIES, Queue, Quotas, Refused
from bench.service.stream import Streams
from bench.service.traces import SILENT, Traces
from bench.service.uploads import PIECE, Uploads

SANDBOX = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

WORKING = 4  # suites read and records written at a time: threads are left for what takes no time

Id = Annotated[str, InPath(pattern=r"^[a-z0-9][a-z0-9_-]{0,95}$")]
Key = Annotated[str | None, Header(alias="Idempotency-Key", pattern=r"^[!-~]{1,128}$")]
Rank = Annotated[int, Query(ge=PRIORITIES[0], le=PRIORITIES[-1])]
TEXT = {"type": "string"}
FORMS: dict[str, dict[str, str]] = {  # what a generated client makes of an answer
    "text/plain": TEXT, "text/html": TEXT, "text/event-stream": {}, "application/yaml": {}, "application/json": {},
    "application/vnd.apache.parquet": {**TEXT, "format": "binary"},
}  # fmt: skip
SUITE = {
    "required": True,
    "content": {
        kind: {"schema": {"type": "string" if "yaml" in kind else "object"}}
        for kind in ("application/yaml", "application/json")
    },
}


def face(
    database: Database,
    output: Path,
    quotas: Quotas | None = None,
    rate: float = 20.0,
    tracking_uri: str | None = None,
    pages: str | None = None,
    traces: Traces = SILENT,
    ray_pages: str | None = None,
) -> FastAPI:
    """The application. output: the dispatcher's folder. rate: requests per second of one user. tracking_uri: the
    MLflow in which models are registered. pages: the address at which users see MLflow's pages; ray_pages: at which
    administrators see Ray's."""
    app = FastAPI(
        title="Gauntlet", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False,
        responses=shapes.PROBLEMS,
        description="Submit suites, watch them, fetch what came out. Every request bears a token.",
        generate_unique_id_function=lambda route: route.name,  # what a generated client calls its functions
    )  # fmt: skip
    limits = quotas or Quotas()
    queue, door = Queue(database, limits), Door(Access(database), rate)
    figures, streams, working = Figures(database), Streams(queue), asyncio.Semaphore(WORKING)
    app.state.end_streams = streams.end
    app.add_middleware(Bodies, most=intake.MAX_BYTES, pieces=PIECE)
    app.add_middleware(Around, figures=figures, access=door.access)
    explain(app)
    add_models(app, door, Uploads(database, output / "uploads", limits, scan), registry_uri(output, tracking_uri))
    add_page(app)

    Who = Annotated[Identity, Depends(door.who)]  # noqa: N806 - types
    Visitor = Annotated[Identity, Depends(door.visitor)]  # noqa: N806

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
            suite = await run_in_threadpool(intake.accept, content)
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

    @app.get("/v1/submissions/{id}/suite", response_class=Response, responses=_kind("application/yaml"))
    def suite(me: Who, id: Id) -> Response:
        """The suite as it was handed in."""
        return Response(me.see(queue.get(id)).text, media_type="application/yaml")

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

    @app.get("/v1/submissions/{id}/events", response_class=StreamingResponse, responses=_kind("text/event-stream"))
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

    @app.get("/v1/submissions/{id}/failures", response_model=list[dict[str, Any]])
    def failures(me: Who, id: Id) -> Any:
        """Each task that failed, with its reason and the details that its worker gave."""
        return [failure.model_dump(mode="json") for failure in found_run(me, id, ended=False).failures]

    @app.get(
        "/v1/submissions/{id}/leaderboard",
        response_class=FileResponse,
        responses=_kind("text/html", "application/json"),
    )
    def leaderboard(me: Visitor, id: Id, form: Annotated[str, Query(pattern="^(html|json)$")] = "html") -> FileResponse:
        """The leaderboard of a submission that has ended. key: of a link, in the place of a token."""
        path = found_run(me, id).reports / f"leaderboard.{form}"
        if not path.is_file():
            raise Refused(404, f"'{id}' has no leaderboard", "it failed, or was canceled")
        kind = "text/html" if form == "html" else "application/json"
        return FileResponse(path, media_type=kind, headers={"Content-Security-Policy": SANDBOX})

    @app.post("/v1/submissions/{id}/link", response_model=shapes.Link)
    def link(me: Who, id: Id) -> Any:
        """A link to the leaderboard's page that a browser can follow, for a minute and without a token."""
        place = f"/v1/submissions/{me.see(queue.get(id)).id}/leaderboard"
        return {"url": f"{place}?key={door.access.link(me, place)}", "seconds": LINK}

    @app.get(
        "/v1/submissions/{id}/records", response_class=FileResponse, responses=_kind("application/vnd.apache.parquet")
    )
    async def records(me: Who, id: Id, later: BackgroundTasks) -> FileResponse:
        """One row per sample and evaluation, as Parquet: the very bytes that `gauntlet records` writes."""
        run = await run_in_threadpool(found_run, me, id)
        with tempfile.NamedTemporaryFile(suffix=".parquet", delete=False) as file:
            path = Path(file.name)
        later.add_task(path.unlink)
        try:
            async with working:
                await run_in_threadpool(results.export, run, path)
        except BaseException:
            path.unlink()
            raise
        return FileResponse(
            path, media_type="application/vnd.apache.parquet", filename=f"{id}.parquet", background=later
        )

    def found_run(me: Identity, id: str, *, ended: bool = True) -> runs.Run:
        row = me.see(queue.get(id))
        if ended and row.state not in ENDED:
            raise Refused(409, f"'{id}' is {row.state}", "wait until it has ended")
        run = runs.Run(output, row.id)
        if not (run.folder / "status.json").is_file():
            raise Refused(404, f"'{id}' has not been run", row.message)
        return run

    @app.get("/v1/me", response_model=shapes.Me, name="me")
    def me_(me: Annotated[Identity, Depends(door.asked)]) -> Any:
        """Whose token this is, and what it is good for. need: 403 where it is not good for that."""
        return {
            "user": me.user, "role": me.role, "scopes": sorted(me.scopes), "seconds_today": queue.usage(me.user),
            "mlflow": pages, "ray": ray_pages if me.role == Role.ADMIN else None,
        }  # fmt: skip

    @app.get("/v1/audit", response_model=shapes.Log)
    def audit(
        me: Who,
        limit: Annotated[int, Query(ge=1, le=1000)] = PAGE,
        before: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None,
    ) -> Any:
        """Who changed what, or was not let in. For administrators."""
        me.need(Verb.AUDIT)
        return {"entries": door.access.audited(limit, before)}

    @app.get("/metrics", response_class=Response, responses=_kind("text/plain"))
    def metrics(me: Who) -> Response:
        """Figures for Prometheus. They need a token, too."""
        me.need(Verb.READ)
        return Response(figures.text(), media_type="text/plain; version=0.0.4")

    @app.get("/health", response_model=shapes.Health)
    def health() -> Any:
        """This process answers."""
        return {"status": "ok"}

    @app.get("/ready", response_model=shapes.Health)
    def ready() -> Any:
        """The database answers; says whether a dispatcher holds the lease."""
        return {"status": "ok", "dispatcher": "at work" if figures.lease() > 0 else "away"}

    return app


def _kind(*kinds: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {kind: {"schema": FORMS[kind]} for kind in kinds}}}
