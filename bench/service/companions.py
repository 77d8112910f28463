"""What `gauntlet up` starts beside the service: an MLflow server, a PostgreSQL of Debian's package, Ray's dashboard.

The first two keep everything in the output folder. None can be reached from another machine: MLflow and the dashboard
listen on loopback, PostgreSQL on a socket in a folder that only its owner may enter.
"""

import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy.exc import DBAPIError

from bench.errors import OperatorError
from bench.service.database import Database
from bench.service.server import must_be_free
from bench.service.supervisor import Child
from bench.tracking import default_uri

HOST = "127.0.0.1"
RAY_TOKEN = "ray-token"  # noqa: S105 - the file in the output folder that has what Ray's dashboard asks for
RAY_NEEDS = ("aiohttp_cors", "grpc", "opencensus")  # modules of ray[default], by which it is known
BINARIES = Path("/usr/lib/postgresql")  # Debian's package: one folder for each version
OWNER = "gauntlet"  # of the database
UNPRIVILEGED = "postgres"  # Debian's account, for PostgreSQL refuses to be root
SOCKET = 107 - len("/.s.PGSQL.5432")  # bytes of a folder's path: what Unix leaves for it
UP = 120.0  # seconds that PostgreSQL may take, if it has to go through its log first


def mlflow_server(output: Path, port: int) -> Child:
    """An MLflow server on what `gauntlet run` logs into this folder, too. Raises OperatorError: its port is taken."""
    must_be_free(HOST, port, "--mlflow-port")
    words = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", default_uri(output)]
    words += ["--artifacts-destination", (output.absolute() / "mlartifacts").as_uri()]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    return Child("mlflow", _kept("TERM", words), quiet, output / "mlflow.log")


def check_dashboard(port: int) -> None:
    """Raises OperatorError where Ray's dashboard cannot be started."""
    if missing := [name for name in RAY_NEEDS if importlib.util.find_spec(name) is None]:
        raise OperatorError(
            f"Ray's dashboard is not installed ({', '.join(missing)})", "install gauntlet-bench[dashboard]"
        )
    must_be_free(HOST, port, "--dashboard-port")


def postgresql_url(output: Path) -> str:
    """Of the database whose server lives in this folder, for SQLAlchemy."""
    return f"postgresql+psycopg://{OWNER}@/postgres?host={quote(str(_home(output)), safe='/')}"


def has_postgresql(output: Path) -> bool:
    return (_home(output) / "data").is_dir()


def postgresql(output: Path) -> Child:
    """A PostgreSQL server in this folder, whose files are made where there are none. Raises OperatorError."""
    home, user = _home(output), UNPRIVILEGED if os.getuid() == 0 else None
    tools = _tools(home)
    if len(os.fsencode(home)) > SOCKET:
        raise OperatorError(
            f"{home} is too long for a socket ({SOCKET} bytes)", "choose an --output nearer to the root"
        )
    if not has_postgresql(output):
        _make(home, tools, user)
    words = [str(tools / "postgres"), "-D", str(home / "data"), "-c", "listen_addresses=", "-k", str(home)]
    return Child("postgresql", _kept("INT", words, user), {}, output / "postgresql.log")


def wait_for(child: Child, database: Database) -> None:
    """Until the database answers. Raises OperatorError where its server does not come up."""
    began = time.monotonic()
    while True:
        child.look(time.monotonic())
        try:
            with database.engine.connect():
                return
        except DBAPIError:
            if time.monotonic() - began > UP:
                raise OperatorError(f"PostgreSQL does not answer after {UP:g} s", f"{child.log} says why") from None
        time.sleep(0.2)


def _home(output: Path) -> Path:
    return output.absolute() / "postgresql"


def _tools(home: Path) -> Path:
    """The folder of the newest PostgreSQL, or of the one that made the files here."""
    made = home / "data" / "PG_VERSION"
    wanted = made.read_text().strip() if made.is_file() else "*"
    found = sorted(BINARIES.glob(f"{wanted}/bin"), key=lambda path: float(path.parent.name))
    if not found:
        what = "no PostgreSQL" if wanted == "*" else f"these files are of PostgreSQL {wanted}, which is not"
        raise OperatorError(f"{what} in {BINARIES}", "install Debian's package postgresql, or use --database")
    return found[-1]


def _make(home: Path, tools: Path, user: str | None) -> None:
    home.mkdir(parents=True, mode=0o700)
    if user:
        os.chown(home, pwd.getpwnam(user).pw_uid, -1)
    words = [str(tools / "initdb"), "-D", str(home / "data"), "-U", OWNER, "-A", "trust", "-E", "UTF8"]
    words += ["--locale=C.UTF-8"]
    whose: dict[str, Any] = {"user": user, "group": user, "extra_groups": []} if user else {}
    done = subprocess.run(words, cwd="/", capture_output=True, text=True, check=False, **whose)
    if done.returncode:
        shutil.rmtree(home)
        why = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        hint = f"its files belong to '{user}', who must be able to enter {home.parent}" if user else "see above"
        raise OperatorError(f"initdb failed: {' '.join(why)}", hint)


def _kept(number: str, words: Sequence[str], user: str | None = None) -> list[str]:
    return [
        sys.executable, "-m", "bench.service.keeper", *(["--user", user] if user else []), number, *words
    ]  # fmt: skip
