import pytest

from bench.errors import SuiteError
from bench.metrics.changes import Change
from bench.metrics.paired import Difference
from bench.records import Metric
from reports.gates import Gate, judge


def change(metric: str, before: float, after: float, p: float = 0.001) -> Change:
    gap = Difference(after - before, None, None, p, "mcnemar", 100)
    return Change("cnn", "digits", metric, Metric(value=before), Metric(value=after), gap, p)


@pytest.mark.parametrize(
    ("gate", "before", "after", "fails"),
    [
        ("robust_accuracy drops > 1pt", 0.50, 0.48, True),
        ("robust_accuracy drops > 1pt", 0.50, 0.49, False),
        ("robust_accuracy drops > 1pt", 0.50, 0.60, False),
        ("robust_accuracy/linf/*/0.1 drops", 0.50, 0.4999, True),
        ("robust_accuracy drops > 10%", 0.50, 0.44, True),
        ("robust_accuracy drops > 10%", 0.50, 0.46, False),
        ("robust_accuracy rises", 0.50, 0.51, True),
        ("robust_accuracy changes > 0.02", 0.50, 0.47, True),
    ],
)
def test_a_gate_fails_exactly_beyond_its_limit(gate: str, before: float, after: float, fails: bool) -> None:
    (judged,) = judge([Gate.parse(gate)], [change("robust_accuracy/linf/pgd/0.1", before, after)])
    assert bool(judged.problem) is fails


def test_a_significant_gate_ignores_what_may_be_chance() -> None:
    gate = Gate.parse("clean_accuracy drops significantly > 1pt")
    assert not gate.verdict(change("clean_accuracy", 0.9, 0.8, p=0.2))
    assert gate.verdict(change("clean_accuracy", 0.9, 0.8, p=0.01)) == "Clean accuracy −10.0 pt"


def test_what_cannot_be_judged_fails() -> None:
    gone = Change("cnn", "digits", "clean_accuracy", Metric(value=1.0), None, None, why_not="only the first has it")
    assert Gate.parse("clean_accuracy drops").verdict(gone) == "cannot be judged: only the first has it"


def test_what_is_new_passes() -> None:
    new = Change(
        "cnn", "digits", "clean_accuracy", None, Metric(value=1.0), None, why_not="the row is only in the second"
    )
    assert Gate.parse("clean_accuracy drops").verdict(new) == ""


def test_a_gate_that_concerns_nothing_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(SuiteError, match="neither side has a metric 'clean_acuracy' - did you mean 'clean_accuracy'"):
        judge([Gate.parse("clean_acuracy drops")], [change("clean_accuracy", 1, 1)])


@pytest.mark.parametrize("text", ["robust_accuracy", "robust_accuracy falls > 1pt", "macs rises > -1", "", "a b c > 1"])
def test_a_gate_that_cannot_be_read_says_how_one_is_written(text: str) -> None:
    with pytest.raises(SuiteError, match="write METRIC drops"):
        Gate.parse(text)


def test_percentage_points_are_for_shares_only() -> None:
    with pytest.raises(SuiteError, match="has no percentage points"):
        Gate.parse("macs rises > 1pt")
