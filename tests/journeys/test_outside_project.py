"""A module outside the repository that registers an adapter, an attack and a data set runs untouched."""

import json

import pyarrow.parquet as pq
import pytest

from bench.results import EXPORT
from tests.journeys.conftest import Finished, Project

pytestmark = pytest.mark.timeout(3600)


def test_a_suite_with_ones_own_module_runs_to_a_leaderboard_and_again_costs_nothing(finished: Finished):
    project, document = finished.project, finished.document
    [row] = document["rows"]
    assert (document["suite"], row["model"], row["dataset"]) == ("lab", "means", "lab_digits")
    metrics = row["metrics"]
    assert 0.85 < metrics["clean_accuracy"]["value"] < 1
    assert metrics["clean_accuracy"]["n"] == 599
    assert metrics["clean_accuracy"]["low"] < metrics["clean_accuracy"]["value"] < metrics["clean_accuracy"]["high"]
    worst = metrics["robust_accuracy/linf/worst/0.1"]["value"]
    assert worst <= metrics["robust_accuracy/linf/pgd/0.1"]["value"] < metrics["clean_accuracy"]["value"]
    assert worst <= metrics["robust_accuracy/linf/shove/0.1"]["value"]
    assert row["failures"] == []

    before = project.records()
    again = project.gauntlet("run", "suite.yaml", "--output", "out", "--format", "json")
    assert "everything is in the store already" in again.stderr
    assert json.loads(again.stdout) == document
    assert project.records() == before

    table = pq.read_table(project.folder / "out" / "export.parquet")
    assert table.schema.equals(EXPORT)
    assert table.num_rows == 3 * 599
    assert set(table["evaluation"].to_pylist()) == {"clean", "shove", "pgd"}
    clean = table.slice(0, 599)
    right = sum(clean["label"].to_numpy() == clean["prediction"].to_numpy())
    assert right / 599 == metrics["clean_accuracy"]["value"]

    html = (project.folder / "out" / "reports" / document["submission"] / "leaderboard.html").read_text()
    assert "means" in html
    printed = project.here("leaderboard", "out")
    assert "means" in printed
    assert max(map(len, printed.splitlines())) <= 100
    assert "means" in project.here("leaderboard", document["submission"], "--output", "out", "--format", "csv")
    assert "30 tasks, 0 to do" in project.gauntlet("plan", "suite.yaml", "--output", "out").stdout
    assert "0 damaged" in project.here("store", "verify", "--output", "out")
    assert "0 files" in project.here("store", "gc", "--output", "out")

    (project.folder / "lab.py").write_text((project.folder / "lab.py").read_text().replace("the cable", "a cable"))
    plan = project.gauntlet("plan", "suite.yaml", "--output", "out").stdout
    assert "30 tasks, 30 to do" in plan, "a changed plugin is measured anew"


def test_a_typo_ends_with_code_2_before_any_work_and_names_the_place(project: Project):
    path = project.suite(evaluations={"attacks": [{"attack": "lab_shov", "norm": "linf", "epsilons": [0.1]}]})
    done = project.gauntlet("run", "suite.yaml", code=2)
    assert "no attack 'lab_shov' - did you mean 'lab_shove'?" in done.stderr
    assert "suite.yaml:" in done.stderr
    assert "Traceback" not in done.stderr
    assert path.exists()
    assert not (project.folder / "gauntlet-out").exists()


def test_a_module_that_does_not_import_is_an_error_that_names_it(project: Project):
    (project.folder / "lab.py").write_text("import nosuchmodule\n")
    said = project.here("validate", "suite.yaml", code=2)
    assert "lab.py" in said
    assert "nosuchmodule" in said


def test_an_unknown_run_names_the_nearest_one(project: Project):
    assert "no run 'lab-12345678'" in project.here("leaderboard", "lab-12345678", code=4)
