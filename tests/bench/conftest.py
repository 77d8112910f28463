"""Places to publish to: a file, and a real MLflow server."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.ports import free_port


@pytest.fixture(scope="session")
def mlflow_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of a SQLite file, made on first use and shared by the session: tests use names of their own."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow server on a free loopback port, stopped at the end of the session."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "files"),
    ]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    log = folder / "log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        _wait(f"http://127.0.0.1:{port}", server, log)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("bench.tracking.WAIT", 120.0)  # both may stand still for a while
            patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")
            yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait(60)


@pytest.fixture(params=["file", "server"])
def tracking_uri(request: pytest.FixtureRequest) -> str:
    """The test runs twice: against a file, and against a server."""
    return str(request.getfixturevalue(f"mlflow_{request.param}"))


def _wait(address: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if requests.get(f"{address}/health", timeout=20).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.3)
        except requests.Timeout:
            continue
    pytest.fail(f"the MLflow server did not start:\n{log.read_text()[-2000:]}")
