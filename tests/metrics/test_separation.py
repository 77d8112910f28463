from dataclasses import replace

import numpy as np
import pytest

from bench.contracts import Figure
from bench.metrics.evidence import Statistic, evidence, paired_difference
from bench.metrics.rows import rows
from bench.metrics.separation import Separation, separation
from bench.records import Cell
from tests.metrics import cells


def separated(metric: str, *made: list[Cell]) -> Separation:
    lines = [row for group in made for row in rows(group)]
    found = {group[0].model: evidence(group) for group in made}
    return separation(metric, lines, {model: kept[metric] for model, kept in found.items() if metric in kept})


def test_models_far_apart_are_told_apart_and_near_ones_are_not() -> None:
    good, near, bad = ([index >= wrong for index in range(200)] for wrong in (20, 22, 80))
    made = [[cells.clean(right, model=name)] for name, right in (("good", good), ("near", near), ("bad", bad))]
    found = separated("clean_accuracy", *made)
    assert found.separates("good", "bad")
    assert found.separates("bad", "near")
    assert not found.separates("good", "near")
    assert (found.tests, found.pairs) == (("mcnemar",), 3)


def test_a_table_of_equal_models_tells_any_two_apart_at_most_one_time_in_twenty() -> None:
    random, wrongly = np.random.default_rng(0), 0
    for _ in range(200):
        made = [[cells.clean(list(random.random(120) < 0.8), model=f"m{index}")] for index in range(6)]
        wrongly += bool(separated("clean_accuracy", *made).apart)
    assert wrongly <= 18  # 5 % of 200 is 10; more than 18 has a chance below 1 %


def test_a_pair_is_judged_on_the_samples_that_both_have() -> None:
    whole = [cells.attack("pgd", [[False]] * 40 + [[True]] * 40, [0.1], model="a")]
    half = [cells.attack("pgd", [[False]] * 40, [0.1], samples=range(40), model="b")]
    assert not separated("robust_accuracy/linf/pgd/0.1", whole, half).apart


@pytest.mark.parametrize(("low", "high", "apart"), [(0.19, 0.21, True), (0.05, 0.35, False)])
def test_latencies_are_told_apart_by_their_intervals(low: float, high: float, apart: bool) -> None:
    fast = [cells.probe(Figure(name="latency_ms/p50", value=0.1, low=0.09, high=0.11), model="fast")]
    slow = [cells.probe(Figure(name="latency_ms/p50", value=0.2, low=low, high=high), model="slow")]
    found = separated("latency_ms/p50", fast, slow)
    assert found.separates("fast", "slow") is apart
    assert found.tests == ("intervals",)


def test_counts_are_told_apart_by_being_different() -> None:
    made = [[cells.probe(Figure(name="macs", value=value), model=name)] for name, value in (("a", 5), ("b", 6))]
    assert separated("macs", *made).apart


def test_a_figure_with_chance_but_without_an_interval_is_never_told_apart() -> None:
    latencies = [
        [cells.probe(Figure(name="latency_ms/first", value=value), model=name)] for name, value in (("a", 5), ("b", 6))
    ]
    assert not separated("latency_ms/first", *latencies).apart
    detectors = [[replace(cells.detector("msp", [0.1, 0.4], outer), model=str(outer))] for outer in ([0.5], [0.2, 0.9])]
    found = separated("fpr95/msp", *detectors)
    assert (found.tests, found.apart) == (("untested",), frozenset())


def test_every_share_stands_on_the_very_samples_of_its_figure() -> None:
    made = [
        cells.clean([True, True, True, False]),
        cells.attack("pgd", [[False, True], [True, True], [False, False], [True, True]], [0.1, 0.2]),
        cells.search("cw", [1.0, 2.0, 3.0, None], [2.0]),  # asked at an epsilon that only the cell knows
        cells.detector("msp", [0.1, 0.4, 0.3], [0.5, 0.35]),
    ]
    (line,) = rows(made)
    found = evidence(made)
    shares = {name: one for name, one in found.items() if one.statistic in (Statistic.SHARE, Statistic.RATIO)}
    assert {"clean_accuracy", "attack_success/linf/pgd/0.1", "forwards/linf/pgd"} < set(shares)
    for name, one in shares.items():
        assert one.values.sum() / one.below.sum() == pytest.approx(line.metrics[name].value), name
    assert np.median(found["median_distance/l2/cw"].values) == line.metrics["median_distance/l2/cw"].value
    assert set(found) <= set(line.metrics)
    assert {name for name in line.metrics if name.startswith("robust_accuracy")} <= set(shares)


def test_an_inlier_is_never_paired_with_the_outlier_of_its_number() -> None:
    one = evidence([cells.detector("msp", [0.1, 0.4, 0.3], [0.5, 0.35])])["auroc/msp"]
    assert sorted(one.samples) == [-2, -1, 0, 1, 2]
    found = paired_difference(one, one)
    assert found is not None
    assert (found.value, found.p, found.n) == (0.0, 1.0, 5)
