"""What is around every request: headers, figures, and errors in one shape."""

import errno
import logging
import time
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnection
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bench.errors import GauntletError, OperatorError, SuiteError, TrackingError
from bench.service.access import Access
from bench.service.bodies import TooMuch
from bench.service.door import address
from bench.service.figures import Figures
from bench.service.queue import Refused

log = logging.getLogger(__name__)

HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
}


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
CHANGES = ("POST", "PUT", "PATCH", "DELETE")
NOT_THEIRS = (403, 404)  # written down for those who only look, too


class Around:
    """Sets headers that are not set, writes changes and refusals down, answers what nobody expected, and counts
    requests by route, so that no user's text becomes a label."""

    def __init__(self, app: ASGIApp, figures: Figures, access: Access) -> None:
        self._app = app
        self._figures = figures
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, answered = time.perf_counter(), False

        async def told(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered, status = True, message["status"]
                given = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(item for item in HEADERS.items() if item[0] not in given)]
                route = getattr(scope.get("route"), "path", "none")
                self._figures.request(scope["method"], route, status, time.perf_counter() - began)
                await self._write_down(scope, status)
            await send(message)

        try:
            await self._app(scope, receive, told)
        except Exception:
            if answered:
                raise
            log.exception("a request met a bug", extra={"method": scope["method"], "path": scope["path"]})
            bug = _problem(500, "a bug of the service", "its log says more: tell whoever runs it")
            await bug(scope, receive, told)

    async def _write_down(self, scope: Scope, status: int) -> None:
        """In the audit log, before the answer goes out: every change, and what was refused to somebody who is known."""
        state, route = Request(scope).state, scope.get("route")
        me, changes = getattr(state, "me", None), scope["method"] in CHANGES
        if me is None or not (changes or status in NOT_THEIRS):
            return
        verb = getattr(route, "name", "") or scope["method"]
        if verb == "piece" and status < 400:
            return  # how much of an upload has come is no change of anything yet
        object_ = getattr(state, "object", None) or "/".join(map(str, scope.get("path_params", {}).values()))
        entry = (me, address(Request(scope)), verb, object_, status)
        try:
            await run_in_threadpool(self._access.audit, *entry)
        except SQLAlchemyError:
            about = {"owner": me.user, "verb": verb, "object": object_, "status": status}
            log.exception("the audit log cannot be written: this line stands for the entry", extra=about)


def explain(app: FastAPI) -> None:
    """Every expected error as a Problem (bench.service.shapes)."""

    @app.exception_handler(Refused)
    def refused(_: Request, problem: Refused) -> JSONResponse:
        headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "5"}}.get(problem.status, {})
        return _problem(problem.status, problem.message, problem.hint, headers=headers)

    @app.exception_handler(SuiteError)
    def suite(_: Request, problem: SuiteError) -> JSONResponse:
        mistakes = [str(mistake) for mistake in problem.mistakes]
        count = "a mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        return _problem(400, f"{count} in what was sent", problem.hint or "mend them all", mistakes)

    @app.exception_handler(GauntletError)
    def expected(_: Request, problem: GauntletError) -> JSONResponse:
        return _problem(400, problem.message, problem.hint)

    @app.exception_handler(RequestValidationError)
    def parameters(_: Request, problem: RequestValidationError) -> JSONResponse:
        mistakes = [f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in problem.errors()]
        return _problem(422, "a parameter is wrong", "/openapi.json says what they may be", mistakes)

    @app.exception_handler(HTTPException)
    def other(_: Request, problem: HTTPException) -> JSONResponse:
        hint = problem.hint if isinstance(problem, TooMuch) else "/openapi.json says what there is"
        return _problem(problem.status_code, str(problem.detail), hint, headers=problem.headers)

    @app.exception_handler(OSError)
    def full(_: Request, problem: OSError) -> JSONResponse:
        if problem.errno not in FULL:
            raise problem
        log.error("the disk takes no more", extra={"why": str(problem)})
        return _problem(503, "the service's disk takes no more", "tell whoever runs it", headers={"Retry-After": "60"})

    @app.exception_handler(DBAPIError)
    @app.exception_handler(NoConnection)
    @app.exception_handler(OperatorError)
    def away(_: Request, problem: Exception) -> JSONResponse:
        what = "MLflow" if isinstance(problem, TrackingError) else "the database or the store"
        return _problem(503, f"{what} is away", "try again in a moment", headers={"Retry-After": "5"})


def _problem(
    status: int, error: str, hint: str, mistakes: list[str] | None = None, headers: Any = None
) -> JSONResponse:
    return JSONResponse({"error": error, "hint": hint, "mistakes": mistakes or []}, status, headers=headers)
