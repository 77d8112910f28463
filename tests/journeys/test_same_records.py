"""One worker or several, killed or not, in any order: the same records, byte for byte."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.journeys.conftest import Project

ATTACKS = [
    {"attack": "lab_shove", "name": "shove", "norm": "l2", "epsilons": [0.5, 1.0]},
    {"attack": "pgd", "norm": "linf", "epsilons": [0.05, 0.1], "args": {"steps": 10, "random_start": True}},
    {"attack": "foolbox.l2_deep_fool", "name": "deepfool", "norm": "l2", "epsilons": [0.5]},
    {"attack": "foolbox.linf_projected_gradient_descent", "name": "fb_pgd", "norm": "linf", "epsilons": [0.05]},
]


def test_one_worker_and_three_and_a_killed_run_give_the_same_bytes_and_another_batch_size_the_same_verdicts(
    project: Project,
):
    project.suite(evaluations={"attacks": ATTACKS}, datasets=[{"dataset": "lab_digits", "limit": 300}])
    project.run("one", "--workers", "1", "--batch-size", "32")
    project.run("three", "--workers", "3", "--batch-size", "32")
    assert project.records("one") == project.records("three")

    project.run("wide", "--batch-size", "256")
    project.records("wide")
    narrow, wide = (
        pq.read_table(project.folder / name / "export.parquet", columns=["evaluation", "sample", "broken"]).to_pylist()
        for name in ("one", "wide")
    )
    assert len(narrow) == len(wide) == 5 * 300
    changed = sum(a != b for a, b in zip(narrow, wide, strict=True))
    assert changed <= 0.002 * len(narrow), f"{changed} of {len(narrow)} verdicts depend on the batch size"


@pytest.mark.parametrize("when", [3, 9])
def test_a_run_killed_midway_continues_and_ends_with_the_same_bytes(project: Project, when: int):
    slow = [{"attack": "lab_shove", "name": "shove", "norm": "linf", "epsilons": [0.1], "args": {"pause": 0.5}}]
    project.suite(evaluations={"attacks": slow}, resources={"batch_size": 32})
    project.run("undisturbed")
    victim = subprocess.Popen(
        project.command("run", "suite.yaml", "--output", "killed"),
        cwd=project.folder,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    store = project.folder / "killed" / "store" / "records"
    deadline = time.monotonic() + 120
    while len(_files(store)) < when and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(victim.pid, signal.SIGKILL)  # the driver and its Ray, at once
    victim.wait()
    done = len(_files(store))
    assert when <= done < 38, "the run was to be killed midway"
    status = (next((project.folder / "killed" / "runs").iterdir()) / "status.json").read_text()
    assert '"running"' in status

    kept = {path: path.stat().st_mtime_ns for path in _files(store)}
    project.run("killed")
    assert all(path.stat().st_mtime_ns == time_ for path, time_ in kept.items()), "what was measured is not run again"
    assert project.records("killed") == project.records("undisturbed")


def test_ctrl_c_stops_cleanly_and_the_same_command_continues(project: Project):
    slow = [{"attack": "lab_shove", "name": "shove", "norm": "linf", "epsilons": [0.1], "args": {"pause": 1.0}}]
    project.suite(evaluations={"attacks": slow}, resources={"batch_size": 32})
    run = subprocess.Popen(
        project.command("run", "suite.yaml"),
        cwd=project.folder,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    store = project.folder / "gauntlet-out" / "store" / "records"
    deadline = time.monotonic() + 120
    while len(_files(store)) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to the whole group
    out, err = run.communicate(timeout=30)
    assert run.returncode == 130, err
    assert "the same command continues" in err
    assert "Traceback" not in err
    assert out == ""


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*.parquet") if not path.name.startswith(".")]
