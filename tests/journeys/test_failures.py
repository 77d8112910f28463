"""A model that raises, dies, hangs or runs out of memory costs its own tasks and no others."""

import json

import pytest

from tests.journeys.conftest import SUITE, Finished, Project

pytestmark = pytest.mark.timeout(3600)


def test_faulty_models_fail_with_their_reason_and_the_sound_one_is_measured(project: Project):
    models = [{"name": "sound", "adapter": "lab_means"}]
    for fault in ("raise", "exit", "hang", "memory", "build"):
        models.append({"name": fault, "adapter": "lab_means", "args": {"fault": fault}})
    for fault in ("exit", "hang", "raise"):
        mark = str(project.folder / f"{fault}.mark")
        models.append({"name": f"{fault}-once", "adapter": "lab_means", "args": {"fault": fault, "mark": mark}})
    project.suite(
        models=models,
        datasets=[{"dataset": "lab_digits", "limit": 100}],
        evaluations={"attacks": SUITE["evaluations"]["attacks"][:1]},
        resources={"timeout": 10, "retries": 1},
    )
    document = project.run(code=1)
    rows = {row["model"]: row for row in document["rows"]}
    assert set(rows) == {model["name"] for model in models}
    for name in ("sound", "exit-once", "hang-once", "raise-once"):
        assert rows[name]["failures"] == [], name
        assert rows[name]["metrics"] == rows["sound"]["metrics"]
    reasons = {"raise": "adapter", "build": "adapter", "exit": "worker died", "hang": "timeout"}
    reasons["memory"] = "out of memory"
    for name, reason in reasons.items():
        failures = rows[name]["failures"]
        assert [one["evaluation"] for one in failures] == ["clean", "shove"], name
        assert {failure["reason"] for failure in failures} == {reason}, name
        assert sum(failure["stop"] - failure["start"] for failure in failures) == 200
    assert "the cable was loose" in json.dumps(rows["raise"]["failures"])
    assert "no such shelf" in json.dumps(rows["build"]["failures"])


def test_a_tracking_server_that_is_away_loses_nothing_and_publish_logs_later(finished: Finished):
    assert "not logged to MLflow" in finished.said
    assert "gauntlet publish" in finished.said
    assert finished.document["rows"][0]["metrics"]["clean_accuracy"]["value"] > 0.8
    later = finished.project.gauntlet("publish", "out", "--output", "out")
    assert "runs logged" in later.stderr
    assert "logged already" in finished.project.gauntlet("publish", "out", "--output", "out").stderr
