"""What only a GPU can show. Skipped, visibly, where there is none."""

import pytest
import torch
from torch import nn

from bench.contracts import Adapter
from bench.fingerprint import fingerprint
from bench.gpu import ARITHMETIC
from bench.probes.latency import Latency
from bench.probes.memory import Memory
from bench.worker import Worker
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


def test_the_device_is_busy_for_no_longer_than_the_user_waits():
    figures = by_name(Latency(seconds=0, warmup_seconds=0, warmup_cap=0.2).measure(on_gpu(), noise(SHAPE), None))
    assert 0 < figures["device_ms/p50"].value <= 1.1 * figures["latency_ms/p50"].value


def test_the_fingerprint_tells_driver_limits_and_arithmetic():
    found = fingerprint()
    assert {"gpu_driver", "gpu_power_cap", "gpu_clocks", "gpu_mig", "cuda", "cudnn"} <= set(found)
    assert found["gpu_arithmetic"] == ARITHMETIC


def test_a_worker_multiplies_in_float32():
    Worker([], lambda key: b"")
    a = torch.rand(512, 512, generator=torch.Generator().manual_seed(0))
    exact = (a.double() @ a.double()).float()
    assert torch.allclose((a.cuda() @ a.cuda()).cpu(), exact, rtol=1e-5)  # TF32 misses it by 1e-3
