"""What comes out of a run."""

from pathlib import Path

import pytest

from bench.errors import SuiteError
from bench.records import Metric, Row
from bench.results import _telling_first, leaderboard
from bench.verbs import arguments
from tests.reports.lab import made_run


def test_the_suites_columns_come_first_and_derived_metrics_last():
    names = [
        "attack_success/linf/pgd/0.1",
        "macs",
        "forwards/linf/pgd",
        "clean_accuracy",
        "robust_accuracy/linf/pgd/0.1",
    ]
    row = Row(model="m", dataset="d", metrics={name: Metric(value=1.0) for name in names})
    ordered = list(_telling_first(row, ("robust_accuracy/linf/pgd/0.1", "clean_accuracy")).metrics)
    assert ordered == [
        "robust_accuracy/linf/pgd/0.1",
        "clean_accuracy",
        "macs",
        "attack_success/linf/pgd/0.1",
        "forwards/linf/pgd",
    ]


def test_a_label_that_other_readers_of_yaml_take_for_a_truth_value_stays_a_label(tmp_path: Path):
    parts = [{"metric": "clean_accuracy"}, {"metric": "robust_accuracy/linf/pgd/0.1"}]
    run = made_run(tmp_path, scores=[{"name": "on", "of": parts}])
    assert [score.name for score in leaderboard(run).scores] == ["on"]


def test_arguments_on_the_command_line_mean_what_they_mean_in_a_suite():
    assert arguments(["rate=8/255", "name=no", "sizes=[1, 2]"]) == {"rate": 8 / 255, "name": "no", "sizes": [1, 2]}
    with pytest.raises(SuiteError) as raised:
        arguments(["width", "rate=1/0", "names=[a"])
    assert [mistake.where for mistake in raised.value.mistakes] == ["--set width", "--set rate", "--set names"]
