import math

import pytest

from bench.metrics.scores import scaled, with_scores
from bench.records import Metric, Row
from bench.suite_board import Leaderboard, Score, ScorePart

MACS = ScorePart(metric="macs", worst=1e6, best=1e4, scale="log")
OVERALL = Score(name="overall", of=(ScorePart(metric="clean_accuracy", weight=3), MACS))


def row(model: str = "a", clean: float | None = 0.9, macs: float = 1e5, **more: object) -> Row:
    low_high = {} if clean is None else {"low": clean - 0.04, "high": clean + 0.02}
    metrics = {"clean_accuracy": Metric(value=clean, n=100, **low_high), "macs": Metric(value=macs)}
    return Row(model=model, dataset="d", metrics=metrics, **more)  # type: ignore[arg-type]


def test_a_score_is_the_weighted_mean_of_its_parts_on_their_scales() -> None:
    [made] = with_scores([row()], [OVERALL])
    found = made.metrics["score/overall"]
    assert found.value == pytest.approx((3 * 0.9 + 0.5) / 4), "1e5 lies half way between 1e6 and 1e4 in logarithms"
    assert (found.low, found.high) == (pytest.approx((3 * 0.86 + 0.5) / 4), pytest.approx((3 * 0.92 + 0.5) / 4))


@pytest.mark.parametrize(("value", "expected"), [(1e7, 0), (1e6, 0), (1e5, 0.5), (1e4, 1), (1e3, 1), (0, 1), (-1, 1)])
def test_beyond_its_ends_a_scale_stays_at_0_and_1(value: float, expected: float) -> None:
    assert scaled(MACS, value) == pytest.approx(expected)
    assert math.isfinite(scaled(MACS, value))


def test_a_score_of_counts_alone_has_no_interval() -> None:
    counts = Score(name="c", of=(MACS, ScorePart(metric="size", worst=10, best=0)))
    metrics = {"macs": Metric(value=1e5), "size": Metric(value=5.0)}
    [made] = with_scores([Row(model="a", dataset="d", metrics=metrics)], [counts])
    found = made.metrics["score/c"]
    assert (found.value, found.low, found.high, found.n) == (pytest.approx(0.5), None, None, None)


def test_without_a_part_there_is_no_score_and_the_row_says_which() -> None:
    [made] = with_scores([row(clean=None)], [OVERALL])
    assert made.metrics["score/overall"].value is None
    assert "score/overall: undefined: there is no value of clean_accuracy" in made.flags


def test_what_is_said_of_a_part_is_said_of_the_score() -> None:
    flags = ("clean_accuracy: incomplete: 5 of 9", "other: contended: x", "macs: source: a")
    [made] = with_scores([row(flags=flags)], [OVERALL])
    assert [flag for flag in made.flags if flag.startswith("score")] == [
        "score/overall: incomplete: clean_accuracy: 5 of 9"
    ]


def test_a_score_of_timings_is_not_ranked_across_machines() -> None:
    timed = Score(
        name="t", of=(ScorePart(metric="clean_accuracy"), ScorePart(metric="latency_ms/p50", worst=9, best=0))
    )
    rows = [row(name, hardware=machine) for name, machine in (("a", "x"), ("b", "x"), ("c", "y"))]
    rows = [one.model_copy(update={"metrics": {**one.metrics, "latency_ms/p50": Metric(value=3.0)}}) for one in rows]
    mixed = [one.model for one in with_scores(rows, [timed]) if any("mixed" in flag for flag in one.flags)]
    assert mixed == ["c"]


def test_there_is_no_score_unless_the_suite_asks() -> None:
    assert with_scores([row()], Leaderboard().scores) == [row()]


def test_the_parts_of_a_score_always_stand_beside_it() -> None:
    shown = Leaderboard(columns=("score/overall", "size", "macs"), scores=(OVERALL,)).shown
    assert shown == ("score/overall", "clean_accuracy", "size", "macs")
    ranked = Leaderboard(columns=("size",), rank_by="score/overall", scores=(OVERALL,)).shown
    assert ranked == ("score/overall", "clean_accuracy", "macs", "size")
