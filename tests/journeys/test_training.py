"""A training that is killed, or whose worker is, goes on from its checkpoint and ends with the same weights."""

import json
import signal
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


def checkpoints(project: Project, output: str) -> list[Path]:
    files = (project.folder / output / "store" / "checkpoints").rglob("*")
    return [path for path in files if path.is_file() and not path.name.startswith(".")]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_killed_training_and_one_that_lost_its_worker_end_with_the_weights_of_an_undisturbed_one(project: Project):
    project.suite(
        models=[{"name": "b", "recipe": RECIPE}],
        datasets=[{"dataset": "digits", "limit": 20}],
        evaluations={},
    )
    project.run("undisturbed")
    weights, curves = made(project, "undisturbed")
    assert len(curves["loss"]) == len(curves["accuracy"]) == 12

    with project.started("run", "suite.yaml", "--output", "killed") as victim:
        victim.reach(lambda: checkpoints(project, "killed"))
        victim.signal(signal.SIGKILL)
    [checkpoint] = checkpoints(project, "killed")
    assert not (project.folder / "killed" / "store" / "trained").exists()
    project.run("killed")
    assert made(project, "killed") == (weights, curves)
    assert not checkpoint.exists(), "a checkpoint goes when its training is done"

    with project.started("run", "suite.yaml", "--output", "robbed") as robbed:
        robbed.reach(lambda: checkpoints(project, "robbed"))
        family = psutil.Process(robbed.process.pid).children(recursive=True)
        [worker] = [child for child in family if "_Actor.train" in " ".join(child.cmdline())]
        worker.kill()
        robbed.end()
    assert made(project, "robbed") == (weights, curves)
