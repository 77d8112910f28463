"""The face's requests about what came out of a submission: failures, leaderboard, records."""

import asyncio
import tempfile
from pathlib import Path
from typing import Annotated, Any

from fastapi import BackgroundTasks, Depends, FastAPI, Query
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool

from bench import results, runs
from bench.service import shapes
from bench.service.access import LINK, Identity
from bench.service.database import ENDED
from bench.service.door import Door
from bench.service.face_submissions import Id
from bench.service.queue import Queue, Refused

SANDBOX = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def add_results(app: FastAPI, door: Door, queue: Queue, output: Path, working: asyncio.Semaphore) -> None:
    """output: the dispatcher's folder. working: how many files of records are written at a time."""
    Who = Annotated[Identity, Depends(door.who)]  # noqa: N806 - types
    Visitor = Annotated[Identity, Depends(door.visitor)]  # noqa: N806

    def found_run(me: Identity, id: str, *, ended: bool = True) -> runs.Run:
        row = me.see(queue.get(id))
        if ended and row.state not in ENDED:
            raise Refused(409, f"'{id}' is {row.state}", "wait until it has ended")
        run = runs.Run(output, row.id)
        if not (run.folder / "status.json").is_file():
            raise Refused(404, f"'{id}' has not been run", row.message)
        return run

    @app.get("/v1/submissions/{id}/failures", response_model=list[dict[str, Any]])
    def failures(me: Who, id: Id) -> Any:
        """Each task that failed, with its reason and the details that its worker gave."""
        return [failure.model_dump(mode="json") for failure in found_run(me, id, ended=False).failures]

    @app.get(
        "/v1/submissions/{id}/leaderboard",
        response_class=FileResponse,
        responses=shapes.answers("text/html", "application/json"),
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
        "/v1/submissions/{id}/records",
        response_class=FileResponse,
        responses=shapes.answers("application/vnd.apache.parquet"),
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
