"""Two nodes, one suite: timings have one node to themselves while the other keeps attacking, and give it back."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.journeys.conftest import PATIENCE, Project

TRACING = '''
import json, os, time
import ray
from bench.contracts import Attack, Figure, Norm, Probe, attack, probe


def trace(kind, seconds):
    begin = time.time()
    time.sleep(seconds)
    line = {"kind": kind, "node": ray.get_runtime_context().get_node_id(), "begin": begin, "end": time.time(),
            "process": os.getpid()}
    with open(os.environ["TRACE"], "a") as file:
        file.write(json.dumps(line) + "\\n")


@attack("traced")
class Traced(Attack):
    """Waits."""

    norms = (Norm.LINF,)
    exhaustive = True
    norm: Norm = Norm.LINF

    def run(self, model, x, y, epsilon, random):
        trace("attack", 0.5)
        return x


@probe("timed")
class Timed(Probe):
    """Waits, alone."""

    exclusive = True

    def process_count(self):
        return 2

    def measure(self, model, samples, artefact):
        trace("timing", 2.0)
        return [Figure(name="waited", value=2.0)]

    @classmethod
    def figures(cls):
        return ("waited",)
'''

CLUSTER = """
import subprocess, sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
try:
    done = subprocess.run([sys.executable, "-m", "bench", "run", "suite.yaml", "--output", "out", "--format", "json",
                           "--address", cluster.address])
finally:
    cluster.shutdown()
sys.exit(done.returncode)
"""


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_nothing_else_runs_beside_a_timing_while_the_other_node_attacks_and_the_node_is_given_back(
    project: Project, tmp_path: Path
) -> None:
    (project.folder / "tracing.py").write_text(TRACING)
    (project.folder / "cluster.py").write_text(CLUSTER)
    suite = {
        "name": "placement",
        "plugins": ["lab.py", "tracing.py"],
        "models": [{"name": "means", "adapter": "lab_means"}],
        "datasets": [{"dataset": "lab_digits", "limit": 480}],
        "evaluations": {"attacks": [{"attack": "traced", "norm": "linf", "epsilons": [0.1]}], "probes": ["timed"]},
        "resources": {"batch_size": 2},  # of which there are two minutes, while the timings take some 15 s
    }
    (project.folder / "suite.yaml").write_text(yaml.safe_dump(suite))
    file = tmp_path / "trace.jsonl"
    done = subprocess.run(
        [sys.executable, "cluster.py"],
        cwd=project.folder,
        env={**project.environment(), "TRACE": str(file), "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    timings = [line for line in lines if line["kind"] == "timing"]
    attacks = [line for line in lines if line["kind"] == "attack"]
    assert len(timings) == len({line["process"] for line in timings}) == 2, "each in a process of its own"
    [node] = {line["node"] for line in timings}
    begin, end = min(line["begin"] for line in timings), max(line["end"] for line in timings)
    there = [line for line in attacks if line["node"] == node]
    assert all(line["begin"] >= end for line in there), "nothing ran on the node before its timings had ended"
    elsewhere = [line for line in attacks if line["node"] != node and begin < line["begin"] < end]
    assert len(elsewhere) >= 4, "the other node kept attacking"
    assert there, "afterwards the node was given back"
