from typing import Any

import pytest

from bench.metrics.separation import Separation
from bench.records import Row
from reports.ranking import View, sections, usual_columns
from tests.reports.boards import SIMULATED, board, row

WORST = "robust_accuracy/linf/worst/0.1"


def ranks(rows: list[Row], **view: Any) -> list[tuple[str, int | None]]:
    (section,) = sections(rows, View("suite", **view))
    return [(line.row.model, line.rank) for line in section.lines]


def test_equal_values_share_a_rank_and_the_next_is_skipped() -> None:
    rows = [row("a", worst=100), row("b", worst=200), row("c", worst=200), row("d", worst=300)]
    assert ranks(rows, rank_by=WORST) == [("d", 1), ("b", 2), ("c", 2), ("a", 4)]


def test_a_row_without_the_ranked_value_stands_last_with_the_reason() -> None:
    section, _ = sections(board(), View("suite", rank_by=WORST))
    last = section.lines[-1]
    assert (last.row.model, last.rank) == ("lost", None)
    assert last.reason == "no value for Worst case L∞ ≤ 0.1: incomplete: over 0 of 360 samples"


@pytest.mark.parametrize("flag", [SIMULATED, "latency_ms: contended: load 3.1", "latency_ms/p50: contended"])
def test_a_latency_that_is_not_real_or_not_alone_is_not_ranked(flag: str) -> None:
    rows = [row("fast", latency=0.01, flags=(flag,)), row("slow", latency=3.0)]
    assert ranks(rows, rank_by="latency_ms/p50") == [("slow", 1), ("fast", None)]
    assert ranks(rows, rank_by="clean_accuracy") == [("fast", 1), ("slow", 1)]


def test_latency_is_never_ranked_across_machines() -> None:
    rows = [row("a", latency=2.0, hardware="x"), row("b", latency=1.0, hardware="y"), row("c", hardware="x")]
    assert ranks(rows, rank_by="latency_ms/p50") == [("c", 1), ("a", 2), ("b", None)]
    assert dict(ranks(rows, rank_by="macs")) == {"a": 1, "b": 1, "c": 1}


def test_costs_rank_upwards_and_the_suite_may_turn_any_order() -> None:
    rows = [row("slow", latency=3.0), row("fast", latency=1.0)]
    assert ranks(rows, rank_by="latency_ms/p50")[0] == ("fast", 1)
    assert ranks(rows, rank_by="latency_ms/p50", direction="descending")[0] == ("slow", 1)


def test_without_a_wish_the_clean_accuracy_ranks() -> None:
    assert ranks([row("a", clean=300), row("b", clean=310)]) == [("b", 1), ("a", 2)]


def test_data_sets_are_ranked_apart() -> None:
    first, second = sections(board(), View("suite"))
    assert (first.dataset, second.dataset) == ("digits", "fashion")
    assert [line.rank for line in second.lines] == [1]


def test_the_usual_columns_are_clean_then_worst_then_attacks_then_costs() -> None:
    assert usual_columns(board()) == (
        "clean_accuracy",
        "robust_accuracy/linf/worst/0.1",
        "robust_accuracy/linf/pgd/0.1",
        "median_distance/l2/cw",
        "macs",
        "size_bytes",
        "latency_ms/p50",
    )


def test_models_that_no_test_tells_apart_share_a_rank_whatever_their_values() -> None:
    rows = [row("a", worst=210), row("b", worst=205), row("c", worst=204), row("d", worst=90)]
    apart = frozenset(frozenset((good, "d")) for good in "abc")
    separations = {"digits": Separation(WORST, apart, ("mcnemar",), 6)}
    assert ranks(rows, rank_by=WORST, separations=separations) == [("a", 1), ("b", 1), ("c", 1), ("d", 4)]
    (section,) = sections(rows, View("suite", rank_by=WORST, separations=separations))
    assert "McNemar's test, Holm-corrected" in section.order


def test_tests_of_another_figure_say_nothing_about_this_ranking() -> None:
    separations = {"digits": Separation("clean_accuracy", frozenset(), ("mcnemar",), 1)}
    assert ranks([row("a", worst=1), row("b", worst=2)], rank_by=WORST, separations=separations) == [("b", 1), ("a", 2)]
