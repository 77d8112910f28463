"""The service as it is run: processes, HTTP, two users, and everything killed once while it works."""

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest
import requests
import yaml

from bench.client import Client
from tests.journeys.conftest import PATIENCE, Project, wait_until
from tests.service.conftest import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SUITES = {
    user: {
        "name": user,
        "seed": seed,
        "models": [{"name": "cnn", "adapter": "small_cnn"}],
        "datasets": [{"dataset": "digits", "limit": 300}],
        "evaluations": {
            "attacks": [{"attack": "pgd", "norm": "linf", "epsilons": [0.05, 0.1], "args": {"steps": 200}}],
            "probes": ["parameters"],
        },
        "resources": {"batch_size": 10},
    }
    for seed, user in enumerate(("ann", "bob"))
}


class Service:
    """`gauntlet up` in a folder. more: words of its command line, instead of two workers and no MLflow server."""

    def __init__(self, project: Project, output: Path | None = None, more: Sequence[str] = ()) -> None:
        self.project = project
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.output = output or project.folder / "service"
        self.log = (project.folder / "service.log").open("wb")
        words = more or ("--workers", "2", "--no-mlflow")
        self.process = subprocess.Popen(
            project.command("up", "--output", str(self.output), "--port", str(self.port), *words),
            cwd=project.folder, env=project.environment(), stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
        )  # fmt: skip

    def client(self, user: str) -> Client:
        words = ("tokens", "create", user, "--role", "submitter", "--output", str(self.output))
        return Client(self.url, self.project.here(*words).strip().splitlines()[-1])

    def wait(self) -> float:
        """Until the face and a dispatcher are there; the seconds that took."""
        began = time.monotonic()
        while time.monotonic() - began < PATIENCE:
            try:
                if requests.get(f"{self.url}/ready", timeout=5).json().get("dispatcher") == "at work":
                    return time.monotonic() - began
            except requests.RequestException:
                pass
            time.sleep(0.2)
        raise AssertionError(f"not ready:\n{self.said()[-4000:]}")

    def said(self) -> str:
        return (self.project.folder / "service.log").read_text()

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def find(self, word: str) -> psutil.Process:
        found = [p for p in self.family() if word in _words(p)]
        assert found, f"no process '{word}'"
        return found[0]

    def records(self) -> int:
        return len(list((self.output / "store" / "records").rglob("*.parquet")))

    def reach(self, count: int) -> None:
        self._until(lambda: self.records() >= count)

    def trained(self, count: int) -> None:
        """Until so many trainings have ended."""
        self._until(lambda: len(list((self.output / "store" / "trained").rglob("*.json"))) >= count)

    def _until(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not true() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert true(), self.said()[-4000:]


def _words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.fixture
def service(project: Project) -> Iterator[Service]:
    made = Service(project)
    yield made
    made.process.terminate()
    try:
        made.process.wait(PATIENCE)
    finally:
        for child in made.family() if made.process.poll() is None else []:
            child.kill()
        made.log.close()


def test_two_users_submissions_outlive_every_process_and_have_the_records_of_a_run(project: Project, service: Service):
    service.wait()
    clients = {user: service.client(user) for user in SUITES}
    made = {user: clients[user].submit(yaml.safe_dump(suite).encode())["id"] for user, suite in SUITES.items()}
    seen: list[str] = []

    def follow() -> None:
        seen.extend(str(event.data["text"]) for event in clients["ann"].watch(made["ann"]) if event.kind == "state")

    watching = threading.Thread(target=follow)
    watching.start()

    service.reach(10)
    listening = {
        (c.laddr.ip, process.name())
        for process in service.family()
        for c in process.net_connections()
        if c.status == psutil.CONN_LISTEN
    }
    assert {ip for ip, _ in listening} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}

    recovery = {}
    before = service.records()
    service.find("ray::_Actor").kill()
    began = time.monotonic()
    service.reach(before + 3)
    recovery["worker"] = time.monotonic() - began

    service.find("bench.service.reporter").kill()  # the leaderboards below are made by another one
    service.find(" serve ").send_signal(signal.SIGKILL)
    began = time.monotonic()
    clients["bob"].get(made["bob"])  # the client tries until it is back
    recovery["face"] = time.monotonic() - began

    before = service.records()
    service.find(" dispatch ").send_signal(signal.SIGKILL)
    began = time.monotonic()
    service.reach(before + 3)
    recovery["dispatcher"] = time.monotonic() - began
    print("recovery in seconds:", {name: round(seconds, 1) for name, seconds in recovery.items()})

    clients["bob"].pause(made["bob"])
    wait_until(lambda: clients["bob"].get(made["bob"])["state"] != "running")
    assert clients["bob"].get(made["bob"])["state"] == "paused"
    clients["bob"].resume(made["bob"])

    for user, client in clients.items():
        last = [event for event in client.watch(made[user]) if event.kind == "progress"][-1].data
        assert (last["state"], last["failed"]) == ("complete", 0), service.said()[-4000:]
        client.records(made[user], project.folder / f"{user}.parquet")
        assert client.leaderboard(made[user])["rows"][0]["failures"] == []
        assert client.failures(made[user]) == []
        client.page(made[user], project.folder / "page.html")
        assert "<table" in (project.folder / "page.html").read_text()
    watching.join(PATIENCE)
    assert seen[:2] == ["queued", "running"]
    assert "queued" in seen[2:], "the dispatcher that died left it to the next"
    assert seen[-1] == "complete"

    for user, suite in SUITES.items():
        (project.folder / "suite.yaml").write_text(yaml.safe_dump(suite, sort_keys=False))
        project.run("undisturbed")
        project.here("records", "undisturbed", "--to", str(project.folder / "undisturbed.parquet"))
        assert (project.folder / f"{user}.parquet").read_bytes() == (
            project.folder / "undisturbed.parquet"
        ).read_bytes()

    children = service.family()
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(PATIENCE) == 0
    _, left = psutil.wait_procs(children, timeout=PATIENCE)
    assert left == [], "nothing is left behind"


def test_children_end_when_their_supervisor_is_killed(project: Project):
    service = Service(project)
    service.wait()
    children = service.family()
    assert len(children) >= 2
    service.process.kill()
    service.process.wait()
    _, left = psutil.wait_procs(children, timeout=PATIENCE)
    service.log.close()
    assert left == []
