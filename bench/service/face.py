"""The HTTP face: who is it, may they, is it well formed; then the queue. It holds no state and does no work.

It may be killed at any moment: what it answered 202 to is in the database.
"""

import asyncio
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Response

from bench import __version__
from bench.service import intake, shapes
from bench.service.access import Access, Identity, Role, Verb
from bench.service.around import Around, explain
from bench.service.bodies import Bodies
from bench.service.database import Database
from bench.service.door import Door
from bench.service.face_adapters import add_adapters
from bench.service.face_models import add_models, registry_uri, scan
from bench.service.face_results import add_results
from bench.service.face_submissions import add_changes, add_events, add_submissions
from bench.service.figures import Figures
from bench.service.modules import Modules
from bench.service.page import add_page
from bench.service.queue import PAGE, Queue, Quotas
from bench.service.stream import Streams
from bench.service.traces import SILENT, Traces
from bench.service.uploads import PIECE, Uploads

WORKING = 4  # suites read and records written at a time: threads are left for what takes no time


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
    known, uploads = Modules(database), Uploads(database, output / "uploads", limits, scan)
    add_models(app, door, uploads, registry_uri(output, tracking_uri), known)
    add_adapters(app, door, known)
    add_page(app)
    add_submissions(app, door, queue, known, working, traces)
    add_changes(app, door, queue)
    add_events(app, door, queue, streams)
    add_results(app, door, queue, output, working)
    _add_the_rest(app, door, queue, figures, pages, ray_pages)
    return app


def _add_the_rest(
    app: FastAPI, door: Door, queue: Queue, figures: Figures, pages: str | None, ray_pages: str | None
) -> None:
    Who = Annotated[Identity, Depends(door.who)]  # noqa: N806 - a type

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

    @app.get("/metrics", response_class=Response, responses=shapes.answers("text/plain"))
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
