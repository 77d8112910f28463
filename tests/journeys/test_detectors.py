"""Detectors are fitted and scored like everything else: sharded, the same bytes, and a failure costs its own."""

import json
import os
import signal
import subprocess
import time
from typing import Any

import pytest

from tests.journeys.conftest import Project

KNOWN = {"dataset": "classes_of", "args": {"dataset": "digits", "classes": [0, 1, 2, 3]}}
OUTLIERS = {"dataset": "classes_of", "limit": 50, "args": {"dataset": "digits", "classes": [8, 9]}}
NET = {"data": KNOWN, "classes": 4, "size": 8, "padding": 1, "epochs": 2}
INSIDE = {"adapter": "odin_cnn", "args": NET, "detector_args": {"layer": "pool2"}, "fit_on": KNOWN}


def fresh(part: Any) -> Any:
    """Without shared objects, which YAML would write as the aliases that a suite refuses."""
    return json.loads(json.dumps(part))


@pytest.mark.timeout(900)
def test_detectors_and_a_model_that_refuses_give_the_same_bytes_on_one_worker_and_two(project: Project):
    parts = {
        "plugins": [],
        "models": [
            {"name": "cnn", "adapter": "odin_cnn", "args": NET},
            {"name": "guarded", "adapter": "refusing", "args": INSIDE},
        ],
        "datasets": [KNOWN],
        "evaluations": {
            "detectors": [
                {
                    "detector": "odin_pca",
                    "name": "lof",
                    "outliers": OUTLIERS,
                    "args": {"scores": ["lof"]},
                    "cost": True,
                },
                {"detector": "mc_dropout", "outliers": OUTLIERS, "args": {"passes": 3}},
                {"detector": "knn", "name": "wrong", "outliers": OUTLIERS, "args": {"layer": "pool3"}},
            ]
        },
        "resources": {"batch_size": 32, "retries": 0},
    }
    project.suite(**{key: fresh(value) for key, value in parts.items()})
    document = project.run("one", "--workers", "1", code=1)
    rows = {row["model"]: row for row in document["rows"]}
    for row in rows.values():
        assert {failure["evaluation"] for failure in row["failures"]} == {"wrong"}
        assert "its fit failed: no feature layer 'pool3'" in row["failures"][0]["message"]
        assert row["metrics"]["auroc/lof"]["value"] > 0.5
        assert row["metrics"]["fit_seconds/lof"]["value"] > 0
        assert row["metrics"]["overhead/lof"]["value"] > -1
    assert rows["guarded"]["metrics"]["coverage"]["value"] < 1
    assert "coverage" not in rows["cnn"]["metrics"]

    project.run("two", "--workers", "2", code=1)
    assert project.records("one") == project.records("two")


@pytest.mark.timeout(900)
def test_a_run_killed_among_its_fits_keeps_those_that_are_done_and_ends_with_the_same_bytes(project: Project):
    """The first fit takes longer than the timeout: the blocks that it asks for are signs of life."""
    outliers = {"dataset": "lab_digits", "split": "train", "limit": 50}
    detectors = [
        {"detector": "lab_mean_distance", "name": name, "outliers": outliers, "args": {"pause": pause}}
        for name, pause in (("first", 1.3), ("second", 0.4), ("third", 0.41))
    ]
    resources = {"timeout": 12, "retries": 0}
    project.suite(evaluations={"detectors": fresh(detectors)}, resources=resources)
    document = project.run("undisturbed", "--workers", "2")
    assert document["rows"][0]["failures"] == []
    assert document["rows"][0]["metrics"]["fit_seconds/first"]["value"] > resources["timeout"]

    victim = subprocess.Popen(
        project.command("run", "suite.yaml", "--output", "killed", "--workers", "1"),
        cwd=project.folder,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    fits = project.folder / "killed" / "store" / "trained"
    deadline = time.monotonic() + 120
    while not list(fits.rglob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(victim.pid, signal.SIGKILL)  # the driver and its Ray, at once
    victim.wait()
    kept = {path: path.stat().st_mtime_ns for path in fits.rglob("*.json")}
    assert 1 <= len(kept) < 3, "the run was to be killed among its fits"
    project.run("killed", "--workers", "1")
    assert all(path.stat().st_mtime_ns == changed for path, changed in kept.items()), "a fit that is done is not redone"
    assert project.records("killed") == project.records("undisturbed")
