"""What the face answers with: the shapes of its JSON, as OpenAPI tells them."""

import time
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from bench.service import database
from bench.service.queue import PRIORITIES


class Shape(BaseModel):
    """Read from a row of the database."""

    model_config = ConfigDict(from_attributes=True, use_attribute_docstrings=True)


class Problem(Shape):
    """Every answer of 400 and above."""

    error: str
    hint: str = ""
    """What to do next."""
    mistakes: list[str] = []
    """All that is wrong in a suite: `suite:LINE:COLUMN: key: message` each."""


class Submission(Shape):
    """A submission and how far it is. Times are seconds since 1970 in UTC."""

    id: str
    owner: str
    name: str
    state: database.State
    wish: str | None
    """`pause` or `cancel` where the dispatcher has yet to do it."""
    priority: int
    shared: bool
    created: float
    started: float | None
    ended: float | None
    done: int
    """Tasks that have ended, in the present phase; trainings count in per cent."""
    failed: int
    total: int
    eta: float | None
    """Seconds until the present phase ends, as it has gone so far."""
    message: str
    """Why it failed."""


class Page(Shape):
    """Submissions, the latest first."""

    submissions: list[Submission]


class Priority(BaseModel):
    """Of a user's own submissions among each other: highest first."""

    model_config = ConfigDict(extra="forbid")
    priority: int = Field(ge=PRIORITIES[0], le=PRIORITIES[-1], strict=True)


class Me(Shape):
    """Whose token this is."""

    user: str
    role: str
    scopes: list[str]
    seconds_today: float
    """Seconds of workers that the user's tasks have taken today (UTC)."""


class Entry(Shape):
    """A line of the audit log."""

    id: int
    time: float
    owner: str | None
    token: str | None
    address: str
    verb: str
    object: str
    status: int


class Log(Shape):
    """The audit log, the latest first."""

    entries: list[Entry]


class Health(Shape):
    """`status` is `ok`; readiness also says whether a dispatcher is at work."""

    status: str
    dispatcher: str | None = None


def iso(seconds: float | None) -> str:
    """`2026-11-21T13:22:18Z`, or nothing."""
    return "" if seconds is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text}
    for status, text in (
        (400, "the suite or a parameter is wrong"),
        (401, "no token, or one that is not good"),
        (403, "not allowed"),
        (404, "there is no such thing, or it is none of your business"),
        (408, "the body did not come in time"),
        (409, "not in this state"),
        (413, "too large"),
        (422, "a parameter is wrong"),
        (429, "too many requests, or a quota is full"),
        (503, "the database is away"),
    )
}
