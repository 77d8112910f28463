"""A running cluster of two nodes on this machine: joined by its address, and robbed of a node in mid-run."""

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from ray._private.ray_constants import AUTOSCALER_RESOURCE_REQUEST_CHANNEL
from ray.cluster_utils import Cluster
from ray.experimental.internal_kv import _internal_kv_get

from bench.cluster import cluster
from bench.placement import Share
from tests.journeys.conftest import ATTACKS, GATE, PATIENCE, Project
from tests.journeys.test_same_records import BLOCKS

pytestmark = pytest.mark.timeout(3600)


@pytest.fixture
def two_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Whose workers wait at a gate, `tmp_path`."""
    monkeypatch.setenv(GATE, str(tmp_path))
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes.add_node(num_cpus=1)
    yield nodes
    nodes.shutdown()


def test_a_node_killed_in_mid_run_loses_no_task(alone: Project, two_nodes: Cluster, tmp_path: Path):
    second = two_nodes.list_all_nodes()[1]
    [raylet] = [info.process for info in second.all_processes["raylet"]]

    def works() -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):  # one that ends while it is looked at: look again
            children = psutil.Process(raylet.pid).children(recursive=True)
            return any("_Actor.run" in " ".join(child.cmdline()) for child in children)
        return False

    words = ("run", "suite.yaml", "--output", "robbed", "--address", two_nodes.address, "--format", "json")
    before_gate = BLOCKS * len(ATTACKS)
    with alone.started(*words, gate=tmp_path) as run:
        run.reach(lambda: len(alone.stored("robbed")) >= before_gate and works())
        two_nodes.remove_node(second, allow_graceful=False)
        assert len(alone.stored("robbed")) == before_gate, "its worker was at work"
        (tmp_path / "open").touch()
        out, _ = run.end()
    [row] = json.loads(out)["rows"]
    assert row["failures"] == []
    assert row["metrics"]["robust_accuracy/l2/shove/1"]["n"] == 300
    assert alone.records("robbed") == alone.records("one")


def test_a_local_ray_listens_on_loopback_only():
    with cluster(None, 1, Share()) as ours:
        assert ours.room() == 1
        me = psutil.Process()
        family = [me, *me.children(recursive=True)]
        listening = [
            (process.name(), connection.laddr.ip)
            for process in family
            for connection in process.net_connections()
            if connection.status == psutil.CONN_LISTEN and connection.family in (socket.AF_INET, socket.AF_INET6)
        ]
    assert {"raylet", "gcs_server"} <= {name for name, _ in listening}
    assert {address for _, address in listening} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_ray_s_autoscaler_is_told_of_workers_that_no_node_can_hold_and_that_there_are_none_any_more():
    def told() -> list[dict[str, float]]:
        return json.loads(_internal_kv_get(AUTOSCALER_RESOURCE_REQUEST_CHANNEL) or b"[]")

    with cluster(None, 1, Share()) as ours:
        ours.ask_for([Share(cpus=2, gpus=1, nodes=(("tier", "gold"),)), Share(cpus=64)])
        assert sorted(told(), key=str) == [{"CPU": 2, "GPU": 1}, {"CPU": 64}]
        ours.ask_for([Share(), Share()])
        assert told() == [{"CPU": 1}, {"CPU": 1}], "as many as there should be, not as many as are missing"
        ours.ask_for([Share(nodes=(("tier", "gold"),))] * 5)
        assert told() == [{"CPU": 1}], "its first autoscaler knows no labels: five of any kind would be of no use"
        ours.leave()
        assert told() == []


ENDS = """
import os, signal, threading
from bench.cluster import cluster
from bench.placement import Share
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
with cluster(None, 1, Share()):
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.wait(600)
print("in order")
"""


def test_sigterm_is_for_whoever_has_joined_and_not_for_ray(project: Project):
    """Ray's handler takes it for a crash and aborts, so that a dispatcher would never put anything back."""
    done = subprocess.run(
        [sys.executable, "-c", ENDS],
        env=project.environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "in order"), done.stderr
