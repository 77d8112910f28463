"""Suites of the dynamic families: they can be read, and their rows say who attacked what."""

from pathlib import Path

import numpy as np
import pytest

from attacks.fgsm import FastGradientSign
from attacks.transfer import Transfer
from bench import measure, plugins
from bench.contracts import Norm
from bench.metrics.rows import rows
from bench.records import Cell, Kind
from bench.suite import load
from reports.ranking import View, comparable, sections
from tests.adapters.test_checkerboard import TEST, made, weights  # noqa: F401 - the fixture

plugins.load_built_in()
SUITES = Path(__file__).parents[2] / "suites"


@pytest.mark.parametrize(
    ("name", "profile"),
    [("dynamic", None), ("dynamic", "full"), ("checkerboard", None), ("checkerboard", "full"), ("texts", None)],
)
def test_a_suite_and_its_full_form_are_valid(name, profile):
    assert load(SUITES / f"{name}.yaml", profile=profile).models


def test_rows_of_an_attacker_who_does_not_know_the_model_are_not_ranked_with_others(weights):  # noqa: F811
    defended, control = made(padding="fixed").build(weights[1]), made(intensity=0, padding="none").build(weights[0])
    indices = np.arange(60)

    def row(name, model, attack):
        table = measure.attacked(attack, (0.1,), "test", model, TEST, indices, 0)
        return Cell(name, "digits", "a", Kind.ATTACK, table, norm="linf", epsilons=(0.1,), knowledge=attack.knowledge)

    metric = "robust_accuracy/linf/a/0.1"
    unaware = Transfer(attack="fgsm", norm=Norm.LINF)
    found = rows([row("ace", defended, unaware), row("cnn", control, unaware)])
    assert [any("transferred" in flag for flag in one.flags) for one in found] == [True, False]
    [section] = sections(found, View("s", columns=(metric,), rank_by=metric))
    assert [(line.row.model, line.rank) for line in section.lines] == [("cnn", 1), ("ace", None)]
    assert "did not know this model" in section.lines[1].reason
    assert [one.model for one in comparable(found, metric)] == ["cnn"]
    adaptive = FastGradientSign(norm=Norm.LINF)
    both = rows([row("ace", defended, adaptive), row("cnn", control, adaptive)])
    [section] = sections(both, View("s", columns=(metric,), rank_by=metric))
    assert sorted(line.rank for line in section.lines) == [1, 2]
    alone = rows([row("ace", defended, unaware), row("again", defended, unaware)])
    [section] = sections(alone, View("s", columns=(metric,), rank_by=metric))
    assert [line.rank for line in section.lines] == [1, 1], "all of one setting may be ranked among themselves"
