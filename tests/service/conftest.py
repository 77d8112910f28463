"""Databases: a SQLite file, and a PostgreSQL of our own in a temporary folder (Debian's package; .ci/postgresql)."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from bench.service.database import Database
from tests.ports import free_port

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """URL of a running server, without a database's name. It refuses to be root, so root starts it as postgres."""
    if not BINARIES:
        pytest.skip("Debian's package postgresql is not installed (.ci/postgresql installs it)")
    user = "postgres" if os.getuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="gauntlet-pg-"))
    if user:
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
    tools, port = BINARIES[-1].parent, free_port()
    common = {"cwd": folder, "user": user, "stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
    make = [tools / "initdb", "-D", folder / "data", "-U", "gauntlet", "-A", "trust", "-N"]
    subprocess.run(make, check=True, **common)
    options = ["-h", "127.0.0.1", "-p", str(port), "-k", str(folder), "-F"]
    server = subprocess.Popen([tools / "postgres", "-D", folder / "data", *options], **common)
    try:
        ready = [tools / "pg_isready", "-h", "127.0.0.1", "-p", str(port), "-t", "1"]
        deadline = time.monotonic() + 60
        while subprocess.run(ready, stdout=subprocess.DEVNULL).returncode != 0:
            assert server.poll() is None, "PostgreSQL has ended"
            assert time.monotonic() < deadline, "PostgreSQL does not answer"
            time.sleep(0.1)
        yield f"postgresql://gauntlet@127.0.0.1:{port}"
    finally:
        server.send_signal(signal.SIGINT)  # without waiting for whoever has left a connection open
        server.wait(60)
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty database; the test runs once on each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/service.db"
    server = request.getfixturevalue("postgresql")
    monkeypatch.setattr("bench.service.database.REACHED", 60)  # either side may stand still for a while
    name = f"t{uuid.uuid4().hex}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")  # which nobody can be connected to
    return f"{server}/{name}".replace("postgresql:", "postgresql+psycopg:")


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    made = Database(url)
    made.upgrade()
    yield made
    made.close()
