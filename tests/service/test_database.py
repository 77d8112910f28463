"""The schema is what the migrations make of it, forwards and back, on both kinds of database."""

import hashlib
import shutil
import subprocess
import time
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import MetaData, inspect, make_url, select

from bench.errors import OperatorError
from bench.service.access import Access, Role
from bench.service.database import Base, Database, State, Submission, Token
from bench.service.queue import Queue, Quotas
from bench.service.uploads import Uploads
from bench.service.work import Work
from bench.store import digest


def test_migrations_make_exactly_the_tables_of_the_code_and_take_them_away_again(url: str):
    database = Database(url)
    with pytest.raises(OperatorError, match=r"not there.*\n.*database upgrade"):
        database.check()
    for _ in range(2):
        database.upgrade()
        database.check()
        with database.engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        database.downgrade("base")
        assert set(inspect(database.engine).get_table_names()) == {"alembic_version"}
    database.close()


@pytest.mark.parametrize("wrong", ["mysql://me@host/x", "nonsense", "oracle://x", ""])
def test_a_database_of_another_kind_is_refused_with_the_forms_that_work(wrong: str):
    with pytest.raises(OperatorError, match="sqlite:///FILE or postgresql"):
        Database(wrong)


def test_a_server_that_is_away_is_named_without_its_password():
    with pytest.raises(OperatorError, match=r"127\.0\.0\.1:1/") as told:
        Database("postgresql+psycopg://me:secret@127.0.0.1:1/x").check()
    assert "secret" not in str(told.value)


def told(database: Database) -> tuple[list[str], list[tuple[str, str, str]]]:
    """Tokens, and submissions with their owners and states."""
    with database.reading() as session:
        rows = session.scalars(select(Submission).order_by(Submission.id))
        return sorted(session.scalars(select(Token.id))), [(row.id, row.owner, row.state) for row in rows]


def of_0001(database: Database, token: str) -> None:
    """What a service of the first schema has left: a user, her token, a submission that was canceled."""
    rows = {
        "users": {"name": "ann", "role": "submitter", "created": 1.0},
        "tokens": {
            "id": "a" * 12, "digest": hashlib.sha256(token.encode()).hexdigest(), "owner": "ann",
            "scopes": ["control", "read", "submit"], "note": "", "created": 1.0, "expires": time.time() + 1000,
        },
        "submissions": {
            "id": "s-1", "owner": "ann", "name": "s", "text": "name: s\n", "digest": digest(b"name: s\n"),
            "idempotency_key": "k", "state": "canceled", "priority": 3, "shared": True, "created": 1.0, "queued": 1.0,
            "ended": 2.0, "done": 4, "failed": 1, "total": 9, "message": "",
        },
        "events": {"submission": "s-1", "time": 1.0, "kind": "state", "text": "queued"},
    }  # fmt: skip
    tables = MetaData()
    tables.reflect(database.engine)
    with database.engine.begin() as connection:
        for name, row in rows.items():
            connection.execute(tables.tables[name].insert().values(row))


def test_a_schema_of_before_is_upgraded_with_what_stands_in_it(url: str):
    with closing(Database(url)) as database:
        database.upgrade("0001")
        of_0001(database, "x" * 43)
        with pytest.raises(OperatorError, match="its schema is 0001, this version needs") as refused:
            database.check()
        assert "gauntlet database upgrade" in str(refused.value)
        database.upgrade()
        database.check()
        queue = Queue(database)
        assert Access(database).identify(f"Bearer gauntlet_{'a' * 12}_{'x' * 43}").user == "ann"
        same, new = queue.submit("ann", "s", "name: s\n", key="k")
        assert (same.id, new, same.state, same.priority, same.shared) == ("s-1", False, State.CANCELED, 3, True)
        assert [event.text for event in queue.events("s-1")] == ["queued"]
        assert queue.retry("s-1").state == State.QUEUED
        work = Work(database)
        assert work.acquire()
        assert (claimed := work.claim({}, sorted)) is not None
        assert claimed.id == "s-1"
        uploads = Uploads(database, Path("nowhere"), Quotas(), lambda path: "torch")
        assert uploads.begin("ann", "w", 1, "0" * 64).state == "open"


def test_a_backup_made_in_the_middle_of_work_is_restored_as_it_was(url: str, tmp_path: Path):
    """As docs/operations.md says it: `sqlite3 FILE .backup`, `pg_dump`."""
    database = Database(url)
    database.upgrade()
    token = Access(database).create("ann", Role.SUBMITTER)
    queue, work = Queue(database), Work(database)
    work.acquire()
    made = [queue.submit("ann", "s", "name: s\n")[0].id for _ in range(3)]
    claimed = work.claim({}, sorted)
    assert claimed is not None
    before = told(database)  # uncommitted: nothing; in SQLite's log: everything
    copy, place = tmp_path / "copy", make_url(url)
    if place.get_backend_name() == "sqlite":
        if shutil.which("sqlite3") is None:
            pytest.skip("Debian's package sqlite3 is not installed")
        subprocess.run(["sqlite3", str(place.database), f".backup {copy}"], check=True)
        restored = Database(f"sqlite:///{copy}")
    else:
        plain = url.replace("postgresql+psycopg:", "postgresql:")
        subprocess.run(["pg_dump", "--format=custom", f"--file={copy}", plain], check=True)
        server, name = plain.rsplit("/", 1)
        with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}_restored TEMPLATE template0")
        subprocess.run(["pg_restore", f"--dbname={plain}_restored", str(copy)], check=True)
        restored = Database(f"{url}_restored")
    for each in made:
        queue.cancel(each)  # after the backup
    restored.check()
    assert told(restored) == before
    assert Access(restored).identify(f"Bearer {token}").user == "ann"
    late = Work(restored, clock=lambda: time.time() + 3600)
    assert late.acquire()
    states = {row.id: row.state for row in Queue(restored).page(["ann"])}
    assert states == dict.fromkeys(made, State.QUEUED), "what was running goes on"
    assert Queue(restored).submit("ann", "s", "name: s\n")[1], "and numbers go on where they were"
    for one in (database, restored):
        one.close()


def test_a_file_of_ours_is_for_its_owner_alone(tmp_path: Path):
    database = Database(f"sqlite:///{tmp_path}/new/service.db")
    database.upgrade()
    Access(database).create("ann", Role.READER)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()} == {0o600}
    database.close()
