"""Nodes of several kinds on this machine: a suite runs, is timed, and waits where its `nodes` say."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.cluster_utils import Cluster

from tests.journeys.conftest import PATIENCE, Project
from tests.journeys.test_placement import TRACING
from tests.journeys.test_service import Service

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

CLUSTER = """
import json, subprocess, sys
import ray
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
gold = cluster.add_node(num_cpus=1, labels={"tier": "gold"})
cluster.wait_for_nodes()
print(json.dumps({"gold": gold.node_id}), flush=True)
try:
    for suite in sys.argv[1:]:
        command = [sys.executable, "-m", "bench", "run", suite, "--output", "out", "--address", cluster.address]
        done = subprocess.run(command, capture_output=True, text=True)
        print(json.dumps({"code": done.returncode, "err": done.stderr}), flush=True)
finally:
    cluster.shutdown()
"""


def suite(name: str, **resources: Any) -> dict[str, Any]:
    return {
        "name": name,
        "plugins": ["lab.py", "tracing.py"],
        "models": [{"name": "means", "adapter": "lab_means"}],
        "datasets": [{"dataset": "lab_digits", "limit": 24}],
        "evaluations": {"attacks": [{"attack": "traced", "norm": "linf", "epsilons": [0.1]}], "probes": ["timed"]},
        "resources": {"batch_size": 4, **resources},
    }


def test_a_suite_runs_and_is_timed_on_the_nodes_that_it_names_and_nowhere_else(
    project: Project, tmp_path: Path
) -> None:
    (project.folder / "tracing.py").write_text(TRACING)
    (project.folder / "cluster.py").write_text(CLUSTER)
    suites = {
        "gold": suite("gold", nodes={"tier": "gold"}),
        "typo": suite("typo", nodes={"tier": "golt"}),
        "large": suite("large", cpus_per_worker=64),
    }
    for name, made in suites.items():
        (project.folder / f"{name}.yaml").write_text(yaml.safe_dump(made))
    file = tmp_path / "trace.jsonl"
    done = subprocess.run(
        [sys.executable, "cluster.py", *(f"{name}.yaml" for name in suites)],
        cwd=project.folder,
        env={**project.environment(), "TRACE": str(file), "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0, done.stderr[-3000:]
    gold, (ran, typo, large) = told[0]["gold"], told[1:]
    assert ran["code"] == 0, ran["err"][-3000:]
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert {line["kind"] for line in lines} == {"attack", "timing"}
    assert {line["node"] for line in lines} == {gold}
    assert typo["code"] == 4
    assert "no living node with tier=golt - did you mean 'tier=gold'?" in typo["err"]
    assert "labels that there are: tier=gold" in typo["err"]
    assert large["code"] == 4
    assert "a worker takes 64 CPUs: no such node has as much" in large["err"]


@pytest.fixture
def head() -> Iterator[Cluster]:
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield nodes
    nodes.shutdown()


def test_the_service_obeys_shares_and_waits_for_a_kind_of_node_that_joins_later(
    project: Project, head: Cluster
) -> None:
    service = Service(project, more=("--address", head.address, "--no-mlflow"))
    try:
        service.wait()
        client = service.client("ann")
        plain = {
            "name": "plain",
            "models": [{"name": "cnn", "adapter": "small_cnn", "args": {"epochs": 2}}],
            "datasets": [{"dataset": "digits", "limit": 100}],
        }
        gold = {**plain, "name": "gold", "resources": {"nodes": {"tier": "gold"}, "cpus_per_worker": 2}, "seed": 1,
                "evaluations": {"probes": ["latency"]}}  # fmt: skip
        untimed = {**gold, "name": "untimed", "evaluations": {}}
        waits, too = (client.submit(yaml.safe_dump(one).encode())["id"] for one in (gold, untimed))
        first = client.submit(yaml.safe_dump(plain).encode())["id"]
        until(lambda: client.get(first)["state"] == "complete", service)
        until(lambda: "no living node with tier=gold" in client.get(waits)["message"], service)
        until(lambda: "no living node with tier=gold" in client.get(too)["message"], service)
        assert client.get(waits)["state"] == "running"
        head.add_node(num_cpus=1, labels={"tier": "gold"})  # too small for its workers
        until(lambda: "a worker takes 2 CPUs with tier=gold" in client.get(waits)["message"], service)
        head.add_node(num_cpus=2, labels={"tier": "gold"})
        until(lambda: client.get(waits)["state"] == "complete", service)
        until(lambda: client.get(too)["state"] == "complete", service)
        for one in (waits, too):
            assert client.get(one)["message"] == ""
            notes = [event.data["text"] for event in client.watch(one) if event.kind == "note"]
            assert "no living node with tier=gold: waits for one" in notes
            assert "there is a node for it: goes on" in notes
    finally:
        service.process.terminate()
        service.process.wait(PATIENCE)
        service.log.close()


def until(over: Any, service: Service, seconds: float = PATIENCE) -> None:
    began = time.monotonic()
    while not over():
        assert time.monotonic() - began < seconds, service.said()[-6000:]
        assert service.process.poll() is None, service.said()[-6000:]
        time.sleep(0.3)
