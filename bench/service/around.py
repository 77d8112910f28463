"""What is around every request: headers, figures, and errors in one shape."""

import time
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bench.errors import GauntletError, OperatorError, SuiteError, TrackingError
from bench.service.figures import Figures
from bench.service.queue import Refused

HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
}


class Around:
    """Sets headers that are not set, and counts requests by route, so that no user's text becomes a label."""

    def __init__(self, app: ASGIApp, figures: Figures) -> None:
        self._app = app
        self._figures = figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(item for item in HEADERS.items() if item[0] not in given)]
                route = getattr(scope.get("route"), "path", "none")
                self._figures.request(scope["method"], route, status, time.perf_counter() - began)
            await send(message)

        await self._app(scope, receive, told)


def explain(app: FastAPI) -> None:
    """Every expected error as a Problem (bench.service.shapes)."""

    @app.exception_handler(Refused)
    def refused(_: Request, problem: Refused) -> JSONResponse:
        headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "5"}}.get(problem.status, {})
        return _problem(problem.status, problem.message, problem.hint, headers=headers)

    @app.exception_handler(SuiteError)
    def suite(_: Request, problem: SuiteError) -> JSONResponse:
        mistakes = [str(mistake) for mistake in problem.mistakes]
        return _problem(400, f"{len(mistakes)} mistakes in the suite", problem.hint or "mend them all", mistakes)

    @app.exception_handler(GauntletError)
    def expected(_: Request, problem: GauntletError) -> JSONResponse:
        return _problem(400, problem.message, problem.hint)

    @app.exception_handler(RequestValidationError)
    def parameters(_: Request, problem: RequestValidationError) -> JSONResponse:
        mistakes = [f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in problem.errors()]
        return _problem(422, "a parameter is wrong", "/openapi.json says what they may be", mistakes)

    @app.exception_handler(HTTPException)
    def other(_: Request, problem: HTTPException) -> JSONResponse:
        return _problem(
            problem.status_code, str(problem.detail), "/openapi.json says what there is", headers=problem.headers
        )

    @app.exception_handler(DBAPIError)
    @app.exception_handler(OperatorError)
    def away(_: Request, problem: Exception) -> JSONResponse:
        what = "MLflow" if isinstance(problem, TrackingError) else "the database or the store"
        return _problem(503, f"{what} is away", "try again in a moment", headers={"Retry-After": "5"})


def _problem(
    status: int, error: str, hint: str, mistakes: list[str] | None = None, headers: Any = None
) -> JSONResponse:
    return JSONResponse({"error": error, "hint": hint, "mistakes": mistakes or []}, status, headers=headers)
