import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.metrics import selective

curves = st.lists(st.tuples(st.integers(0, 3).map(float), st.booleans()), min_size=1, max_size=7)


def test_the_least_aurc_of_10000_samples_with_2934_errors_is_the_published_one() -> None:
    assert selective.optimum(10_000, 2_934) == pytest.approx(0.04802, abs=5e-6)
    doubt = np.arange(10_000.0)
    wrong = doubt >= 10_000 - 2_934
    assert selective.aurc(doubt, wrong) == pytest.approx(0.04802, abs=5e-6)
    assert selective.e_aurc(doubt, wrong) == pytest.approx(0, abs=1e-12)


@given(curves)
def test_ties_count_as_the_mean_over_all_their_orders(pairs: list[tuple[float, bool]]) -> None:
    doubt, wrong = (np.array(column) for column in zip(*pairs, strict=True))
    found = []
    for order in itertools.permutations(range(len(pairs))):
        if (np.diff(doubt[list(order)]) >= 0).all():
            errors = np.cumsum(wrong[list(order)])
            found.append((errors / np.arange(1, len(pairs) + 1)).mean())
    assert selective.aurc(doubt, wrong.astype(bool)) == pytest.approx(np.mean(found))


@given(curves)
def test_no_order_beats_the_optimum(pairs: list[tuple[float, bool]]) -> None:
    doubt, wrong = (np.array(column) for column in zip(*pairs, strict=True))
    assert selective.e_aurc(doubt, wrong.astype(bool)) >= -1e-12


def test_coverage_at_a_risk_stops_only_between_ties() -> None:
    doubt = np.array([0.0, 1.0, 2.0, 2.0, 3.0])
    wrong = np.array([False, False, False, True, True])
    assert selective.coverage_at_risk(doubt, wrong, 0.0) == 0.4  # the tie at 2 cannot be parted
    assert selective.coverage_at_risk(doubt, wrong, 0.25) == 0.8
    assert selective.coverage_at_risk(doubt, wrong, 1.0) == 1.0
    assert selective.coverage_at_risk(doubt, ~wrong, 0.0) == 0.0


def test_nan_and_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        selective.aurc(np.array([np.nan]), np.array([True]))
    with pytest.raises(ValueError, match="one doubt per verdict"):
        selective.aurc(np.array([]), np.array([], dtype=bool))
