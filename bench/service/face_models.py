"""The face's requests about weights and models: send a file in pieces, register what it is, list, retire."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request
from fastapi import Path as InPath
from starlette.concurrency import run_in_threadpool

from bench import models, tracking
from bench.service import intake, shapes
from bench.service.access import Identity, Verb
from bench.service.apart import apart
from bench.service.door import Door
from bench.service.modules import Modules
from bench.service.queue import PAGE, Refused
from bench.service.uploads import OPEN, READY, Uploads

Id = Annotated[str, InPath(pattern=r"^[0-9a-f]{32}$")]
Name = Annotated[str, InPath(pattern=shapes.MODEL_NAME)]
Version = Annotated[int, InPath(ge=1, le=2**31 - 1)]
Offset = Annotated[int, Query(ge=0, le=2**53)]
BINARY = {
    "required": True,
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
}
BUILDERS = 2  # models that one face builds at a time, to see whether they can be built


def scan(path: Path) -> str:
    """The kind of a file, found out in a process of its own. Raises Refused: 400."""
    return str(apart("scan", {"path": str(path)})["kind"])


def add_models(app: FastAPI, door: Door, uploads: Uploads, uri: str, known: Modules) -> None:
    """uri: the MLflow whose registry it is. known: modules whose adapters may build them."""
    Who = Annotated[Identity, Depends(door.who)]  # noqa: N806 - a type
    building, asking = asyncio.Semaphore(BUILDERS), threading.Lock()
    busy: set[str] = set()  # users for whom something is built, or waits for that

    @asynccontextmanager
    async def turn(user: str) -> AsyncIterator[None]:
        if user in busy:
            raise Refused(429, f"a file of '{user}' is being looked at", "one after the other")
        busy.add(user)
        try:
            async with building:
                yield
        finally:
            busy.discard(user)

    def told(upload: Any) -> shapes.Upload:
        return shapes.Upload.model_validate({**shapes.columns(upload), "received": uploads.received(upload)})

    @app.post("/v1/uploads", status_code=201, response_model=shapes.Upload)
    def upload(request: Request, me: Who, wanted: shapes.NewUpload) -> Any:
        """Announce a file of weights: safetensors, ONNX, or a torch file of plain tensors."""
        me.need(Verb.SUBMIT)
        made = uploads.begin(me.user, wanted.file, wanted.size, wanted.digest)
        request.state.object = made.id
        return told(made)

    @app.get("/v1/uploads", response_model=shapes.Uploads, name="uploads")
    def page(me: Who, limit: Annotated[int, Query(ge=1, le=PAGE)] = PAGE) -> Any:
        """Your uploads, the latest first; to maintainers everybody's."""
        me.need(Verb.SUBMIT)
        return {"uploads": [told(row) for row in uploads.page(me.owners, limit)]}

    @app.get("/v1/uploads/{id}", response_model=shapes.Upload)
    def show_upload(me: Who, id: Id) -> Any:
        """How much of it has come: a sender that was cut off goes on from there."""
        return told(me.handle(uploads.get(id)))

    @app.put("/v1/uploads/{id}", response_model=shapes.Upload, openapi_extra={"requestBody": BINARY})
    async def piece(request: Request, me: Who, id: Id, offset: Offset) -> Any:
        """The next bytes of the file, 4 MiB at the most; `offset` is how many have come before."""
        row = await run_in_threadpool(lambda: me.handle(uploads.get(id)))
        await run_in_threadpool(uploads.append, row, offset, await request.body())
        return await run_in_threadpool(told, row)

    @app.post("/v1/uploads/{id}/finish", response_model=shapes.Upload)
    async def finish(me: Who, id: Id) -> Any:
        """All bytes have come: they are held against the digest and scanned. What is refused is thrown away."""
        async with turn(me.user):
            return told(await run_in_threadpool(lambda: uploads.finish(me.handle(uploads.get(id)))))

    @app.delete("/v1/uploads/{id}", status_code=204)
    def discard(me: Who, id: Id) -> None:
        """Throw an upload away."""
        uploads.remove(me.handle(uploads.get(id)))

    def versions() -> list[models.Entry]:
        with asking:  # MLflow's client changes the warnings of the process while it is asked
            return models.list_models(uri)

    @app.get("/v1/models", response_model=shapes.Models, name="models")
    def list_models(me: Who) -> Any:
        """Every version of every registered model: what a suite may name under `registered:`."""
        me.need(Verb.READ)
        return {"models": [shapes.model(entry) for entry in versions()]}

    @app.post("/v1/models", status_code=201, response_model=shapes.Model)
    async def register(request: Request, me: Who, wanted: shapes.NewModel) -> Any:
        """Register an upload under a name: the adapter builds it once, in a process of its own, to see that it can."""

        def act() -> models.Entry:
            request.state.object = f"{wanted.name} of {wanted.upload}"
            me.need(Verb.REGISTER)
            needed = intake.accept_model(wanted.adapter, wanted.args, known.all())
            with uploads.alone(uploads.get(wanted.upload)) as row:
                if row.state == OPEN:
                    raise Refused(409, f"'{row.id}' is not finished", "its owner has to send the rest")
                if row.state != READY:
                    raise Refused(409, f"'{row.id}' is {row.model} already", "a model is registered once")
                given: dict[str, Any] = {
                    "path": str(uploads.path(row)),
                    "file": row.file,
                    "uri": uri,
                    "owner": row.owner,
                }
                given["modules"] = [(module.name, module.digest) for module in needed]
                made = apart("register", {**given, **wanted.model_dump(include={"name", "adapter", "args"})})
                uploads.registered(row, f"{wanted.name}/{made['version']}")
            request.state.object = f"{wanted.name}/{made['version']} of {wanted.upload}"
            return next(e for e in versions() if (e.name, e.version) == (wanted.name, made["version"]))

        async with turn(me.user):
            return shapes.model(await run_in_threadpool(act))

    @app.delete("/v1/models/{name}/{version}", status_code=204)
    def retire(me: Who, name: Name, version: Version) -> None:
        """Take a version out of the registry: suites cannot name it any more. What was measured stays."""
        me.need(Verb.REGISTER)
        if all((entry.name, entry.version) != (name, version) for entry in versions()):
            raise Refused(404, f"no registered model '{name}/{version}'", "`gauntlet models served` shows all")
        with asking:
            models.remove(f"{name}/{version}", uri)
        uploads.retired(f"{name}/{version}")


def registry_uri(output: Path, tracking_uri: str | None) -> str:
    """Where models are registered: the MLflow that the dispatcher looks them up in."""
    return tracking_uri or tracking.default_uri(output)
