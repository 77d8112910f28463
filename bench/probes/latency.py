"""How long a model takes to answer."""

import gc
from collections.abc import Iterator, Sequence
from itertools import cycle
from time import perf_counter, perf_counter_ns
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from bench.contracts import Classifier, Figure, Probe, Realisation, Samples, probe
from bench.disturbance import cpu_clock, synchronise, watched
from bench.probes._timing import interval, percentile, queries_needed, warm_up

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
BATCHES = 16  # distinct batches that the queries take in turn
TIERS: dict[str, dict[str, float]] = {  # the least that a tier stands for
    "smoke": {"queries": 64, "seconds": 0.5, "processes": 1},
    "standard": {"queries": 1024, "seconds": 10.0, "processes": 6},
}


@probe("latency")
class Latency(Probe):
    """Time from an input to its logits, one query after the other, as a user of the model would see it.

    After the single-stream scenario of the MLPerf inference rules: inputs lie ready on the device; a query is one call
    of `logits` without gradients; a CUDA device is waited for before and after. Percentiles are nearest-rank, with 95 %
    order-statistic intervals. Threads are as torch has them: they are a part of the hardware fingerprint.
    """

    exclusive = True

    tier: Literal["smoke", "standard"] = Field(default="smoke", description="sets the three that follow")
    queries: int = Field(default=64, ge=2, description="queries, at least")
    processes: int = Field(default=1, ge=1, le=100, description="fresh processes, each of which measures it once")
    seconds: float = Field(default=0.5, ge=0, description="and so long, at least: short runs hide disturbances")
    batch_size: int = Field(default=1, ge=1, description="inputs per query")
    warmup_runs: int = Field(default=50, ge=50, description="queries before the first that counts, at least")
    warmup_seconds: float = Field(default=2.0, ge=0, description="and so long, at least")
    warmup_cap: float = Field(default=10.0, gt=0, description="seconds after which it starts even if not settled")

    @model_validator(mode="before")
    @classmethod
    def _as_the_tier_asks(cls, given: Any) -> Any:
        tier = TIERS.get(given.get("tier", "smoke")) if isinstance(given, dict) else None
        return given if tier is None else {**tier, **given}

    @model_validator(mode="after")
    def _no_less_than_the_tier(self) -> "Latency":
        for field, least in TIERS["standard"].items():
            if self.tier == "standard" and getattr(self, field) < least:
                raise ValueError(
                    f"tier 'standard' needs {field} of {least:g} or more, got {getattr(self, field):g}: "
                    "raise it, leave it out, or use tier 'smoke'"
                )
        return self

    def process_count(self) -> int:
        return self.processes

    def measure(self, model: Classifier, samples: Samples, artefact: bytes | None) -> Sequence[Figure]:
        batches = cycle(ready_batches(model, samples, self.batch_size))
        times: list[float] = []
        busy: list[float] = []
        clock = cpu_clock()

        def query() -> float:
            return timed(model, next(batches))

        def measured() -> None:
            end = perf_counter() + self.seconds
            while len(times) < self.queries or perf_counter() < end:
                before = clock()
                times.append(query())
                busy.append((clock() - before) / 1e6)

        collecting = gc.isenabled()
        gc.collect()
        gc.disable()
        try:
            with torch.no_grad():
                first = query()
                unsettled = warm_up(query, self.warmup_runs, self.warmup_seconds, self.warmup_cap)
                reasons = watched(measured, model.device).reasons(model.device)
                device = device_times(model, batches, self.queries)
        finally:
            if collecting:
                gc.enable()
        flags = timing_flags(model, reasons, unsettled)
        return [
            *_percentiles("latency_ms", PERCENTILES, sorted(times), flags),
            *_percentiles("cpu_ms", {"p50": 0.5}, sorted(busy), flags),
            _on_device(device, flags),
            _loading(model, flags),
            Figure(name="latency_ms/first", value=first, unit="ms", n=1, flags=flags),
            Figure(
                name="throughput",
                value=1e3 * len(times) * self.batch_size / sum(times),
                unit="samples/s",
                n=len(times),
                flags=flags,
            ),
        ]

    @classmethod
    def figures(cls) -> tuple[str, ...]:
        percentiles = (f"latency_ms/{name}" for name in PERCENTILES)
        return (*percentiles, "cpu_ms/p50", "device_ms/p50", "cold_start_ms", "latency_ms/first", "throughput")


def _on_device(times: Sequence[float] | None, flags: tuple[str, ...]) -> Figure:
    if times is None:
        why = "unavailable: the model runs on the CPU"
        return Figure(name="device_ms/p50", value=None, unit="ms", flags=(why, *flags))
    return _percentiles("device_ms", {"p50": 0.5}, sorted(times), flags)[0]


def _loading(model: Classifier, flags: tuple[str, ...]) -> Figure:
    """Building the model from its bytes and putting it onto its device."""
    took = model.loading
    value = None if took is None else 1e3 * took.seconds
    unknown = ("unknown: the engine did not load this model",) if took is None else ()
    return Figure(name="cold_start_ms", value=value, unit="ms", n=1, flags=(*unknown, *flags))


def ready_batches(model: Classifier, samples: Samples, size: int) -> list[Tensor]:
    """Up to BATCHES batches of `size` inputs on the model's device; the data are gone through again where too few."""
    indices = (np.arange(BATCHES * size) % len(samples)).reshape(BATCHES, size)
    return [samples.fetch(batch).to(model.device) for batch in indices.astype(np.int64)]


def timed(model: Classifier, x: Tensor) -> float:
    """Milliseconds of one query."""
    synchronise(model.device)
    start = perf_counter_ns()
    model.logits(x)
    synchronise(model.device)
    return (perf_counter_ns() - start) / 1e6


def device_times(model: Classifier, batches: Iterator[Tensor], queries: int) -> list[float] | None:
    """Milliseconds of each query between two CUDA events, so without the way to the device; None on a CPU."""
    if not model.device.startswith("cuda"):
        return None
    times = []
    for _ in range(queries):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        model.logits(next(batches))
        end.record()
        synchronise(model.device)
        times.append(start.elapsed_time(end))
    return times


def _percentiles(head: str, wanted: dict[str, float], ordered: Sequence[float], flags: tuple[str, ...]) -> list[Figure]:
    figures = []
    for key, q in wanted.items():
        name = f"{head}/{key}"
        needed, n = queries_needed(q), len(ordered)
        if n < needed:
            few = f"too few queries: {n} of {needed}"
            figures.append(Figure(name=name, value=None, unit="ms", n=n, flags=(few, *flags)))
            continue
        low, high = interval(ordered, q)
        figures.append(Figure(name=name, value=percentile(ordered, q), unit="ms", low=low, high=high, n=n, flags=flags))
    return figures


def timing_flags(model: Classifier, reasons: Sequence[str], unsettled: float | None) -> tuple[str, ...]:
    flags = []
    if model.realisation is Realisation.SIMULATED:
        flags.append("simulated: the speed is that of float arithmetic which imitates another")
    if reasons:
        flags.append(f"contended: {'; '.join(reasons)}")
    if unsettled is not None:
        flags.append(f"not settled: the last two windows of the warm-up differ by {unsettled:.0%}")
    return tuple(flags)
