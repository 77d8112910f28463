"""The proxy of deploy/nginx.conf, as it is but for its addresses: nobody without a token reaches MLflow, and a reader
cannot write there. MLflow is played by a server that writes down what reaches it."""

import datetime
import http.server
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from requests.auth import HTTPBasicAuth

from bench.service.access import Role
from tests.ports import free_port, listening
from tests.service.house import PATIENCE, House, house

__all__ = ["house"]  # a fixture
CONFIGURATION = Path(__file__).parents[2] / "deploy" / "nginx.conf"
PROGRAM = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
FORGED = "Bearer gauntlet_" + "0" * 12 + "_" + "A" * 43
Seen = list[tuple[str, str, dict[str, str]]]
HOSTS = ("gauntlet.example.org", "mlflow.example.org")


class Recorder(http.server.BaseHTTPRequestHandler):
    """Answers everything with 200 and remembers it."""

    seen: Seen

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.seen.append((self.command, self.path, headers))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@dataclass
class Proxy:
    port: int
    certificate: Path
    seen: Seen
    process: "subprocess.Popen[bytes]"
    log: Path

    def call(self, method: str, host: str, path: str, **more: object) -> requests.Response:
        """Over TLS, with the certificate checked, by the name that the proxy knows."""
        session = requests.Session()
        session.trust_env = False
        session.mount("https://", ByName(host))
        url = f"https://127.0.0.1:{self.port}{path}"
        request = requests.Request(method, url, **{**more, "headers": {"Host": host, **dict(more.get("headers", {}))}})  # type: ignore[arg-type]
        ready = session.prepare_request(request)
        ready.url = url  # as it is written, traversals included
        return session.send(ready, verify=str(self.certificate), timeout=PATIENCE, allow_redirects=False)


class ByName(requests.adapters.HTTPAdapter):
    """Checks the certificate for this name, whatever address it is asked at."""

    def __init__(self, host: str) -> None:
        self._host = host
        super().__init__()

    def init_poolmanager(self, *given: object, **more: object) -> None:
        super().init_poolmanager(*given, **more, server_hostname=self._host, assert_hostname=self._host)  # type: ignore[arg-type]


