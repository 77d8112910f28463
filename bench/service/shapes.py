"""What the face answers with: the shapes of its JSON, as OpenAPI tells them."""

import time
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from bench.models import Entry as Version
from bench.service import database, modules
from bench.service.queue import PRIORITIES

TEXT = {"type": "string"}
FORMS: dict[str, dict[str, str]] = {  # what a generated client makes of an answer
    "text/plain": TEXT, "text/html": TEXT, "text/event-stream": {}, "application/yaml": {}, "application/json": {},
    "application/vnd.apache.parquet": {**TEXT, "format": "binary"},
}  # fmt: skip
MODEL_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$"


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


class Link(Shape):
    """An address that opens one page without a token, for `seconds`."""

    url: str
    seconds: float


class NewUpload(BaseModel):
    """A file of weights that is about to be sent."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    file: Annotated[str, Field(pattern=MODEL_NAME)]
    """Its name, without a folder."""
    size: int = Field(ge=1, le=2**53, strict=True)
    """Bytes."""
    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """SHA-256, hexadecimal."""


class Upload(Shape):
    """A file of weights on its way in."""

    id: str
    owner: str
    file: str
    size: int
    digest: str
    state: str
    """`open` while bytes are missing, `ready` once it is complete and scanned, `registered` with a model."""
    received: int
    """Bytes that have come: the offset of the next piece."""
    kind: str | None
    """`safetensors`, `onnx` or `torch`."""
    model: str | None
    """`NAME/VERSION` that it became."""
    created: float


class Uploads(Shape):
    """Uploads, the latest first."""

    uploads: list[Upload]


class NewModel(BaseModel):
    """What an upload is to become."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    name: Annotated[str, Field(pattern=MODEL_NAME)]
    adapter: Annotated[str, Field(min_length=1, max_length=100)]
    """Its registered name (`gauntlet list adapters`)."""
    args: dict[str, Any] = {}
    """The adapter's arguments, without `weights`."""
    upload: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]


class Model(Shape):
    """A version of a registered model."""

    name: str
    version: int
    adapter: str
    """Empty for a model that something else than Gauntlet registered."""
    owner: str
    created: float


class Models(Shape):
    """Registered models, by name, the newest version first."""

    models: list[Model]


class NewModule(BaseModel):
    """An installed module that is to be registered."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    module: Annotated[str, Field(pattern=modules.NAME, max_length=modules.LONGEST)]
    """Its dotted name."""


class Module(Shape):
    """A module that was registered."""

    module: str
    brings: dict[str, list[str]]
    """Names of its plugins, by kind: `adapters`, `attacks`, `datasets`, `probes`, `detectors`, `certificates`."""
    digest: str
    """Of the package that it belongs to, as it was registered."""
    owner: str
    """Who registered it."""
    registered: float
    retired: float | None
    note: str
    """What keeps the machine of this face from using it; empty where nothing does."""


class Adapter(Shape):
    """An adapter that a suite may name."""

    name: str
    module: str
    about: str
    arguments: dict[str, Any]
    """A JSON schema of its `args:`, without those that name files."""


class Adapters(Shape):
    """Adapters by name, and the modules that were registered."""

    adapters: list[Adapter]
    modules: list[Module]


class Me(Shape):
    """Whose token this is."""

    user: str
    role: str
    scopes: list[str]
    seconds_today: float
    """Seconds of workers that the user's tasks have taken today (UTC)."""
    mlflow: str | None = None
    """Where MLflow's pages are, where the service knows."""
    ray: str | None = None
    """Where Ray's dashboard is, for administrators."""


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


def answers(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """Of a request that answers with something else than JSON of one shape: its media types, for OpenAPI."""
    return {200: {"content": {kind: {"schema": FORMS[kind]} for kind in kinds}}}


def columns(row: database.Base) -> dict[str, Any]:
    """A row of the database by the names of its columns."""
    return {column.key: getattr(row, column.key) for column in row.__table__.columns}


def model(entry: Version) -> Model:
    """A version in the registry, as the face tells it."""
    return Model(
        name=entry.name, version=entry.version, adapter=entry.adapter, owner=entry.owner,
        created=entry.created.timestamp(),
    )  # fmt: skip


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
        (503, "the database, the store or MLflow is away"),
    )
}
