import numpy as np
import pytest
from scipy import stats

from bench.metrics import outliers, paired


def test_mid_p_of_the_example_that_its_authors_print() -> None:
    """Fagerland et al. 2013, airway reactivity in 21 children: 1 and 7 discordant pairs, mid-p 0.039."""
    assert paired.mcnemar(np.array(1), np.array(7)) == pytest.approx(0.0390625)


@pytest.mark.parametrize(("b", "c"), [(0, 1), (0, 6), (3, 9), (9, 3), (20, 41), (100, 160)])
def test_mid_p_is_the_exact_test_less_half_of_the_outcomes_as_likely_as_this_one(b: int, c: int) -> None:
    exact = stats.binomtest(b, b + c, 0.5).pvalue
    assert paired.mcnemar(np.array(b), np.array(c)) == pytest.approx(exact - stats.binom.pmf(b, b + c, 0.5))


def test_models_that_never_disagree_or_disagree_evenly_do_not_differ() -> None:
    assert list(paired.mcnemar(np.array([0, 5, 300]), np.array([0, 5, 300]))) == pytest.approx([1.0, 1.0, 1.0])


@pytest.mark.parametrize("disagreement", [0.01, 0.05, 0.2, 0.5])
@pytest.mark.parametrize("n", [50, 300, 1000])
def test_equal_models_are_separated_at_most_one_time_in_twenty(n: int, disagreement: float) -> None:
    """Not simulated but summed over every outcome: how many samples disagree, and which way."""
    chance = 0.0
    for both in range(n + 1):
        weight = stats.binom.pmf(both, n, disagreement)
        if weight > 1e-9:
            b = np.arange(both + 1)
            chance += weight * stats.binom.pmf(b, both, 0.5)[paired.mcnemar(b, both - b) <= 0.05].sum()
    assert chance <= 0.05


def test_the_interval_of_a_difference_of_shares_covers_the_truth_as_often_as_it_says() -> None:
    random, covered = np.random.default_rng(0), 0
    for _ in range(1000):
        draw = random.random(200)
        found = paired.shares(draw < 0.8, (draw < 0.7) | (draw > 0.95))  # true difference -0.05
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= -0.05 <= found.high
    assert 930 <= covered <= 985


def test_a_ratio_is_bootstrapped_to_the_error_that_theory_gives() -> None:
    random = np.random.default_rng(1)
    a, b, ones = random.normal(10, 2, 400), random.normal(10.2, 2, 400), np.ones(400)
    found = paired.ratios((a, ones), (b, ones))
    theory = stats.ttest_rel(b, a)
    assert found.value == pytest.approx(float((b - a).mean()))
    assert found.p == pytest.approx(theory.pvalue, rel=0.2)
    low, high = theory.confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(low, abs=0.03), pytest.approx(high, abs=0.03))


def test_equal_ratios_are_separated_about_one_time_in_twenty_and_not_more() -> None:
    random, separated = np.random.default_rng(2), 0
    for _ in range(100):
        below = random.integers(0, 2, (2, 150)).astype(np.float64)
        top = below * random.integers(0, 2, (2, 150))
        separated += paired.ratios((top[0], below[0]), (top[1], below[1])).p <= 0.05
    assert separated <= 11  # 5 % of 100 is 5; more than 11 has a chance below 1 %


def test_equal_medians_are_separated_at_most_one_time_in_twenty() -> None:
    random, separated = np.random.default_rng(3), 0
    for _ in range(100):
        first, second = random.exponential(1, (2, 80))
        separated += paired.medians(first, second).p <= 0.05
    assert separated <= 10


def test_medians_far_apart_are_separated_although_some_distances_are_infinite() -> None:
    values = np.linspace(1, 2, 60)
    second = values + 5
    second[:10] = np.inf
    found = paired.medians(values, second)
    assert found.p < 0.01
    with pytest.raises(ValueError, match="infinite"):
        paired.medians(values, np.full(60, np.inf))


def test_a_ratio_over_nothing_has_no_difference() -> None:
    with pytest.raises(ValueError, match="over nothing"):
        paired.ratios((np.zeros(3), np.zeros(3)), (np.ones(3), np.ones(3)))


def test_two_aurocs_differ_as_delong_says_and_uncorrelated_ones_as_their_own_intervals() -> None:
    random = np.random.default_rng(4)
    outlying = np.arange(600) < 200
    first, second = random.normal(outlying * 1.0, 1), random.normal(outlying * 1.2, 1)
    found = paired.aurocs(first, second, outlying)
    a, b = (outliers.auroc(scores[~outlying], scores[outlying]) for scores in (first, second))
    assert found.value == pytest.approx(b[0] - a[0])
    errors = [(high - low) / (2 * 1.959964) for _, low, high in (a, b) if low is not None and high is not None]
    assert found.high is not None
    assert (found.high - found.value) / 1.959964 == pytest.approx(np.hypot(*errors), rel=0.1)
    assert paired.aurocs(first, first, outlying).p == 1.0


def test_equal_detectors_are_separated_at_most_one_time_in_twenty() -> None:
    random, outlying = np.random.default_rng(5), np.arange(120) < 50
    separated = sum(
        paired.aurocs(*(random.normal(outlying * 1.0, 1) for _ in range(2)), outlying).p <= 0.05 for _ in range(400)
    )
    assert separated <= 32  # 5 % of 400 is 20; more than 32 has a chance below 1 %


def test_figures_without_chance_differ_or_do_not() -> None:
    assert paired.exact(5.0, 5.0).p == 1.0
    assert (paired.exact(5.0, 7.0).value, paired.exact(5.0, 7.0).p) == (2.0, 0.0)


def test_independent_figures_are_judged_by_both_intervals() -> None:
    found = paired.independent((1.0, 0.902, 1.098), (1.2, 1.102, 1.298))  # standard errors of 0.05
    assert found.p == pytest.approx(2 * stats.norm.sf(0.2 / 0.0707), rel=0.01)


def test_holm_corrects_step_by_step() -> None:
    """Holm 1979 by hand: 4 × .005, 3 × .01, 2 × .03, then never smaller than the one before."""
    assert paired.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert list(paired.holm([])) == []
