"""Everything that the service consists of is killed or frozen once while two users' suites run on two nodes."""

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import torch
import yaml
from ray.cluster_utils import Cluster
from torch.nn.functional import cross_entropy

import adapters.reference  # noqa: F401 - registers the CNN
from bench import contracts
from bench.client import Client
from bench.cluster import WATCHFUL
from bench.service.traces import ENDPOINT
from tests.journeys.conftest import PATIENCE, Project
from tests.journeys.test_service import Service
from tests.service.conftest import BINARIES, free_port
from tests.service.test_traces import Collector, collector  # noqa: F401 - a fixture

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]


TASK = 2.5  # seconds that a task should take here and now: the work has to outlast the faults, and not by much


def steps() -> int:
    """Of PGD on five digits at two budgets, for a task of that length. One costs about 2.5 bare gradients."""
    model = contracts.adapters.build("small_cnn", {}).net()
    x, y = torch.rand(5, 1, 8, 8, requires_grad=True), torch.arange(5)
    began = time.perf_counter()
    for _ in range(300):
        torch.autograd.grad(cross_entropy(model(x), y), x)
    return max(100, round(TASK / (2 * 2.5) / (time.perf_counter() - began) * 300))


def suite(user: str, seed: int, length: int, limit: int = 300) -> dict[str, Any]:
    return {
        "name": user,
        "seed": seed,
        "models": [{"name": "cnn", "adapter": "small_cnn"}],
        "datasets": [{"dataset": "digits", "limit": limit}],
        "evaluations": {
            "attacks": [{"attack": "pgd", "norm": "linf", "epsilons": [0.01, 0.02], "args": {"steps": length}}],
            "probes": ["parameters"],
        },
        "resources": {"batch_size": 5, "timeout": 300},
    }


@dataclass
class House:
    """The service, its two nodes, and what was measured."""

    service: Service
    nodes: Cluster
    folder: Path
    mlflow: str
    table: list[tuple[str, float, str, float]] = field(default_factory=list)

    def lines(self, message: str, since: float) -> list[dict[str, Any]]:
        """Lines of the service's log after a moment."""
        found = []
        for text in self.service.said().splitlines():
            if text.startswith("{") and json.loads(text)["message"] == message:
                line = json.loads(text)
                if datetime.fromisoformat(line["time"]).timestamp() > since:
                    found.append(line)
        return found

    def fault(
        self, name: str, cause: Callable[[], object], goes_on: Callable[[], bool], what: str,
        happens: Callable[[float], bool],
    ) -> None:  # fmt: skip
        """cause: the fault. goes_on: work does. happens(since): what shows that the service is whole again."""
        since, began, first = time.time(), time.monotonic(), 0.0
        cause()
        second = 0.0
        while not (first and second):
            first = first or (time.monotonic() - began if goes_on() else 0.0)
            second = second or (time.monotonic() - began if happens(since) else 0.0)
            self.check(began, name)
        self.table.append((name, first, what, second))

    def recorded(self) -> Callable[[], bool]:
        """Whether there are records that are not there now. Those of tasks that were all but done do not count."""
        before = self.service.records() + 2
        return lambda: self.service.records() > before

    def check(self, began: float, name: str) -> None:
        assert time.monotonic() - began < PATIENCE, f"{name}\n{self.service.said()[-6000:]}"
        assert self.service.process.poll() is None, self.service.said()[-6000:]
        time.sleep(0.1)

    def told(self, name: str) -> list[dict[str, Any]]:
        """The rows that MLflow has of a suite."""
        url = f"{self.mlflow}/api/2.0/mlflow"
        found = requests.get(f"{url}/experiments/get-by-name", {"experiment_name": name}, timeout=30)
        if found.status_code == 404:
            return []
        wanted = {"experiment_ids": [found.json()["experiment"]["experiment_id"]]}
        return list(requests.post(f"{url}/runs/search", json=wanted, timeout=30).json().get("runs", []))

    def print(self) -> None:
        """Past pytest's capture: for the docs."""
        lines = ["| fault | next record after, s | and | after, s |", "|---|---|---|---|"]
        lines += [f"| {name} | {first:.1f} | {what} | {second:.1f} |" for name, first, what, second in self.table]
        print("\n".join(["", *lines]), file=sys.__stdout__, flush=True)


@pytest.fixture
def house(
    project: Project, collector: Collector, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> Iterator[House]:  # fmt: skip
    if not BINARIES:
        pytest.skip("Debian's package postgresql is not installed (.ci/postgresql installs it)")
    monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{collector.server_port}")
    folder = Path(tempfile.mkdtemp(prefix="gauntlet-"))  # short: PostgreSQL's socket lies below it
    folder.chmod(0o711)  # where we are root, PostgreSQL is another user
    nodes = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, "_system_config": WATCHFUL}
    )
    add_node(nodes, folder)
    port = free_port()
    more = ("--address", nodes.address, "--postgresql", "--mlflow-port", str(port))
    made = Service(project, folder / "out", more)
    try:
        yield House(made, nodes, folder, f"http://127.0.0.1:{port}")
    finally:
        made.process.terminate()
        made.process.wait(PATIENCE)
        made.log.close()
        nodes.shutdown()
        shutil.rmtree(folder)


def add_node(nodes: Cluster, folder: Path) -> None:
    """With files of its own, as on a machine of its own: one that ends removes the code that its workers ran."""
    nodes.add_node(num_cpus=1, temp_dir=tempfile.mkdtemp(dir=folder))


