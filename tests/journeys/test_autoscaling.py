"""Ray's own autoscaler, on nodes of this machine: a second node of a kind that there is comes because the queue is
long, and goes when it is not. Ray's `AutoscalingCluster` ends every Ray on the machine; here its parts are started."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from ray._private.services import get_node_ip_address
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID, FakeMultiNodeProvider

from tests.journeys.conftest import PATIENCE, Project
from tests.journeys.test_kinds import until
from tests.journeys.test_service import Service
from tests.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# By its class: what Ray's wheel needs to know it by its own name, `fake_multinode`, is not in the wheel.
PROVIDER = f"{FakeMultiNodeProvider.__module__}.{FakeMultiNodeProvider.__name__}"
EMPTY = ("auth", "docker", "file_mounts")
NONE = (
    "initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands", "cluster_synced_files",
    "head_start_ray_commands", "worker_start_ray_commands", "rsync_exclude", "rsync_filter",
)  # fmt: skip


class Scaled:
    """A head with one core, and an autoscaler that may start two more such nodes, each a raylet on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"{get_node_ip_address()}:{free_port()}"
        kind = {"resources": {"CPU": 1}, "node_config": {}}
        provider = {"type": "external", "module": PROVIDER, "gcs_address": self.address, "launch_multiple": True}
        config = {
            "cluster_name": "scaled", "max_workers": 2, "idle_timeout_minutes": 0.1, "upscaling_speed": 1.0,
            "provider": {**provider, "head_node_id": FAKE_HEAD_NODE_ID}, "head_node_type": "ray.head.default",
            "available_node_types": {
                "ray.head.default": {**kind, "max_workers": 0}, "same": {**kind, "min_workers": 0, "max_workers": 2},
            },
            "file_mounts_sync_continuously": False, **{key: {} for key in EMPTY}, **{key: [] for key in NONE},
        }  # fmt: skip
        (folder / "autoscaling.json").write_text(json.dumps(config))
        mine = {"RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID}
        mine |= {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_enable_autoscaler_v2": "1"}
        mine["RAY_AUTH_MODE"] = "disabled"  # as for nodes of `ray.cluster_utils.Cluster`
        words = [
            str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--num-cpus=1",
            f"--port={self.address.rpartition(':')[2]}", f"--temp-dir={folder}", "--include-dashboard=false",
            "--disable-usage-stats", f"--autoscaling-config={folder / 'autoscaling.json'}",
        ]  # fmt: skip
        with (folder / "ray.log").open("wb") as log:
            self.process = subprocess.Popen(
                words, env={**os.environ, **mine}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + PATIENCE
        while self.nodes() < 1 or "Ray runtime started" not in (folder / "ray.log").read_text():
            assert self.process.poll() is None, (folder / "ray.log").read_text()
            assert time.monotonic() < deadline, (folder / "ray.log").read_text()
            time.sleep(0.2)

    def nodes(self) -> int:
        return sum(process.name() == "raylet" for process in self.processes())

    def processes(self) -> list[psutil.Process]:
        """All of this cluster: each has its folder on its command line."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if any(str(self.folder) in word for word in process.cmdline()):
                    found.append(process)
        return found

    def end(self) -> None:
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.kill()
        self.process.wait()


@pytest.fixture
def scaled() -> Iterator[Scaled]:
    with tempfile.TemporaryDirectory(prefix="as-", dir="/tmp", ignore_cleanup_errors=True) as folder:  # a short path
        made = Scaled(Path(folder))
        try:
            yield made
        finally:
            made.end()


def test_a_long_queue_starts_a_second_node_of_the_same_kind_which_goes_when_the_queue_is_empty(
    project: Project, scaled: Scaled
) -> None:
    service = Service(project, more=("--address", scaled.address, "--no-mlflow"))
    try:
        service.wait()
        client = service.client("ann")
        slow = {
            "name": "slow",
            "models": [{"name": "cnn", "adapter": "small_cnn", "args": {"epochs": 1}}],
            "datasets": [{"dataset": "digits", "limit": 64}],
            "evaluations": {
                "attacks": [{"attack": "pgd", "norm": "linf", "epsilons": [0.02], "args": {"steps": 20_000}}]
            },
            "resources": {"batch_size": 4},
        }
        one = client.submit(yaml.safe_dump(slow).encode())["id"]
        until(lambda: client.get(one)["done"] >= 1, service)
        until(lambda: scaled.nodes() >= 2, service)
        ready = service.said().count("a worker is ready")
        until(lambda: service.said().count("a worker is ready") > min(ready, 1), service)
        client.cancel(one)
        until(lambda: client.get(one)["state"] == "canceled", service)
        until(lambda: scaled.nodes() == 1, service)
        assert scaled.process.poll() is None
    finally:
        service.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            service.process.wait(PATIENCE)
        service.log.close()
