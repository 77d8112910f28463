"""What only a GPU can show. Skipped, visibly, where there is none."""

import pytest
import torch
from torch import nn

from bench.contracts import Adapter
from bench.probes.latency import Latency
from bench.probes.memory import Memory
from tests.probes.nets import Wrapped, by_name, noise

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
SHAPE = (3, 32, 32)


def on_gpu() -> Wrapped:
    class Moved(Adapter):
        def build(self, weights):
            return Wrapped(nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(57600, 10)), SHAPE)

    adapter = Moved()
    model = adapter.place(adapter.build(None), "cuda:0")
    assert isinstance(model, Wrapped)
    return model


def test_latency_waits_for_the_device_before_and_after_each_query(monkeypatch):
    waits = []
    monkeypatch.setattr("bench.probes.latency.synchronise", waits.append)
    Latency(seconds=0, warmup_seconds=0, warmup_cap=0.2).measure(on_gpu(), noise(SHAPE), None)
    assert set(waits) == {"cuda:0"}
    assert len(waits) >= 2 * (64 + 50)


def test_the_peak_on_the_device_holds_the_model_and_its_largest_maps():
    figures = by_name(Memory(batch_size=8).measure(on_gpu(), noise(SHAPE), None))
    weights = 4 * (64 * 27 + 64 + 576000 + 10)
    assert figures["memory_bytes/device"].value >= weights + 8 * 57600 * 4