def certificate(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gauntlet tests")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in HOSTS]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "certificate.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(key.private_bytes(*form))


def placed(text: str, changes: dict[str, str]) -> str:
    """The configuration with other addresses. Each must stand in it."""
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


@contextmanager
def started(house: House, folder: Path, mlflow: str, seen: Seen) -> Iterator[Proxy]:
    """nginx with this configuration before the face and whatever answers at `mlflow` (HOST:PORT)."""
    if PROGRAM is None:
        pytest.skip("needs Debian's nginx (.ci/nginx installs it)")
    certificate(folder)
    port, log, path = free_port(), folder / "access.log", folder / "nginx.conf"
    text = placed(
        CONFIGURATION.read_text(),
        {
            "server face:8642;": f"server {house.url.removeprefix('http://')};",
            "server mlflow:5000;": f"server {mlflow};", "listen 8443": f"listen 127.0.0.1:{port}",
            "/etc/nginx/tls": str(folder), "/tmp/nginx": f"{folder}/nginx", "/dev/stdout": str(log),
        },
    )  # fmt: skip
    path.write_text(text)
    folder.chmod(0o755)
    checked = subprocess.run([PROGRAM, "-t", "-c", path, "-e", "stderr"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    process = subprocess.Popen([PROGRAM, "-c", path, "-e", "stderr", "-g", "daemon off;"])
    try:
        wait_for(port, process)
        yield Proxy(port, folder / "certificate.pem", seen, process, log)
    finally:
        process.terminate()
        process.wait(60)


def wait_for(port: int, process: "subprocess.Popen[bytes]", seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"nothing listens at {port}")


@pytest.fixture(scope="module")
def proxy(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    handler = type("Handler", (Recorder,), {"seen": []})
    behind = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=behind.serve_forever, daemon=True).start()
    folder = tmp_path_factory.mktemp("nginx")
    try:
        with started(house, folder, f"127.0.0.1:{behind.server_port}", handler.seen) as made:  # type: ignore[attr-defined]
            yield made
    finally:
        behind.shutdown()
        behind.server_close()


READS = [
    ("GET", "/"), ("HEAD", "/"), ("GET", "/api/2.0/mlflow/runs/get?run_id=x"), ("GET", "/static-files/main.js"),
    ("POST", "/ajax-api/2.0/mlflow/runs/search"), ("POST", "/api/2.0/mlflow/experiments/search"),
    ("POST", "/ajax-api/2.0/mlflow/logged-models/search"), ("POST", "/graphql"),
    ("POST", "/ajax-api/3.0/mlflow/traces/search"),
]  # fmt: skip
WRITES = [
    ("POST", "/api/2.0/mlflow/runs/create"), ("POST", "/ajax-api/2.0/mlflow/runs/delete"),
    ("POST", "/api/2.0/mlflow/runs/log-batch"), ("PATCH", "/api/2.0/mlflow/registered-models/update"),
    ("DELETE", "/api/2.0/mlflow/registered-models/delete"), ("PUT", "/api/2.0/mlflow-artifacts/artifacts/x"),
    ("POST", "/api/2.0/mlflow/runs/search/../delete"), ("POST", "/api/2.0/mlflow/runs/search/%2e%2e/delete"),
    ("POST", "//api/2.0/mlflow/runs/delete"), ("POST", "/api/2.0/mlflow/runs/searchx"), ("OPTIONS", "/graphql"),
    ("POST", "/get-artifact"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), [*READS, *WRITES])
def test_who_looks_needs_a_token_and_who_writes_a_maintainer_s(house: House, proxy: Proxy, method: str, path: str):
    tokens = {role: house.token(f"nginx-{role}", role) for role in Role}
    before = len(proxy.seen)
    nobody = proxy.call(method, HOSTS[1], path)
    forged = proxy.call(method, HOSTS[1], path, headers={"Authorization": FORGED})
    assert (nobody.status_code, forged.status_code in (401, 429)) == (401, True)
    assert len(proxy.seen) == before, "nothing of it has reached MLflow"
    allowed = set()
    for role, token in tokens.items():
        answer = proxy.call(method, HOSTS[1], path, headers={"Authorization": f"Bearer {token}"}, data=b"{}")
        if answer.status_code == 200:
            allowed.add(role)
        else:
            assert answer.status_code == 403
    may = set(Role) if (method, path) in READS else {Role.MAINTAINER, Role.ADMIN}
    assert allowed == may
    arrived = proxy.seen[before:]
    assert len(arrived) == len(may)
    for _, _, headers in arrived:
        assert "authorization" not in headers, "MLflow sees nobody's token"
        assert headers["host"] == "mlflow:5000"


def test_a_browser_shows_its_token_as_a_password_and_can_only_look(house: House, proxy: Proxy):
    chief = HTTPBasicAuth("whoever", house.token("browsing", Role.MAINTAINER))
    asked = proxy.call("GET", HOSTS[1], "/")
    assert (asked.status_code, "Basic realm" in asked.headers["WWW-Authenticate"]) == (401, True)
    assert proxy.call("GET", HOSTS[1], "/", auth=chief).status_code == 200
    assert proxy.call("POST", HOSTS[1], "/ajax-api/2.0/mlflow/runs/search", auth=chief, data=b"{}").status_code == 200
    assert proxy.call("POST", HOSTS[1], "/ajax-api/2.0/mlflow/runs/delete", auth=chief, data=b"{}").status_code == 403


def test_the_face_is_behind_it_with_its_own_rules(house: House, proxy: Proxy):
    token = {"Authorization": f"Bearer {house.token('through')}"}
    assert proxy.call("GET", HOSTS[0], "/v1/me").status_code == 401
    assert proxy.call("GET", HOSTS[0], "/v1/me", headers=token).json()["user"] == "through"
    page = proxy.call("GET", HOSTS[0], "/")
    assert "<h1>Gauntlet" in page.text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "max-age" in page.headers["Strict-Transport-Security"]
    assert "nginx/" not in json.dumps(dict(page.headers))
    assert proxy.call("POST", HOSTS[0], "/v1/uploads", headers=token, data=b"x" * 6_000_000).status_code == 413
    row, _ = house.queue.submit("through", "s", "name: s\n")
    house.queue.cancel(row.id)
    events = proxy.call("GET", HOSTS[0], f"/v1/submissions/{row.id}/events", headers=token)
    assert "event: state" in events.text


def test_another_name_gets_nothing_and_no_token_is_written_down(house: House, proxy: Proxy):
    with pytest.raises(requests.exceptions.SSLError):
        proxy.call("GET", "elsewhere.example.org", "/")
    context = ssl.create_default_context(cafile=str(proxy.certificate))
    context.check_hostname = False
    place = ("127.0.0.1", proxy.port)
    with socket.create_connection(place, timeout=PATIENCE) as raw, context.wrap_socket(raw) as connection:
        connection.sendall(b"GET /v1/me HTTP/1.1\r\nHost: elsewhere\r\nConnection: close\r\n\r\n")
        assert b" 421 " in connection.recv(200)
    secret = house.token("noted")
    proxy.call("GET", HOSTS[1], "/?key=secret-key", headers={"Authorization": f"Bearer {secret}"})
    deadline = time.monotonic() + 60
    while not re.search(r'mlflow\.example\.org "GET /" 200', text := proxy.log.read_text()):
        assert time.monotonic() < deadline, "nginx writes its log after the answer"
        time.sleep(0.05)
    assert secret not in text
    assert "secret-key" not in text


def test_it_listens_where_it_was_told_and_nowhere_else(proxy: Proxy):
    main = psutil.Process(proxy.process.pid)
    assert listening(main, *main.children()) == {("127.0.0.1", proxy.port)}


@pytest.mark.slow
def test_a_real_mlflow_behind_it_is_read_by_a_reader_and_written_by_a_maintainer(house: House, tmp_path: Path):
    port = free_port()
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--allowed-hosts", "mlflow:5000", "--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db",
        "--artifacts-destination", str(tmp_path / "files"),
    ]  # fmt: skip
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (tmp_path / "log").open("wb") as out:
        server = subprocess.Popen(
            command, env=environment, cwd=tmp_path, stdout=out, stderr=out, start_new_session=True
        )
    try:
        wait_for(port, server, 150)
        (tmp_path / "nginx").mkdir()
        tmp_path.chmod(0o755)
        with started(house, tmp_path / "nginx", f"127.0.0.1:{port}", []) as proxy:
            reader = {"Authorization": f"Bearer {house.token('mlflow-reader', Role.READER)}"}
            chief = {"Authorization": f"Bearer {house.token('mlflow-chief', Role.MAINTAINER)}"}
            make = ("POST", HOSTS[1], "/api/2.0/mlflow/experiments/create")
            assert proxy.call(*make, headers=reader, json={"name": "forbidden"}).status_code == 403
            assert proxy.call(*make, headers=chief, json={"name": "allowed"}).status_code == 200
            search = ("POST", HOSTS[1], "/ajax-api/2.0/mlflow/experiments/search")
            found = proxy.call(*search, headers=reader, json={"max_results": 10}).json()["experiments"]
            assert {one["name"] for one in found} == {"Default", "allowed"}
            assert "<title>MLflow" in proxy.call("GET", HOSTS[1], "/", headers=reader).text
            assert proxy.call("GET", HOSTS[1], "/").status_code == 401
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)
