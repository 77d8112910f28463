"""The database of the service: its tables, and transactions on SQLite or PostgreSQL.

Times are seconds since 1970 in UTC. The schema is made and changed by Alembic alone (bench/service/migrations).
"""

import contextlib
import threading
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    JSON,
    BigInteger,
    Engine,
    ForeignKey,
    Index,
    String,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    make_url,
)
from sqlalchemy.exc import ArgumentError, InterfaceError, NoSuchModuleError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from bench.errors import OperatorError

MIGRATIONS = Path(__file__).parent / "migrations"
KEPT = 20  # connections of a process, and so many more for a moment: the face answers forty requests at once
REACHED = 5  # seconds until a PostgreSQL has taken a connection
BUSY = 30.0  # seconds that a transaction waits for another one on SQLite
AWAY = (OperationalError, InterfaceError)  # what it raises that is away, or busy; any other refusal is a bug


Brings = dict[str, dict[str, Any]]  # what a module registers: kind, name, and what bench.service.offers says of it


class State(StrEnum):
    """What has become of a submission."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETE = "complete"
    INCOMPLETE = "incomplete"  # it ended, and some of its tasks failed
    FAILED = "failed"  # it could not be run at all
    CANCELED = "canceled"


ENDED = (State.COMPLETE, State.INCOMPLETE, State.FAILED, State.CANCELED)


class Base(DeclarativeBase):
    """All tables."""


class User(Base):
    """Somebody with a role. Users are made with their first token."""

    __tablename__ = "users"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    role: Mapped[str] = mapped_column(String(16))
    created: Mapped[float]
    ahead: Mapped[float] = mapped_column(default=0.0, server_default="0")  # seconds: bench.service.fair's clocks


class Token(Base):
    """What a user shows. Only the SHA-256 of its 256 random bits is kept."""

    __tablename__ = "tokens"
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64))
    owner: Mapped[str] = mapped_column(ForeignKey("users.name"), index=True)
    scopes: Mapped[list[str]] = mapped_column(JSON)
    note: Mapped[str] = mapped_column(String(200), default="")
    created: Mapped[float]
    expires: Mapped[float]
    revoked: Mapped[float | None]


class Submission(Base):
    """A suite that somebody handed in, and how far it is."""

    __tablename__ = "submissions"
    __table_args__ = (UniqueConstraint("owner", "idempotency_key"), Index("ix_submissions_state", "state", "owner"))
    id: Mapped[str] = mapped_column(String(96), primary_key=True)
    owner: Mapped[str] = mapped_column(ForeignKey("users.name"), index=True)
    name: Mapped[str] = mapped_column(String(64))
    text: Mapped[str] = mapped_column(Text)
    digest: Mapped[str] = mapped_column(String(32))  # of the text: what an idempotency key is held against
    idempotency_key: Mapped[str | None] = mapped_column(String(128))
    state: Mapped[str] = mapped_column(String(16))
    wish: Mapped[str | None] = mapped_column(String(16))  # `pause` or `cancel`, until the dispatcher has done it
    priority: Mapped[int] = mapped_column(default=0)
    shared: Mapped[bool] = mapped_column(default=False)  # whether everybody who may read may read it
    created: Mapped[float]
    queued: Mapped[float]  # when it last began to wait: it ages from here
    started: Mapped[float | None]
    ended: Mapped[float | None]
    done: Mapped[int] = mapped_column(default=0)  # tasks that have ended, and of these those that failed
    failed: Mapped[int] = mapped_column(default=0)
    total: Mapped[int] = mapped_column(default=0)
    eta: Mapped[float | None]  # seconds
    message: Mapped[str] = mapped_column(Text, default="")


class Attempt(Base):
    """A time that a dispatcher took up a submission. One without an end was cut short."""

    __tablename__ = "attempts"
    id: Mapped[int] = mapped_column(primary_key=True)
    submission: Mapped[str] = mapped_column(ForeignKey("submissions.id"), index=True)
    epoch: Mapped[int]  # of the dispatcher's lease
    began: Mapped[float]
    ended: Mapped[float | None]
    outcome: Mapped[str | None] = mapped_column(String(16))


class Event(Base):
    """Something that happened to a submission and is worth a line."""

    __tablename__ = "events"
    id: Mapped[int] = mapped_column(primary_key=True)
    submission: Mapped[str] = mapped_column(ForeignKey("submissions.id"), index=True)
    time: Mapped[float]
    kind: Mapped[str] = mapped_column(String(16))  # state or note
    text: Mapped[str] = mapped_column(Text)


class Outbox(Base):
    """A submission whose results have yet to be told to MLflow."""

    __tablename__ = "outbox"
    submission: Mapped[str] = mapped_column(ForeignKey("submissions.id"), primary_key=True)
    due: Mapped[float]
    tries: Mapped[int] = mapped_column(default=0)
    problem: Mapped[str] = mapped_column(Text, default="")


class Upload(Base):
    """A file of weights that somebody sends, or has sent. Its bytes lie in the output folder, under its id.

    It goes through the states `open` (it grows), `ready` (complete, and scanned) and `registered` (MLflow has it; the
    row stays as long as the model, since its bytes count).
    """

    __tablename__ = "uploads"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    owner: Mapped[str] = mapped_column(ForeignKey("users.name"), index=True)
    file: Mapped[str] = mapped_column(String(100))  # as its owner calls it; never a path
    size: Mapped[int] = mapped_column(BigInteger)
    digest: Mapped[str] = mapped_column(String(64))  # SHA-256
    state: Mapped[str] = mapped_column(String(16))
    kind: Mapped[str | None] = mapped_column(String(16))
    model: Mapped[str | None] = mapped_column(String(120), index=True)  # NAME/VERSION
    created: Mapped[float]
    touched: Mapped[float]


class Module(Base):
    """An installed module whose plugins suites from the network may name. A retired one keeps its names."""

    __tablename__ = "modules"
    name: Mapped[str] = mapped_column(String(200), primary_key=True)  # dotted
    digest: Mapped[str] = mapped_column(String(32))  # bench.plugins.installed_digest, when it was registered
    brings: Mapped[Brings] = mapped_column(JSON)
    owner: Mapped[str] = mapped_column(ForeignKey("users.name"))  # who registered it
    registered: Mapped[float]
    retired: Mapped[float | None]

    def names(self) -> Iterator[tuple[str, str]]:
        """Kind and name of each plugin."""
        return ((kind, name) for kind, named in self.brings.items() for name in named)


class Usage(Base):
    """What a user's tasks took on a day (UTC)."""

    __tablename__ = "usage"
    owner: Mapped[str] = mapped_column(ForeignKey("users.name"), primary_key=True)
    day: Mapped[str] = mapped_column(String(10), primary_key=True)
    seconds: Mapped[float] = mapped_column(default=0.0)
    tasks: Mapped[int] = mapped_column(default=0)


