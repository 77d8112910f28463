"""A training that is killed, or whose worker is, goes on from its checkpoint and ends with the same weights."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.journeys.conftest import Project

RECIPE = {
    "family": "binarised",
    "data": {"dataset": "digits"},
    "width": 32,
    "train": {"epochs": 12, "adversary": {"kind": "pgd", "steps": 8, "epsilon": 0.1}},
}


def made(project: Project, output: str) -> tuple[str, dict[str, list[float]]]:
    """The digest of the weights that the one training made, and its curves."""
    [path] = (project.folder / output / "store" / "trained").rglob("*.json")
    found = json.loads(path.read_text())
    return found["weights"], found["curves"]


def started(project: Project, output: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        project.command("run", "suite.yaml", "--output", output),
        cwd=project.folder,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def first_checkpoint(project: Project, output: str) -> Path:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        found = [path for path in (project.folder / output / "store" / "checkpoints").rglob("*") if path.is_file()]
        if found and not found[0].name.startswith("."):
            return found[0]
        time.sleep(0.02)
    raise AssertionError("the training never left a checkpoint")


@pytest.mark.slow
def test_a_killed_training_and_one_that_lost_its_worker_end_with_the_weights_of_an_undisturbed_one(project: Project):
    project.suite(
        models=[{"name": "b", "recipe": RECIPE}],
        datasets=[{"dataset": "digits", "limit": 20}],
        evaluations={},
    )
    project.run("undisturbed")
    weights, curves = made(project, "undisturbed")
    assert len(curves["loss"]) == len(curves["accuracy"]) == 12

    victim = started(project, "killed")
    checkpoint = first_checkpoint(project, "killed")
    os.killpg(victim.pid, signal.SIGKILL)  # the driver and its Ray, at once
    victim.wait()
    assert not (project.folder / "killed" / "store" / "trained").exists()
    project.run("killed")
    assert made(project, "killed") == (weights, curves)
    assert not checkpoint.exists(), "a checkpoint goes when its training is done"

    robbed = started(project, "robbed")
    first_checkpoint(project, "robbed")
    family = psutil.Process(robbed.pid).children(recursive=True)
    [worker] = [child for child in family if "_Actor.train" in " ".join(child.cmdline())]
    worker.kill()
    assert robbed.wait(timeout=240) == 0
    assert made(project, "robbed") == (weights, curves)
