"""What a pattern leaves out is not made either: neither trained nor fitted."""

from pathlib import Path

import pytest

import tests.detectors.plugins  # noqa: F401 - registers a model and its data
from bench import plugins
from bench.errors import SuiteError
from bench.resolve import Resolver
from bench.store import Store
from bench.suite import Suite

plugins.load_built_in()

NET = {"channels": [4], "hidden": [8], "data": {"dataset": "digits"}, "train": {"epochs": 1}}
SUITE = {
    "name": "parts",
    "models": [
        {"name": "a", "adapter": "cnn", "args": NET},
        {"name": "b", "adapter": "cnn", "args": {**NET, "repeat": 1}},
        {"name": "twin", "adapter": "cnn", "args": NET},
        {"name": "c", "adapter": "cnn", "args": {**NET, "repeat": 2}, "baseline": "b"},
        {"name": "half", "adapter": "pruned_channels", "args": {"model": {"adapter": "cnn", "args": NET}}},
    ],
    "datasets": [{"dataset": "digits", "limit": 20}],
    "evaluations": {"probes": ["paired_latency"]},
}


def labels(where: Path, only: str | None, **changes: object) -> list[str]:
    asked = Suite.model_validate({**SUITE, **changes})
    return [task.label for task in Resolver(Store(str(where)), asked, "hardware").resolve(only)[1]]


@pytest.mark.parametrize(
    ("only", "trained"),
    [
        (None, ["a", "b", "c"]),  # the others wait for, or share, the first one's weights
        ("b/*/clean", ["b"]),
        ("twin/*/clean", ["twin"]),
        ("half/*/clean", ["half"]),  # what it starts from
        ("c/*/clean", ["c"]),
        ("c/*/paired_latency", ["b", "c"]),  # and what it is compared with
    ],
)
def test_models_are_trained_that_are_needed(tmp_path: Path, only: str | None, trained: list[str]) -> None:
    assert labels(tmp_path, only) == trained


def test_a_pattern_that_matches_nothing_is_a_mistake_and_the_nearest_name_is_told(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="matches 'b/digit/clean' - did you mean 'b/digits/clean'"):
        labels(tmp_path, "b/digit/clean")


def test_detectors_are_fitted_that_are_needed(tmp_path: Path) -> None:
    detectors = [
        {"detector": "odin_pca", "name": "near", "outliers": {"dataset": "t_far"}, "cost": True},
        {"detector": "mahalanobis", "name": "far", "outliers": {"dataset": "t_far"}},
    ]
    changes = {
        "models": [{"name": "net", "adapter": "t_small"}],
        "datasets": [{"dataset": "t_near"}],
        "evaluations": {"detectors": detectors},
    }
    assert labels(tmp_path, None, **changes) == ["near on net", "far on net"]
    assert labels(tmp_path, "net/*/far", **changes) == ["far on net"]
    assert labels(tmp_path, "net/*/near*", **changes) == ["near on net"]
    assert labels(tmp_path, "net/*/clean", **changes) == []


def test_the_submission_is_the_same(tmp_path: Path) -> None:
    found = Resolver(Store(str(tmp_path)), Suite.model_validate(SUITE), "hardware")
    assert found.resolve("b/*/clean")[0].submission == found.resolve()[0].submission
