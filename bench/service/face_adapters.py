"""The face's requests about adapters: what a suite may name, and modules that bring more of it."""

import asyncio
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from fastapi import Path as InPath
from starlette.concurrency import run_in_threadpool

from bench.contracts import REGISTRIES
from bench.service import modules, shapes
from bench.service.access import Identity, Verb
from bench.service.database import Module
from bench.service.door import Door
from bench.service.modules import Modules
from bench.service.offers import offer

Name = Annotated[str, InPath(pattern=modules.NAME, max_length=modules.LONGEST)]


def add_adapters(app: FastAPI, door: Door, known: Modules) -> None:
    """known: the modules of the service's database."""
    Who = Annotated[Identity, Depends(door.who)]  # noqa: N806 - a type
    looking = asyncio.Semaphore(1)  # one process apart at a time: it imports everything

    @app.get("/v1/adapters", response_model=shapes.Adapters, name="adapters")
    def list_adapters(me: Who) -> Any:
        """Every adapter that a suite may name, with its arguments, and the modules that were registered."""
        me.need(Verb.READ)
        rows = known.all()
        return {"adapters": _adapters(rows), "modules": [modules.as_json(row) for row in rows]}

    @app.post("/v1/adapters", status_code=201, response_model=shapes.Module)
    async def register_adapters(request: Request, me: Who, wanted: shapes.NewModule) -> Any:
        """Register an installed module, or register it anew: suites may name what it brings. For administrators."""
        request.state.object = wanted.module
        me.need(Verb.EXTEND)
        async with looking:
            found = await run_in_threadpool(modules.look, wanted.module)
        made = await run_in_threadpool(known.register, me.user, wanted.module, *found)
        return await run_in_threadpool(modules.as_json, made)

    @app.delete("/v1/adapters/{module}", status_code=204)
    def retire_adapters(me: Who, module: Name) -> None:
        """Take a module back: new suites cannot name what it brings. What was accepted goes on. For administrators."""
        me.need(Verb.EXTEND)
        known.retire(module)


def _adapters(rows: list[Module]) -> list[dict[str, Any]]:
    """By name. What is built in is told as it is here, what is registered as it was then."""
    registry, theirs = REGISTRIES["adapters"], {name for row in rows for name in row.brings.get("adapters", {})}
    found = {
        name: {"module": registry.get(name).__module__, **offer("adapters", name)}
        for name in registry
        if name not in theirs
    }
    for row in rows:
        if not row.retired:
            found |= {name: {"module": row.name, **told} for name, told in row.brings.get("adapters", {}).items()}
    return [{"name": name, **told} for name, told in sorted(found.items()) if not told["local"]]
