import numpy as np
import pytest
from torch import nn

from bench.probes.latency import Latency
from bench.probes.paired_latency import PairedLatency
from tests.probes.nets import Clock, Simulated, Wrapped, busy_neighbours, by_name, noise

DATA = noise((6,))
QUICK = {"warmup_seconds": 0, "warmup_cap": 0.2, "processes": 1}


@pytest.fixture
def clock(monkeypatch) -> Clock:
    """By which both are timed, on the wall and on the processor."""
    made = Clock()
    for module in ("latency.perf_counter_ns", "paired_latency.perf_counter", "_timing.perf_counter"):
        monkeypatch.setattr(f"bench.probes.{module}", made.now_ns if module.endswith("_ns") else made.now)
    monkeypatch.setattr("bench.probes.paired_latency.cpu_clock", lambda: made.now_ns)
    return made


class Napping(Wrapped):
    nap = 0.001
    calls: list[str] = []  # noqa: RUF012 - shared by all, so that the order is seen
    clock: Clock | None = None

    def logits(self, x):
        self.calls.append(type(self).__name__)
        if self.clock is not None:
            self.clock.seconds += self.nap
        return super().logits(x)


class Slow(Napping):
    nap = 0.004


def net(kind=Wrapped):
    return kind(nn.Linear(6, 10), (6,))


def test_the_ratio_is_that_of_the_times_and_above_one_where_the_model_is_faster(clock, monkeypatch):
    monkeypatch.setattr(Napping, "clock", clock)
    figures = by_name(PairedLatency(rounds=32, seconds=0, **QUICK).compare(net(Napping), net(Slow), DATA))
    for name in ("speedup", "speedup/cpu"):
        assert figures[name].value == pytest.approx(4)  # 4 ms / 1 ms
        assert figures[name].low <= figures[name].value <= figures[name].high


def test_both_are_asked_in_every_round_and_in_random_order():
    Napping.calls.clear()
    PairedLatency(rounds=32, seconds=0, **QUICK).compare(net(Napping), net(Slow), DATA)
    rounds = [tuple(Napping.calls[-128 + first :][:4]) for first in range(0, 128, 4)]
    assert set(rounds) == {("Napping", "Slow", "Slow", "Napping"), ("Slow", "Napping", "Napping", "Slow")}


class Uneven(Napping):
    """Slower in the first query of a round, slower from round to round, and never twice the same."""

    random = np.random.default_rng(0)

    @property
    def nap(self) -> float:
        count = len(self.calls) - 1
        return 0.001 * (1 + 0.5 * (count % 4 == 0)) * 1.002 ** (count // 4) * float(self.random.lognormal(0, 0.1))


def test_the_same_model_as_its_own_baseline_gives_an_interval_around_one(clock, monkeypatch):
    monkeypatch.setattr(Napping, "clock", clock)
    monkeypatch.setattr(Uneven, "random", np.random.default_rng(0))
    Napping.calls.clear()
    figures = by_name(PairedLatency(rounds=256, seconds=0, **QUICK).measure(net(Uneven), DATA, None))
    for name in ("speedup", "speedup/cpu"):
        assert figures[name].low <= 1 <= figures[name].high
        assert figures[name].value == pytest.approx(1, abs=0.05)
        assert figures[name].high - figures[name].low < 0.3


def test_two_runtimes_in_a_ratio_and_a_simulated_speed_are_flagged():
    other = net()
    other.runtime = "onnxruntime"
    figures = PairedLatency(rounds=32, seconds=0, **QUICK).compare(net(Simulated), other, DATA)
    for figure in figures:
        assert "mixed: torch against onnxruntime" in figure.flags
        assert any(flag.startswith("simulated") for flag in figure.flags)


def test_a_ratio_beside_busy_neighbours_is_contended():
    with busy_neighbours():
        figures = PairedLatency(rounds=64, seconds=1.0, **QUICK).compare(net(), net(), DATA)
    assert all(any(flag.startswith("contended: ") for flag in figure.flags) for figure in figures)


# --- tiers ------------------------------------------------------------------------------------------------------------


def test_a_tier_sets_queries_seconds_and_processes():
    smoke, standard = Latency(), Latency(tier="standard")
    assert (smoke.queries, smoke.seconds, smoke.process_count()) == (64, 0.5, 1)
    assert (standard.queries, standard.seconds, standard.process_count()) == (1024, 10, 6)
    assert Latency(tier="standard", queries=5000).queries == 5000


@pytest.mark.parametrize("less", [{"queries": 100}, {"seconds": 1.0}, {"processes": 1}])
def test_less_than_a_tier_stands_for_is_refused_with_what_to_do(less):
    [name] = less
    with pytest.raises(ValueError, match=f"'standard' needs {name} of .*use tier 'smoke'"):
        Latency(tier="standard", **less)
