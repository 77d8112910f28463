"""A model that raises, dies, hangs or runs out of memory costs its own tasks and no others."""

import json

from tests.journeys.conftest import SUITE, Project


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
        resources={"batch_size": 64, "timeout": 3, "retries": 1},
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
        assert len(failures) == 4, f"{name}: 2 blocks x (clean, shove)"
        assert {failure["reason"] for failure in failures} == {reason}, name
        assert sum(failure["stop"] - failure["start"] for failure in failures) == 200
    assert "the cable was loose" in json.dumps(rows["raise"]["failures"])
    assert "no such shelf" in json.dumps(rows["build"]["failures"])

    (project.folder / "lab.py").write_text((project.folder / "lab.py").read_text().replace("the cable", "a cable"))
    assert (
        "everything is in the store"
        not in project.gauntlet("run", "suite.yaml", "--output", "out", "--only", "sound/*").stderr
    ), "a changed plugin is measured anew"


def test_a_tracking_server_that_is_away_loses_nothing_and_publish_logs_later(project: Project):
    done = project.gauntlet("run", "suite.yaml", "--tracking-uri", "http://127.0.0.1:9", "--format", "json")
    assert "not logged to MLflow" in done.stderr
    assert "gauntlet publish" in done.stderr
    assert json.loads(done.stdout)["rows"][0]["metrics"]["clean_accuracy"]["value"] > 0.8
    later = project.gauntlet("publish", "gauntlet-out")
    assert "runs logged" in later.stderr
    assert "logged already" in project.gauntlet("publish", "gauntlet-out").stderr
