"""How much faster a model answers than its baseline, when both are asked in turn."""

import gc
from collections.abc import Callable, Sequence
from itertools import cycle
from time import perf_counter

import torch
from pydantic import Field

from bench.contracts import Classifier, Figure, PairedProbe, Samples, probe
from bench.disturbance import cpu_clock, watched
from bench.probes._timing import interval, percentile, warm_up
from bench.probes.latency import ready_batches, timed, timing_flags
from bench.randomness import SampleRandom

FIGURES = ("speedup", "speedup/cpu")


@probe("paired_latency")
class PairedLatency(PairedProbe):
    """Time of the model's `baseline` / its own time: both answer the same query twice, in turn, round after round.

    A round asks A, B, B, A, and which of the two is A is random: so neither gains by its place.

    `speedup` is by wall clock, `speedup/cpu` by CPU time. Above 1 the model is faster. Each process gives the median
    over its rounds; the figure is the median over `processes` fresh processes, with its 95 % order-statistic interval
    (within the one process, if there is only one). What slows both alike cancels in a round. A busy neighbour does not
    slow both alike: then the ratio is `contended`. Two runtimes in one ratio make it `mixed`.
    """

    rounds: int = Field(default=256, ge=32, description="rounds of four queries, two of each, at least")
    seconds: float = Field(default=1.0, ge=0, description="and so long, at least")
    processes: int = Field(default=6, ge=1, le=100, description="fresh processes, each of which measures it once")
    batch_size: int = Field(default=1, ge=1, description="inputs per query")
    warmup_runs: int = Field(default=50, ge=50, description="queries of each before the first that counts, at least")
    warmup_seconds: float = Field(default=2.0, ge=0, description="and so long, at least")
    warmup_cap: float = Field(default=10.0, gt=0, description="seconds after which it starts even if not settled")

    def process_count(self) -> int:
        return self.processes

    def compare(self, model: Classifier, baseline: Classifier, samples: Samples) -> Sequence[Figure]:
        inputs = cycle(zip(*(ready_batches(one, samples, self.batch_size) for one in (baseline, model)), strict=True))
        clock = cpu_clock()
        wall: list[float] = []
        busy: list[float] = []
        order = SampleRandom.of(0, "paired_latency", [0])

        def rounds() -> None:
            end = perf_counter() + self.seconds
            while len(wall) < self.rounds or perf_counter() < end:
                queries = list(zip((baseline, model), next(inputs), (0, 1), strict=True))
                times, spent = [0.0, 0.0], [0, 0]
                if bool(order.integers((), 0, 2)[0]):
                    queries.reverse()
                for one, x, place in queries + queries[::-1]:  # there and back: each stands first once
                    before = clock()
                    times[place] += timed(one, x)
                    spent[place] += clock() - before
                wall.append(times[0] / times[1])
                busy.append(spent[0] / max(1, spent[1]))

        def warm(one: Classifier, place: int) -> float | None:
            query: Callable[[], float] = lambda: timed(one, next(inputs)[place])  # noqa: E731 - a name for its type
            return warm_up(query, self.warmup_runs, self.warmup_seconds, self.warmup_cap)

        collecting = gc.isenabled()
        gc.collect()
        gc.disable()
        try:
            with torch.no_grad():
                unsettled = [found for found in (warm(baseline, 0), warm(model, 1)) if found is not None]
                reasons = watched(rounds, model.device).reasons(model.device)
        finally:
            if collecting:
                gc.enable()
        flags = timing_flags(model, reasons, max(unsettled, default=None))
        if model.runtime != baseline.runtime:
            flags = (f"mixed: {model.runtime} against {baseline.runtime}", *flags)
        return [_median(name, sorted(ratios), flags) for name, ratios in zip(FIGURES, (wall, busy), strict=True)]

    @classmethod
    def figures(cls) -> tuple[str, ...]:
        return FIGURES


def _median(name: str, ordered: Sequence[float], flags: tuple[str, ...]) -> Figure:
    low, high = interval(ordered, 0.5)
    return Figure(name=name, value=percentile(ordered, 0.5), low=low, high=high, n=len(ordered), flags=flags)
