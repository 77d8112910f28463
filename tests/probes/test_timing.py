import numpy as np
import pytest
from scipy.stats import binom, quantile_test

from bench.probes import _timing
from bench.probes._timing import interval, percentile, queries_needed, warm_up


@pytest.mark.parametrize(("n", "q"), [(64, 0.5), (64, 0.9), (100, 0.1), (1000, 0.99), (20, 0.5)])
def test_the_order_statistic_interval_is_that_of_scipys_quantile_test(n, q):
    values = np.sort(np.random.default_rng(n).lognormal(size=n))
    expected = quantile_test(values, p=q).confidence_interval(0.95)
    assert interval(values, q) == (expected.low, expected.high)


def test_an_interval_that_too_few_values_cannot_bound_is_open():
    low, high = interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0], 0.9)
    assert low is not None
    assert high is None


def test_the_interval_covers_the_true_percentile_in_at_least_95_of_100_samples():
    random = np.random.default_rng(1)
    covered = 0
    for _ in range(1000):
        low, high = interval(np.sort(random.exponential(size=64)), 0.9)
        covered += low <= -np.log(0.1) <= high
    assert covered >= 950 - 14  # two standard errors


@pytest.mark.parametrize("q", [0.01, 0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("n", [1, 10, 64, 101])
def test_a_percentile_is_the_nearest_rank(n, q):
    values = np.sort(np.random.default_rng(n).normal(size=n))
    assert percentile(values, q) == np.percentile(values, 100 * q, method="inverted_cdf")


@pytest.mark.parametrize(("q", "n"), [(0.5, 11), (0.9, 64), (0.95, 130), (0.97, 219), (0.99, 662), (0.999, 6636)])
def test_early_stopping_asks_for_the_totals_of_the_mlperf_rules(q, n):
    assert queries_needed(q) == n
    assert binom.cdf(1, n, 1 - q) <= 0.01 < binom.cdf(1, n - 1, 1 - q)


class Clock:
    """Time that passes only in queries."""

    def __init__(self, times) -> None:
        self.now, self.times = 0.0, iter(times)
        self.queries = 0

    def query(self) -> float:
        time = next(self.times)
        self.now += time
        self.queries += 1
        return time


@pytest.fixture
def clock(monkeypatch):
    def start(times) -> Clock:
        made = Clock(times)
        monkeypatch.setattr(_timing, "perf_counter", lambda: made.now)
        return made

    return start


def test_warm_up_ends_once_two_windows_agree_and_not_before_runs_and_seconds(clock):
    steady = clock([0.01] * 10_000)
    assert warm_up(steady.query, runs=50, seconds=0, cap=100) is None
    assert steady.queries == 50
    longer = clock([0.01] * 10_000)
    assert warm_up(longer.query, runs=50, seconds=1, cap=100) is None
    assert 1 <= longer.now < 1.5


def test_warm_up_waits_while_the_model_still_gets_faster(clock):
    falling = clock([1 / (1 + run) for run in range(100)] + [0.01] * 1000)
    assert warm_up(falling.query, runs=50, seconds=0, cap=100) is None
    assert 150 <= falling.queries <= 175


def test_a_warm_up_that_never_settles_ends_at_its_cap_and_says_by_how_much(clock):
    restless = clock([0.01 * 1.1 ** (run // 25) for run in range(100_000)])
    assert warm_up(restless.query, runs=50, seconds=0, cap=20) == pytest.approx(0.1)
    slow = clock([30.0] * 10)
    assert warm_up(slow.query, runs=50, seconds=0, cap=20) == float("inf")
    assert slow.queries == 1