def family(node: Any) -> list[psutil.Process]:
    """A node's processes: its raylet, what that has started, and what stands beside it."""
    roots = [psutil.Process(info.process.pid) for infos in node.all_processes.values() for info in infos]
    return [*roots, *(child for root in roots for child in root.children(recursive=True))]


def workers(node: Any) -> list[psutil.Process]:
    return [process for process in family(node) if "_Actor" in " ".join(process.cmdline())]


def send(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        if process.is_running():
            os.kill(process.pid, number)


def test_records_are_those_of_a_run_whatever_is_killed_or_frozen(
    project: Project, house: House, collector: Collector  # noqa: F811
):  # fmt: skip
    service = house.service
    service.wait()
    length = steps()
    suites = {user: suite(user, seed, length) for seed, user in enumerate(("ann", "bob"))}
    clients = {user: service.client(user) for user in suites}
    made = {user: clients[user].submit(yaml.safe_dump(given).encode())["id"] for user, given in suites.items()}
    service.trained(
        len(suites)
    )  # else, on a slow machine, each fault may hit the same training, which has three attempts
    service.reach(10)
    assert len(house.lines("a worker is ready", 0)) >= 2, "both nodes work"

    def ready(since: float) -> bool:
        return len(house.lines("a worker is ready", since)) >= 1

    def lost(since: float) -> bool:
        return len(house.lines("a worker is lost", since)) >= 1

    second = house.nodes.list_all_nodes()[1]
    kill = lambda: send(workers(second), signal.SIGKILL)  # noqa: E731
    house.fault("a worker: SIGKILL", kill, house.recorded(), "another worker is ready", ready)

    kill = lambda: house.nodes.remove_node(second, allow_graceful=False)  # noqa: E731
    house.fault("a node: SIGKILL", kill, house.recorded(), "its worker is known to be lost", lost)
    join = lambda: add_node(house.nodes, house.folder)  # noqa: E731
    house.fault("none: a node joins", join, house.recorded(), "a worker is ready there", ready)
    third = house.nodes.list_all_nodes()[1]
    assert workers(third), "a node that joins is used"
    freeze = lambda: send(family(third), signal.SIGSTOP)  # noqa: E731
    house.fault("a node: SIGSTOP", freeze, house.recorded(), "its worker is known to be lost", lost)
    send(family(third), signal.SIGKILL)

    dispatcher = service.find(" dispatch ")
    face = service.find(" serve ")
    answer = lambda: answers(clients["bob"], made["bob"])  # noqa: E731
    house.fault("the face: SIGKILL", face.kill, house.recorded(), "the face answers", lambda _: answer())

    quick = clients["ann"].submit(yaml.safe_dump(suite("quick", 0, length, limit=10)).encode())["id"]
    keeper = service.find("-m mlflow server")
    kill = lambda: send(keeper.children(recursive=True), signal.SIGKILL)  # noqa: E731
    house.fault("MLflow: SIGKILL", kill, house.recorded(), "MLflow answers", lambda _: healthy(house))

    [postmaster] = service.find("bin/postgres").children()
    house.fault("PostgreSQL: SIGKILL", postmaster.kill, house.recorded(), "the face answers", lambda _: answer())
    assert dispatcher.is_running(), "a database that was away for a moment costs no worker"

    house.fault("the dispatcher: SIGKILL", dispatcher.kill, house.recorded(), "a worker is ready", ready)
    house.print()

    for user, id_ in (*made.items(), ("ann", quick)):
        last = [event for event in clients[user].watch(id_) if event.kind == "progress"][-1].data
        assert (last["state"], last["failed"]) == ("complete", 0), service.said()[-6000:]
        clients[user].records(id_, project.folder / f"{last['name']}.parquet")
    began = time.monotonic()
    while any(len(house.told(name)) != 1 for name in (*suites, "quick")):
        house.check(began, "MLflow was not told")

    service.process.terminate()  # which sends what waits
    assert service.process.wait(PATIENCE) == 0
    spans = [
        span
        for _, taken in collector.taken
        for resource in taken.resource_spans
        for span in resource.scope_spans[0].spans
        if any(a.key == "gauntlet.submission" and a.value.string_value == quick for a in span.attributes)
    ]
    path = {"submission", "submit", "queued", "attempt", "task", "worker", "measure", "store", "publish"}
    assert path == {span.name for span in spans}
    assert len({span.trace_id for span in spans}) == 1
    known = {span.span_id for span in spans}
    assert all(span.parent_span_id in known for span in spans if span.name in ("store", "measure", "worker"))

    for name, given in suites.items():
        (project.folder / "suite.yaml").write_text(yaml.safe_dump(given, sort_keys=False))
        project.run("undisturbed")
        project.here("records", "undisturbed", "--to", str(project.folder / "undisturbed.parquet"))
        found = (project.folder / f"{name}.parquet").read_bytes()
        assert found == (project.folder / "undisturbed.parquet").read_bytes(), name


def answers(client: Client, submission: str) -> bool:
    """Asked once, without the client's patience."""
    try:
        return bool(client._session.get(f"{client._url}/v1/submissions/{submission}", timeout=2).ok)
    except requests.RequestException:
        return False


def healthy(house: House) -> bool:
    try:
        return requests.get(f"{house.mlflow}/health", timeout=2).ok
    except requests.RequestException:
        return False
