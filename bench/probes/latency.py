"""How long a model takes to answer."""

import gc
from collections.abc import Sequence
from itertools import cycle
from time import perf_counter, perf_counter_ns

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from bench.contracts import Classifier, Figure, Probe, Realisation, Samples, probe
from bench.probes._disturbance import synchronise, watched
from bench.probes._timing import interval, percentile, queries_needed, warm_up

PERCENTILES = {"latency_ms/p50": 0.5, "latency_ms/p90": 0.9}
BATCHES = 16  # distinct batches that the queries take in turn


@probe("latency")
class Latency(Probe):
    """Time from an input to its logits, one query after the other, as a user of the model would see it.

    After the single-stream scenario of the MLPerf inference rules: inputs lie ready on the device; a query is one call
    of `logits` without gradients; a CUDA device is waited for before and after. Percentiles are nearest-rank, with 95 %
    order-statistic intervals. Threads are as torch has them: they are a part of the hardware fingerprint.
    """

    exclusive = True

    queries: int = Field(default=64, ge=2, description="queries, at least")
    seconds: float = Field(default=0.5, ge=0, description="and so long, at least: short runs hide disturbances")
    batch_size: int = Field(default=1, ge=1, description="inputs per query")
    warmup_runs: int = Field(default=50, ge=50, description="queries before the first that counts, at least")
    warmup_seconds: float = Field(default=2.0, ge=0, description="and so long, at least")
    warmup_cap: float = Field(default=10.0, gt=0, description="seconds after which it starts even if not settled")

    def measure(self, model: Classifier, samples: Samples, artefact: bytes | None) -> Sequence[Figure]:
        batches = cycle(_batches(model, samples, self.batch_size))
        times: list[float] = []

        def query() -> float:
            return _timed(model, next(batches))

        def measured() -> None:
            end = perf_counter() + self.seconds
            while len(times) < self.queries or perf_counter() < end:
                times.append(query())

        collecting = gc.isenabled()
        gc.collect()
        gc.disable()
        try:
            with torch.no_grad():
                first = query()
                unsettled = warm_up(query, self.warmup_runs, self.warmup_seconds, self.warmup_cap)
                reasons = watched(measured, model.device).reasons(model.device)
        finally:
            if collecting:
                gc.enable()
        flags = _flags(model, reasons, unsettled)
        return [
            *_percentiles(sorted(times), flags),
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
        return (*PERCENTILES, "latency_ms/first", "throughput")


def _batches(model: Classifier, samples: Samples, size: int) -> list[Tensor]:
    """Up to BATCHES batches of `size` inputs on the model's device; the data are gone through again where too few."""
    indices = (np.arange(BATCHES * size) % len(samples)).reshape(BATCHES, size)
    return [samples.fetch(batch).to(model.device) for batch in indices.astype(np.int64)]


def _timed(model: Classifier, x: Tensor) -> float:
    """Milliseconds of one query."""
    synchronise(model.device)
    start = perf_counter_ns()
    model.logits(x)
    synchronise(model.device)
    return (perf_counter_ns() - start) / 1e6


def _percentiles(ordered: Sequence[float], flags: tuple[str, ...]) -> list[Figure]:
    figures = []
    for name, q in PERCENTILES.items():
        needed, n = queries_needed(q), len(ordered)
        if n < needed:
            few = f"too few queries: {n} of {needed}"
            figures.append(Figure(name=name, value=None, unit="ms", n=n, flags=(few, *flags)))
            continue
        low, high = interval(ordered, q)
        figures.append(Figure(name=name, value=percentile(ordered, q), unit="ms", low=low, high=high, n=n, flags=flags))
    return figures


def _flags(model: Classifier, reasons: Sequence[str], unsettled: float | None) -> tuple[str, ...]:
    flags = []
    if model.realisation is Realisation.SIMULATED:
        flags.append("simulated: the speed is that of float arithmetic which imitates another")
    if reasons:
        flags.append(f"contended: {'; '.join(reasons)}")
    if unsettled is not None:
        flags.append(f"not settled: the last two windows of the warm-up differ by {unsettled:.0%}")
    return tuple(flags)