class Audit(Base):
    """Who changed what, or was not let in. Written before the answer goes out."""

    __tablename__ = "audit"
    id: Mapped[int] = mapped_column(primary_key=True)
    time: Mapped[float] = mapped_column(index=True)
    owner: Mapped[str | None] = mapped_column(String(64))
    token: Mapped[str | None] = mapped_column(String(16))
    address: Mapped[str] = mapped_column(String(64))
    verb: Mapped[str] = mapped_column(String(32))
    object: Mapped[str] = mapped_column(String(200))
    status: Mapped[int]


class Lease(Base):
    """Who may act in a role that one process has at a time. `epoch` counts its holders: an old one is told apart."""

    __tablename__ = "leases"
    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    holder: Mapped[str] = mapped_column(String(100))
    epoch: Mapped[int]
    expires: Mapped[float]


class Database:
    """Transactions at an SQLAlchemy URL: `sqlite:///service.db`, `postgresql+psycopg://user@host/name`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = _engine(url)
        self._writing = sessionmaker(self.engine, expire_on_commit=False)
        self._reading = sessionmaker(self.engine.execution_options(reading=True), expire_on_commit=False)
        sqlite = self.engine.dialect.name == "sqlite"
        self._turn: contextlib.AbstractContextManager[Any] = threading.Lock() if sqlite else contextlib.nullcontext()

    def close(self) -> None:
        self.engine.dispose()

    @contextlib.contextmanager
    def writing(self) -> Iterator[Session]:
        """A transaction: all of it or nothing. On SQLite there is one at a time, and it waits for its turn.

        Threads of this process wait for a lock: SQLite itself would let them sleep and try, longer each time.
        """
        with self._turn, self._writing.begin() as session:
            yield session

    @contextlib.contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that changes nothing, and waits for nobody."""
        with self._reading.begin() as session:
            yield session

    def upgrade(self, revision: str = "head") -> None:
        """Bring the schema to a revision, the newest by default. Raises OperatorError."""
        self._migrate(command.upgrade, revision)

    def downgrade(self, revision: str) -> None:
        self._migrate(command.downgrade, revision)

    def revision(self) -> str | None:
        """Of its schema; None where there is none yet. Raises OperatorError where the database is out of reach."""
        with self._explained(), self.engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()

    def check(self) -> None:
        """Raises OperatorError where the database is out of reach, or has another schema than this code."""
        newest = ScriptDirectory.from_config(self._config()).get_current_head()
        if (found := self.revision()) != newest:
            raise OperatorError(
                f"{self._told}: its schema is {found or 'not there'}, this version needs {newest}",
                "`gauntlet database upgrade` brings it up to date",
            )

    def _migrate(self, step: Any, revision: str) -> None:
        config = self._config()
        with self._explained(), self.engine.begin() as connection:
            config.attributes["connection"] = connection
            step(config, revision)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as problem:
            why = str(getattr(problem, "orig", None) or problem).strip().splitlines()[0]
            raise OperatorError(f"{self._told}: {why}", "--database names another one") from problem

    @property
    def _told(self) -> str:
        return f"the database {self.engine.url.render_as_string(hide_password=True)}"

    @staticmethod
    def _config() -> Config:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        return config


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            if parsed.database and parsed.database != ":memory:":
                Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
                Path(parsed.database).touch(mode=0o600)  # it holds what users keep from each other
            engine = create_engine(parsed, connect_args={"timeout": BUSY}, pool_size=KEPT, max_overflow=KEPT)
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
            return engine
        if parsed.get_backend_name() == "postgresql":
            patience = {"connect_timeout": REACHED}
            return create_engine(
                parsed, pool_pre_ping=True, connect_args=patience, pool_size=KEPT, max_overflow=KEPT
            )  # fmt: skip
    except (ArgumentError, NoSuchModuleError, ImportError) as problem:
        raise OperatorError(f"no database at this URL: {problem}", _FORMS) from None
    raise OperatorError(f"no database of the kind '{parsed.get_backend_name()}'", _FORMS)


_FORMS = "give sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME"


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # this module says where transactions begin
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Any) -> None:
    """A transaction that reads first and writes later would fail at once where another one wrote in between."""
    reading = connection.get_execution_options().get("reading")
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
