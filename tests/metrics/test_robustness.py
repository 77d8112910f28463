from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.metrics import robustness
from bench.metrics.robustness import Attacked
from bench.records import Cell
from tests.metrics import cells

EPSILONS = [0.1, 0.2, 0.3]


@st.composite
def attacks(draw: Any) -> list[Cell]:
    """One to four attacks of a norm on the same samples, some of them searches, each with its own epsilons."""
    n = draw(st.integers(1, 12))
    flags = st.lists(st.booleans(), min_size=n, max_size=n)
    right = draw(flags)
    made = []
    for number in range(draw(st.integers(1, 4))):
        epsilons = sorted(draw(st.sets(st.sampled_from(EPSILONS), min_size=1)))
        far = draw(st.lists(st.sampled_from([None, 0.05, 0.1, 0.15, 0.25, 0.4]), min_size=n, max_size=n))
        if draw(st.booleans()):
            found = [0.0 if not good else d for good, d in zip(right, far, strict=True)]
            made.append(
                cells.attack(f"a{number}", [[]] * n, epsilons, right=right, distance=found, minimal=True),
            )
        else:
            verdicts = [draw(flags) for _ in epsilons]
            made.append(cells.attack(f"a{number}", list(zip(*verdicts, strict=True)), epsilons, right=right))
    return made


def broken_by_hand(cell: Cell, epsilon: float) -> dict[int, bool]:
    """The two rules, sample by sample, in plain Python."""
    out = {}
    for row in cell.table.to_pylist():
        lost = row["prediction"] != row["label"]
        for asked, verdict in zip(cell.epsilons, row["broken"], strict=False):
            lost = lost or (verdict and asked <= epsilon)
        lost = lost or (row["distance"] is not None and row["distance"] <= epsilon + 1e-6)
        out[row["sample"]] = lost
    return out


@given(attacks(), st.sampled_from(EPSILONS))
def test_the_worst_case_is_what_few_plain_lines_say(made: list[Cell], epsilon: float) -> None:
    readers = [Attacked.of(cell) for cell in made]
    if not any(attacked.reaches(epsilon) for attacked in readers):
        with pytest.raises(ValueError, match="no attack was made"):
            robustness.worst_case(readers, epsilon)
        return
    verdicts = [broken_by_hand(cell, epsilon) for cell in made]
    standing = [sample for sample in verdicts[0] if not any(verdict[sample] for verdict in verdicts)]
    assert robustness.worst_case(readers, epsilon).value == pytest.approx(len(standing) / len(verdicts[0]))


@given(attacks())
def test_the_worst_case_is_never_above_an_attack_and_an_attack_never_above_clean(made: list[Cell]) -> None:
    readers = [Attacked.of(cell) for cell in made]
    clean = robustness.clean_accuracy(made[0].table).value
    for attacked in readers:
        for epsilon in EPSILONS:
            alone = robustness.robust_accuracy(attacked, epsilon).value
            assert alone is not None
            assert clean is not None
            assert alone <= clean
            if attacked.reaches(epsilon):
                worst = robustness.worst_case(readers, epsilon).value
                assert worst is not None
                assert worst <= alone


@given(attacks())
def test_no_sample_recovers_at_a_larger_epsilon(made: list[Cell]) -> None:
    for attacked in map(Attacked.of, made):
        verdicts = [attacked.broken_at(epsilon) for epsilon in [0.05, *EPSILONS, 0.5]]
        for smaller, larger in pairwise(verdicts):
            assert not (smaller & ~larger).any()


def test_what_breaks_at_a_small_epsilon_breaks_at_a_larger_one_of_another_attack() -> None:
    small = Attacked.of(cells.attack("small", [[True], [False]], [0.1]))
    large = Attacked.of(cells.attack("large", [[False], [False]], [0.2]))
    assert robustness.worst_case([small, large], 0.2).value == 0.5
    assert robustness.robust_accuracy(large, 0.2).value == 1.0


def test_a_search_decides_at_every_epsilon_of_its_norm() -> None:
    found = Attacked.of(cells.search("cw", [0.15, 0.25, None, 0.1], norm="linf"))
    asked = Attacked.of(cells.attack("pgd", [[False]] * 4, [0.2]))
    assert robustness.worst_case([found, asked], 0.2).value == 0.5
    assert robustness.worst_case([found, asked], 0.1).value == 0.75  # its edge belongs to the ball
    assert robustness.worst_case([found, asked], 0.3).value == 0.25


def test_the_worst_case_covers_the_samples_that_every_attack_has() -> None:
    whole = Attacked.of(cells.attack("pgd", [[True], [False], [False], [False]], [0.1]))
    part = Attacked.of(cells.attack("fgsm", [[False], [True]], [0.1], samples=[3, 2]))
    metric = robustness.worst_case([whole, part], 0.1)
    assert (metric.value, metric.n) == (0.5, 2)


def test_the_success_rate_is_over_the_samples_that_were_right() -> None:
    attacked = Attacked.of(cells.attack("pgd", [[True], [True], [False]], [0.1], right=[True, False, True]))
    metric = robustness.success_rate(attacked, 0.1)
    assert (metric.value, metric.n) == (0.5, 2)


def test_the_median_distance_counts_a_wrong_sample_as_zero() -> None:
    cell = cells.attack("cw", [[]] * 3, [], right=[False, True, True], distance=[9.0, 1.0, 2.0], minimal=True)
    assert robustness.median_distance(Attacked.of(cell)).value == 1.0


def test_the_median_distance_has_no_value_where_half_of_the_samples_stand() -> None:
    attacked = Attacked.of(cells.search("cw", [1.0, None, None]))
    metric = robustness.median_distance(attacked)
    assert (metric.value, metric.n) == (None, 3)


def test_passes_are_of_the_samples_that_were_attacked() -> None:
    table = cells.attack("pgd", [[True]] * 4, [0.1], right=[False, True, True, True]).table
    found = robustness.passes(table)
    assert (found["backwards"].value, found["backwards"].n) == (2.0, 3)
    assert (found["most_backwards"].value, found["most_backwards"].low) == (3.0, None)
    assert robustness.passes(table.slice(0, 1)) == {}


def test_records_without_a_verdict_per_epsilon_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'pgd'.*each of 2 epsilons"):
        Attacked.of(cells.attack("pgd", [[True], [False, True]], [0.1, 0.2]))


def test_the_share_of_nothing_has_no_value() -> None:
    metric = robustness.share(np.array([], dtype=bool))
    assert (metric.value, metric.low, metric.n) == (None, None, 0)
