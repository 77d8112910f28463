import numpy as np
import pytest
from scipy import stats

from bench.metrics import intervals


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 360), (360, 360), (1, 360), (197, 360), (9_999, 10_000)])
def test_wilson_is_scipys_interval(k: int, n: int) -> None:
    expected = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert intervals.wilson(k, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_of_nothing_is_everything() -> None:
    assert intervals.wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("k", "n"), [(-1, 3), (4, 3)])
def test_wilson_refuses_a_share_that_is_none(k: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"k={k}, n={n}"):
        intervals.wilson(k, n)


def test_the_medians_interval_covers_the_true_median_in_about_95_of_100_draws() -> None:
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        _, low, high = intervals.median(generator.exponential(size=101))
        hits += low <= np.log(2) <= high
    assert 0.91 <= hits / 300 <= 1.0


def test_the_median_takes_infinite_values() -> None:
    value, low, high = intervals.median(np.array([*np.arange(60.0), *[np.inf] * 40]))
    assert (value, high) == (49.5, np.inf)
    assert np.isfinite(low)


def test_the_median_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        intervals.median(np.array([]))


def test_the_mean_has_students_interval() -> None:
    values = np.array([1.0, 2.0, 4.0, 8.0])
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert intervals.mean(values) == pytest.approx((3.75, expected.low, expected.high))


def test_a_mean_without_spread_has_no_interval() -> None:
    assert intervals.mean(np.array([3.0, 3.0])) == (3.0, None, None)
    assert intervals.mean(np.array([3.0])) == (3.0, None, None)


def test_the_bootstrap_of_a_mean_is_near_students_interval_and_the_same_twice() -> None:
    values = np.random.default_rng(0).normal(size=400)
    of = [lambda rows: [float(values[rows].mean())], lambda rows: [float(rows.min()), float(values[rows].mean())]]
    [low], [high] = intervals.bootstrap(of[0], 400, repeats=1000)
    _, expected_low, expected_high = intervals.mean(values)
    assert (low, high) == pytest.approx((expected_low, expected_high), abs=0.015)
    lows, highs = intervals.bootstrap(of[1], 400, repeats=1000)
    assert (lows[1], highs[1]) == (low, high), "beside another figure"
