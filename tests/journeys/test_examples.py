"""Adversarial examples of one run, as a user takes them to another model."""

import json

import numpy as np
import pytest

from tests.journeys.conftest import Project

pytestmark = pytest.mark.timeout(3600)
ATTACK = {"attack": "pgd", "norm": "linf", "epsilons": [0.05, 0.1], "args": {"steps": 5}, "keep": "exact"}


def test_what_a_run_kept_is_a_data_set_and_is_replayed_on_another_model_and_who_kept_nothing_is_told_what_to_do(
    project: Project,
):
    small = [{"dataset": "lab_digits", "limit": 100}]
    project.suite(datasets=small, evaluations={"attacks": [ATTACK]})
    [row] = project.run("out", "--workers", "1")["rows"]
    metrics = {name: metric["value"] for name, metric in row["metrics"].items()}
    assert metrics["robust_accuracy/linf/pgd/0.1"] <= metrics["robust_accuracy_8bit/linf/pgd/0.1"]

    assert "100 samples" in project.here("examples", "out", "--to", str(project.folder / "pgd.npz"))
    with np.load(project.folder / "pgd.npz") as file:
        crafted, adversarial, original = file["crafted"], file["adversarial"], file["original"]
    assert 0 < crafted.sum() < 100
    assert np.abs(adversarial - original).max() <= 0.1 + 1e-6
    assert (np.abs(adversarial - original).max(axis=1) > 0).tolist() == crafted.tolist()

    models = [{"name": "means", "adapter": "lab_means"}, {"name": "again", "adapter": "lab_means"}]
    project.suite(name="two", models=models, datasets=small, evaluations={})
    words = ["transfer", "suite.yaml", "--from", "out", "--output", "out", "--format", "json"]
    replayed = json.loads(project.gauntlet(*words).stdout)
    found = {(one["model"], one["dataset"]): one["metrics"]["clean_accuracy"]["value"] for one in replayed["rows"]}
    source = "means.lab_digits.pgd"
    assert replayed["suite"] == "two-transfer"
    assert found["again", source] == metrics["robust_accuracy/linf/pgd/0.1"], "the same model, the same examples"
    assert found["again", f"{source}.8bit"] == pytest.approx(metrics["robust_accuracy_8bit/linf/pgd/0.1"])
    assert found["again", f"{source}.untouched"] == metrics["clean_accuracy"]
    assert "everything is in the store already" in project.gauntlet(*words).stderr

    said = project.here("examples", replayed["submission"], "--output", "out", "--to", "x.npz", code=4)
    assert "no adversarial examples" in said
    assert "add `keep: exact` to an attack" in said
