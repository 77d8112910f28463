"""The four scenarios of the MLPerf inference rules, driven and judged by MLPerf's own LoadGen."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from statistics import median
from typing import ClassVar

import torch
from pydantic import Field

from bench.contracts import Classifier, Figure, Probe, Samples, probe
from bench.disturbance import synchronise, watched
from bench.probes._loadgen import Verdict, load
from bench.probes._timing import warm_up
from bench.probes.latency import ready_batches, timed, timing_flags

CERTIFIED = 600.0  # seconds that the rules ask for
READY = 1024  # samples that lie ready
PER_QUERY = 8  # samples in a query of MultiStream
FOR_P99 = 662  # queries, the fewest with which early stopping can tell a 99th percentile

Results = Mapping[str, tuple[str, str, float]]


class _Scenario(Probe):
    """What the four have in common."""

    requires: ClassVar[tuple[str, ...]] = ("torch", "mlcommons-loadgen")
    exclusive: ClassVar[bool] = True
    scenario: ClassVar[str]
    label: ClassVar[str]
    results: ClassVar[Results]  # figure -> LoadGen's key, unit, LoadGen's units in one

    seconds: float = Field(
        default=CERTIFIED, gt=0, le=86_400, description="length of the run; below 600 it is not certified"
    )
    batch_size: int = Field(default=1, ge=1, description="samples that the model is given at once, at the most")

    def least_seconds(self) -> float:
        return self.seconds

    @classmethod
    def figures(cls) -> tuple[str, ...]:
        return (*cls.results, f"mlperf_valid/{cls.label}")

    @abstractmethod
    def settings(self, seconds_per_sample: float) -> dict[str, float]:
        """Of LoadGen, beside the duration. The time was seen in the warm-up, at `batch_size`."""

    def measure(self, model: Classifier, samples: Samples, artefact: bytes | None) -> Sequence[Figure]:
        inputs = torch.cat(ready_batches(model, samples, READY // 16))
        size = self.batch_size

        def answer(wanted: Sequence[int]) -> None:
            with torch.no_grad():  # LoadGen asks from threads of its own
                for first in range(0, len(wanted), size):
                    model.logits(inputs[list(wanted[first : first + size])])
                synchronise(model.device)

        times: list[float] = []

        def query() -> float:
            times.append(timed(model, inputs[:size]))
            return times[-1]

        with torch.no_grad():
            unsettled = warm_up(query, 50, 2.0, 10.0)
        settings = {"min_duration_ms": int(1e3 * self.seconds), **self.settings(median(times) / 1e3 / size)}
        verdicts: list[Verdict] = []
        # the thread that waits here computes nothing: switches and the canary tell of neighbours
        reasons = watched(lambda: verdicts.append(load(answer, READY, self.scenario, settings)), model.device).reasons(
            "asynchronous"
        )
        return self.told(verdicts[0], timing_flags(model, reasons, unsettled))

    def told(self, verdict: Verdict, flags: tuple[str, ...]) -> list[Figure]:
        if not verdict.valid:
            flags = (f"invalid: {verdict.reasons}", *flags)
        if self.seconds < CERTIFIED:
            flags = (*flags, f"uncertified: {self.seconds:g} s instead of {CERTIFIED:g} s")
        found = []
        count = verdict.number("result_query_count")
        for name, (key, unit, scale) in self.results.items():
            value = verdict.number(key)
            missing = ("too few queries: LoadGen gives no estimate",) if value is None else ()
            shown = None if value is None else value / scale
            found.append(Figure(name=name, value=shown, unit=unit, n=int(count or 0), flags=(*missing, *flags)))
        return [*found, Figure(name=f"mlperf_valid/{self.label}", value=float(verdict.valid), flags=flags)]


@probe("mlperf_single_stream")
class SingleStream(_Scenario):
    """MLPerf SingleStream: one sample after the other; LoadGen's 90th percentile, after early stopping."""

    scenario: ClassVar[str] = "SingleStream"
    label: ClassVar[str] = "single_stream"
    results: ClassVar[Results] = {"mlperf_ms/single_stream_p90": ("early_stopping_latency_ss", "ms", 1e6)}

    def settings(self, seconds_per_sample: float) -> dict[str, float]:
        return {"single_stream_expected_latency_ns": int(0.5e9 * seconds_per_sample), "min_query_count": 64}


@probe("mlperf_multi_stream")
class MultiStream(_Scenario):
    """MLPerf MultiStream: eight samples per query; LoadGen's 99th percentile of a query, after early stopping."""

    scenario: ClassVar[str] = "MultiStream"
    label: ClassVar[str] = "multi_stream"
    results: ClassVar[Results] = {"mlperf_ms/multi_stream_p99": ("early_stopping_latency_ms", "ms", 1e6)}

    batch_size: int = Field(default=PER_QUERY, ge=1, description="samples that the model is given at once, at the most")

    def settings(self, seconds_per_sample: float) -> dict[str, float]:
        return {
            "multi_stream_expected_latency_ns": int(0.5e9 * PER_QUERY * seconds_per_sample),
            "multi_stream_samples_per_query": PER_QUERY,
            "min_query_count": FOR_P99,
        }


@probe("mlperf_server")
class Server(_Scenario):
    """MLPerf Server: queries arrive as a Poisson process; LoadGen's 99th percentile, waiting included."""

    scenario: ClassVar[str] = "Server"
    label: ClassVar[str] = "server"
    results: ClassVar[Results] = {
        "mlperf_ms/server_p99": ("result_99.00_percentile_latency_ns", "ms", 1e6),
        "mlperf_qps/server": ("result_completed_samples_per_sec", "queries/s", 1.0),
    }

    queries_per_second: float = Field(gt=0, description="mean rate of arrivals")
    bound_ms: float = Field(gt=0, description="the 99th percentile must lie below it, or the run is invalid")

    def settings(self, seconds_per_sample: float) -> dict[str, float]:
        return {
            "server_target_qps": self.queries_per_second,
            "server_target_latency_ns": int(1e6 * self.bound_ms),
            "server_target_latency_percentile": 0.99,
            "min_query_count": FOR_P99,
        }


@probe("mlperf_offline")
class Offline(_Scenario):
    """MLPerf Offline: all samples, at least 24,576, lie ready at once; samples per second."""

    scenario: ClassVar[str] = "Offline"
    label: ClassVar[str] = "offline"
    results: ClassVar[Results] = {"mlperf_qps/offline": ("result_samples_per_second", "samples/s", 1.0)}

    batch_size: int = Field(default=32, ge=1, description="samples that the model is given at once, at the most")

    def settings(self, seconds_per_sample: float) -> dict[str, float]:
        return {"offline_expected_qps": 1 / seconds_per_sample, "min_query_count": 24_576}
