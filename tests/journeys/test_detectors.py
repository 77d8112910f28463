"""Detectors are fitted and scored like everything else: sharded, the same bytes, and a failure costs its own."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.journeys.conftest import Project

pytestmark = pytest.mark.timeout(3600)
PAUSE = "LAB_PAUSE"  # of lab.py
KNOWN = {"dataset": "classes_of", "args": {"dataset": "digits", "classes": [0, 1, 2, 3]}}
OUTLIERS = {"dataset": "classes_of", "limit": 50, "args": {"dataset": "digits", "classes": [8, 9]}}
NET = {"data": KNOWN, "classes": 4, "size": 8, "padding": 1, "epochs": 2}
INSIDE = {"adapter": "odin_cnn", "args": NET, "detector_args": {"layer": "pool2"}, "fit_on": KNOWN}


def fresh(part: Any) -> Any:
    """Without shared objects, which YAML would write as the aliases that a suite refuses."""
    return json.loads(json.dumps(part))


def test_detectors_and_a_model_that_refuses_give_the_same_bytes_on_one_worker_and_on_two_killed_among_their_fits(
    project: Project, tmp_path: Path
):
    parts = {
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
                {"detector": "lab_mean_distance", "name": "last", "outliers": OUTLIERS},
            ]
        },
        "resources": {"batch_size": 32, "timeout": 12},
    }
    project.suite(**{key: fresh(value) for key, value in parts.items()})
    project.run("one", "--workers", "1", code=1)

    def made(output: str) -> dict[Path, int]:
        """What was trained and fitted, and when."""
        files = (project.folder / output / "store" / "trained").rglob("*.json")
        return {path: path.stat().st_mtime_ns for path in files}

    gate = tmp_path / "gate"
    gate.mkdir()
    with project.started("run", "suite.yaml", "--output", "two", "--workers", "2", gate=gate) as victim:
        victim.reach(lambda: len(made("two")) >= 3)  # the models' own two, and a first fit
        victim.signal(signal.SIGKILL)
    kept = made("two")
    assert 3 <= len(kept) <= len(made("one")) - 2, "`last` waits at the gate for either model"

    project.environment = lambda: {**os.environ, PAUSE: "1.3"}  # type: ignore[method-assign]
    document = project.run("two", "--workers", "2", code=1)
    assert kept.items() <= made("two").items(), "what was trained or fitted is not made again"
    rows = {row["model"]: row for row in document["rows"]}
    for row in rows.values():
        assert {failure["evaluation"] for failure in row["failures"]} == {"wrong"}
        assert "its fit failed: no feature layer 'pool3'" in row["failures"][0]["message"]
        metrics = {name: metric["value"] for name, metric in row["metrics"].items()}
        assert metrics["auroc/lof"] > 0.5
        assert metrics["fit_seconds/lof"] > 0
        assert metrics["overhead/lof"] > -1
        # a fit is no hang, however long it takes: the blocks that it asks for are signs of life
        assert metrics["fit_seconds/last"] > parts["resources"]["timeout"]
    assert rows["guarded"]["metrics"]["coverage"]["value"] < 1
    assert "coverage" not in rows["cnn"]["metrics"]
    assert project.records("one") == project.records("two")
