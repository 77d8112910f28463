"""Ratios to a baseline, and several processes made one figure."""

import numpy as np
import pytest
from scipy.stats import quantile_test

from bench import names
from bench.contracts import Figure
from bench.metrics.efficiency import merged, with_ratios
from bench.metrics.rows import rows
from bench.records import Metric, Row
from tests.metrics import cells


def row(model: str, flags: tuple[str, ...] = (), dataset: str = "digits", **costs: float | None) -> Row:
    metrics = {name: Metric(value=value) for name, value in costs.items()}
    return Row(model=model, dataset=dataset, metrics=metrics, flags=flags)


def test_a_ratio_is_the_baselines_cost_over_the_models_own():
    net = row("net", size_bytes=800.0, macs=90.0)
    small = row("small", size_bytes=200.0, macs=30.0, packed_bytes=5.0)
    found = with_ratios([net, small], {"small": "net"})
    assert found[0] == net, "a model without a baseline has no ratios"
    ratios = {name: metric.value for name, metric in found[1].metrics.items() if name in names.RATIOS}
    assert ratios == {"compression_ratio": 4.0, "theoretical_speedup": 3.0}


def test_a_model_that_is_its_own_baseline_has_ratios_of_one():
    [found] = with_ratios([row("net", size_bytes=8.0)], {"net": "net"})
    assert found.metrics["compression_ratio"].value == 1


def test_a_ratio_is_taken_on_the_same_data_set():
    many = [
        row("net", dataset="a", macs=10.0),
        row("net", dataset="b", macs=30.0),
        row("small", dataset="b", macs=10.0),
    ]
    assert with_ratios(many, {"small": "net"})[2].metrics["theoretical_speedup"].value == 3


@pytest.mark.parametrize(("own", "other"), [(None, 5.0), (5.0, None), (0.0, 5.0)])
def test_a_ratio_that_lacks_a_figure_is_empty_and_says_why(own, other):
    found = with_ratios([row("net", macs=other), row("small", macs=own)], {"small": "net"})[1]
    assert found.metrics["theoretical_speedup"].value is None
    assert found.flags[0].startswith("theoretical_speedup: undefined: macs of the model is")


def test_an_incomplete_cost_makes_its_ratio_incomplete():
    net = row("net", ("macs: incomplete: LSTM (1)",), macs=10.0)
    found = with_ratios([net, row("small", macs=5.0)], {"small": "net"})[1]
    assert found.flags == ("theoretical_speedup: incomplete: macs of 'net' is",)


# --- several processes ------------------------------------------------------------------------------------------------


def processes(*values: float | None, flags: tuple[str, ...] = ()):
    given = [Figure(name="speedup", value=value, n=512, flags=flags if not i else ()) for i, value in enumerate(values)]
    return [figure.model_dump() for figure in given]


def test_six_processes_give_their_median_and_scipys_interval():
    values = [1.0, 1.2, 1.1, 1.5, 1.3, 1.4]
    metric, flags = merged(processes(*values))
    expected = quantile_test(np.array(values), p=0.5).confidence_interval(0.95)
    assert (metric.value, metric.low, metric.high, metric.n) == (1.25, expected.low, expected.high, 6)
    assert flags == []


def test_five_processes_allow_no_interval_of_95_percent():
    metric, _ = merged(processes(1.0, 1.2, 1.1, 1.5, 1.3))
    assert (metric.value, metric.low, metric.high) == (1.2, None, None)


def test_one_process_keeps_its_own_interval():
    [figure] = processes(2.0)
    assert merged([figure | {"low": 1.0, "high": 3.0}])[0] == Metric(value=2.0, low=1.0, high=3.0, n=512)


def test_one_disturbed_process_is_told_of_all():
    metric, flags = merged(processes(1.0, 1.2, flags=("contended: it had the core for 60 % of the time",)))
    assert flags == ["contended: in 1 of 2 processes: it had the core for 60 % of the time"]
    assert metric.n == 2


def test_processes_without_a_value_are_left_out_and_none_gives_none():
    assert merged(processes(None, 2.0))[0] == Metric(value=2.0, n=1)
    assert merged(processes(None, None))[0] == Metric(value=None, n=0)


def test_records_of_several_processes_become_one_metric_of_the_row_and_a_lost_process_is_told():
    cell = cells.probe(*(Figure(name="speedup", value=value) for value in (1.0, 2.0, 4.0)), label="paired")
    [found] = rows([cell])
    assert found.metrics["speedup"].value == 2
    lost = cells.Cell(**{**cell.__dict__, "failures": [cells.failure("paired", 0, 10)]})
    assert rows([lost])[0].flags == ("speedup: incomplete: 1 of its processes failed",)
