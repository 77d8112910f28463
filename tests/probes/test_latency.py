import gc
import time
from dataclasses import replace
from itertools import count

import pytest
import torch
from torch import nn

from bench.disturbance import Disturbance, _ticks, watched
from bench.probes.latency import Latency
from tests.probes.nets import Clock, Simulated, Wrapped, busy_neighbours, by_name, noise

DATA = noise((1, 8, 8))
QUICK = {"seconds": 0, "warmup_seconds": 0, "warmup_cap": 0.2}


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 10))


class Sleeping(Wrapped):
    """Takes at least `nap` seconds for a query (on a clock of its own: so many), and counts them."""

    nap = 0.002
    calls = 0
    rows = 0
    clock: Clock | None = None

    def logits(self, x):
        self.calls += 1
        self.rows += len(x)
        assert not torch.is_grad_enabled()
        if self.clock is None:
            time.sleep(self.nap)
        else:
            self.clock.seconds += self.nap
        return super().logits(x)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("bench.probes.latency.perf_counter", made.now)
    monkeypatch.setattr("bench.probes.latency.perf_counter_ns", made.now_ns)
    monkeypatch.setattr("bench.probes._timing.perf_counter", made.now)
    return made


def test_the_median_is_the_time_a_query_really_takes():
    figures = by_name(Latency(**QUICK).measure(Sleeping(net(), (1, 8, 8)), DATA, None))
    p50, p90 = figures["latency_ms/p50"], figures["latency_ms/p90"]
    assert 2.0 <= p50.value < 1000.0  # in another unit it would be 0.002 or 2000
    assert p50.low <= p50.value <= p50.high <= p90.high
    assert p50.value <= p90.value
    assert p50.n == 64
    assert figures["throughput"].value <= 1000 / 2.0


def test_it_yields_the_figures_that_it_promises_and_leaves_garbage_collection_as_it_was():
    figures = Latency(**QUICK).measure(Wrapped(net(), (1, 8, 8)), DATA, None)
    assert [figure.name for figure in figures] == list(Latency.figures())
    assert gc.isenabled()


def test_queries_have_the_batch_size_that_was_asked_for_even_when_the_data_are_few():
    model = Sleeping(net(), (1, 8, 8))
    Latency(batch_size=5, **QUICK).measure(model, DATA, None)
    assert model.rows == 5 * model.calls > 5 * 64


def test_throughput_counts_inputs_and_latency_counts_queries(monkeypatch):
    ticks = count(0, 2_000_000)
    monkeypatch.setattr("bench.probes.latency.perf_counter_ns", lambda: next(ticks))  # each query takes 2 ms
    figures = by_name(Latency(batch_size=5, **QUICK).measure(Wrapped(net(), (1, 8, 8)), DATA, None))
    assert figures["latency_ms/p50"].value == figures["latency_ms/p90"].value == figures["latency_ms/first"].value == 2
    assert figures["throughput"].value == pytest.approx(2500)


def test_a_percentile_is_not_printed_from_too_few_queries():
    figures = by_name(Latency(queries=20, **QUICK).measure(Sleeping(net(), (1, 8, 8)), DATA, None))
    assert figures["latency_ms/p50"].value is not None
    assert figures["latency_ms/p90"].value is None
    assert "too few queries: 20 of 64" in figures["latency_ms/p90"].flags


def test_a_measurement_lasts_as_long_as_it_was_asked_to(clock):
    model = Sleeping(net(), (1, 8, 8))
    model.clock = clock
    figures = by_name(Latency(**{**QUICK, "seconds": 0.3}).measure(model, DATA, None))
    assert figures["latency_ms/p50"].n == pytest.approx(0.3 / model.nap, abs=1)
    assert figures["latency_ms/p50"].value == pytest.approx(2)


def test_a_simulated_speed_is_flagged_on_every_figure():
    figures = Latency(**QUICK).measure(Simulated(net(), (1, 8, 8)), DATA, None)
    assert all(any(flag.startswith("simulated: ") for flag in figure.flags) for figure in figures)
    real = Latency(**QUICK).measure(Wrapped(net(), (1, 8, 8)), DATA, None)
    assert not any(flag.startswith("simulated") for figure in real for flag in figure.flags)


class Slowing(Sleeping):
    """Each query takes longer than the one before."""

    def logits(self, x):
        self.nap = 0.0005 * 1.01**self.calls
        return super().logits(x)


def test_a_model_that_never_settles_is_flagged(clock):
    model = Slowing(net(), (1, 8, 8))
    model.clock = clock
    figures = Latency(**{**QUICK, "queries": 11}).measure(model, DATA, None)
    assert all(any(flag.startswith("not settled: ") for flag in figure.flags) for figure in figures)


# --- the disturbance gate ---------------------------------------------------------------------------------------------


def test_a_timing_beside_busy_neighbours_is_flagged_as_contended():
    with busy_neighbours():
        figures = Latency(seconds=1.0, warmup_seconds=0, warmup_cap=0.5).measure(Wrapped(net(), (1, 8, 8)), DATA, None)
    for figure in figures:
        assert any(flag.startswith("contended: ") for flag in figure.flags)


def test_a_thread_that_computes_on_its_own_core_has_it_all_the_time_and_one_that_waits_has_not():
    waiting = watched(lambda: time.sleep(0.1), "cpu")
    assert waiting.share < 0.1
    assert any("had the core" in reason for reason in waiting.reasons("cpu"))
    assert not any("had the core" in reason for reason in waiting.reasons("cuda:0"))


def test_each_disturbance_has_its_own_reason_and_a_calm_machine_none():
    assert Disturbance(share=0.99, switches=3, drift=0.03).reasons("cpu") == ()
    assert Disturbance(share=0.62, switches=210, drift=-0.12).reasons("cpu") == (
        "its thread had the core for 62% of the time",
        "210 involuntary context switches per second",
        "a fixed matrix product changed its speed by -12%",
    )


def test_time_that_the_host_takes_away_and_what_a_gpu_tells_are_reasons():
    quiet = Disturbance(share=1.0, switches=0.0, drift=0.0)
    assert quiet.reasons("cpu") == ()
    assert replace(quiet, steal=0.01).reasons("cpu") == ()
    assert replace(quiet, steal=0.1).reasons("cpu") == ("the host took 10% of the machine's processor time away",)
    assert replace(quiet, gpu=("slowed",)).reasons("cuda:0") == ("slowed",)


def test_stolen_ticks_are_the_eighth_field_and_an_old_kernel_tells_none(tmp_path):
    stat = tmp_path / "stat"
    stat.write_text("cpu  10 0 20 60 0 1 2 7 3 0\ncpu0 ...\n")
    assert _ticks(stat) == (7, 100)  # guest time (3) is in user time already
    stat.write_text("cpu  10 0 20\n")
    assert _ticks(stat) == (0, 0)
    assert _ticks(tmp_path / "missing") == (0, 0)
