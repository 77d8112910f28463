import os
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from bench.probes.latency import Latency
from bench.probes.paired_latency import PairedLatency
from tests.probes.nets import Simulated, Wrapped, by_name, noise

DATA = noise((6,))
QUICK = {"warmup_seconds": 0, "warmup_cap": 0.2, "processes": 1}


class Napping(Wrapped):
    nap = 0.001
    calls: list[str] = []  # noqa: RUF012 - shared by all, so that the order is seen

    def logits(self, x):
        self.calls.append(type(self).__name__)
        time.sleep(self.nap)
        return super().logits(x)


class Slow(Napping):
    nap = 0.004


def net(kind=Wrapped):
    return kind(nn.Linear(6, 10), (6,))


def test_the_ratio_is_that_of_the_times_and_above_one_where_the_model_is_faster():
    figures = by_name(PairedLatency(rounds=32, seconds=0, **QUICK).compare(net(Napping), net(Slow), DATA))
    assert 2 < figures["speedup"].value < 6  # 4 ms / 1 ms, and what a busy machine adds to both
    assert figures["speedup"].low <= figures["speedup"].value <= figures["speedup"].high


def test_both_are_asked_in_every_round_and_in_random_order():
    Napping.calls.clear()
    PairedLatency(rounds=32, seconds=0, **QUICK).compare(net(Napping), net(Slow), DATA)
    rounds = [tuple(Napping.calls[-128 + first :][:4]) for first in range(0, 128, 4)]
    assert set(rounds) == {("Napping", "Slow", "Slow", "Napping"), ("Slow", "Napping", "Napping", "Slow")}


def test_the_same_model_as_its_own_baseline_gives_an_interval_around_one():
    """Of three tries one has to hold 1: each 95 % interval misses it once in twenty times."""
    torch.set_num_threads(1)
    probe = PairedLatency(rounds=256, seconds=0.3, warmup_seconds=0.2, warmup_cap=1.0, processes=1)
    model = Wrapped(nn.Sequential(nn.Linear(6, 512), nn.ReLU(), nn.Linear(512, 10)), (6,))
    found = [by_name(probe.measure(model, DATA, None)) for _ in range(3)]
    for name in ("speedup", "speedup/cpu"):
        assert any(one[name].low <= 1 <= one[name].high for one in found)
        assert any(0.9 < one[name].value < 1.1 for one in found)


def test_two_runtimes_in_a_ratio_and_a_simulated_speed_are_flagged():
    other = net()
    other.runtime = "onnxruntime"
    figures = PairedLatency(rounds=32, seconds=0, **QUICK).compare(net(Simulated), other, DATA)
    for figure in figures:
        assert "mixed: torch against onnxruntime" in figure.flags
        assert any(flag.startswith("simulated") for flag in figure.flags)


def test_a_ratio_beside_busy_neighbours_is_contended():
    neighbours = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * len(os.sched_getaffinity(0)))
    ]
    try:
        time.sleep(0.3)
        figures = PairedLatency(rounds=64, seconds=1.0, **QUICK).compare(net(), net(), DATA)
    finally:
        for process in neighbours:
            process.kill()
            process.wait()
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
