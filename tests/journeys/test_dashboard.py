"""`gauntlet up --dashboard`: Ray's own pages, for who has the token, on this machine."""

import importlib.util
import stat
from pathlib import Path

import psutil
import pytest
import requests

from bench.service.companions import RAY_NEEDS, RAY_TOKEN
from tests.journeys.conftest import PATIENCE, Project, wait_until
from tests.journeys.test_service import Service
from tests.service.conftest import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in RAY_NEEDS),
        reason="Ray's dashboard is not installed (pip install 'gauntlet-bench[dashboard]')",
    ),
]


def content(path: Path) -> str:
    """Nothing while there is no such file: it is written anew."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def answered(url: str, **headers: str) -> int:
    try:
        return requests.get(url, headers=headers, timeout=20).status_code
    except requests.ConnectionError:
        return 0


def test_it_listens_on_loopback_asks_for_its_token_and_comes_back_with_the_dispatcher(project: Project):
    port = free_port()
    service = Service(project, more=("--workers", "1", "--no-mlflow", "--dashboard", "--dashboard-port", str(port)))
    token, url = service.output / RAY_TOKEN, f"http://127.0.0.1:{port}"
    try:
        service.wait()
        wait_until(lambda: answered(url) == 200)
        assert f"{url} (its token: {token})" in service.said()
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        listening = [
            c.laddr for process in service.family() for c in process.net_connections() if c.status == psutil.CONN_LISTEN
        ]
        assert port in {address.port for address in listening}
        assert {address.ip for address in listening} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
        for path in ("/nodes?view=summary", "/api/jobs/", "/api/version"):
            assert answered(url + path) == 401, path
            assert answered(url + path, Authorization="Bearer " + "0" * 64) in (401, 403), path
        assert answered(f"{url}/nodes?view=summary", Authorization=f"Bearer {token.read_text()}") == 200

        before = token.read_text()
        service.find(" dispatch ").kill()
        wait_until(lambda: content(token) not in ("", before) and answered(url) == 200)
        assert answered(f"{url}/nodes?view=summary", Authorization=f"Bearer {token.read_text()}") == 200
    finally:
        children = service.family()
        service.process.terminate()
        service.process.wait(PATIENCE)
        service.log.close()
    assert psutil.wait_procs(children, timeout=PATIENCE)[1] == [], "nothing is left behind"
    assert not token.exists()
