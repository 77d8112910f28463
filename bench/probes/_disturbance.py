"""Whether a timing was disturbed: by neighbours on the same cores, or by a machine that changed its speed."""

import resource
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter_ns, process_time_ns, thread_time_ns

import torch

SHARE = 0.95  # of the time, at least, that the measuring thread must have had its core
SWITCHES = 50.0  # involuntary context switches per second, at most: a busy neighbour causes 100 to 200
DRIFT = 0.05  # of the canary, at most
CANARY_RUNS = 100
CANARY_SIZE = 192


@dataclass(frozen=True)
class Disturbance:
    """What was seen beside a measurement."""

    share: float  # CPU time of the measuring thread / wall time
    switches: float  # involuntary context switches of the process, per second
    drift: float  # of a fixed matrix product after the measurement against before, signed share

    def reasons(self, device: str) -> tuple[str, ...]:
        """Why the timing is not to be trusted; empty where it is. On a GPU the thread may wait: no share is asked."""
        seen = []
        if self.share < SHARE and device == "cpu":
            seen.append(f"its thread had the core for {self.share:.0%} of the time")
        if self.switches > SWITCHES:
            seen.append(f"{self.switches:.0f} involuntary context switches per second")
        if abs(self.drift) > DRIFT:
            seen.append(f"a fixed matrix product changed its speed by {self.drift:+.0%}")
        return tuple(seen)


def watched(measure: Callable[[], None], device: str) -> Disturbance:
    """Run `measure` once and tell what disturbed it."""
    before = canary(device)
    switches, cpu, wall = _switches(), thread_time_ns(), perf_counter_ns()
    measure()
    cpu, wall, switches = thread_time_ns() - cpu, perf_counter_ns() - wall, _switches() - switches
    return Disturbance(share=cpu / wall, switches=switches / (wall / 1e9), drift=canary(device) / before - 1)


def cpu_clock() -> Callable[[], int]:
    """Nanoseconds of CPU time: of this thread where torch computes on it alone, else of the whole process."""
    return thread_time_ns if torch.get_num_threads() == 1 else process_time_ns


def canary(device: str) -> float:
    """Median time in ns of a fixed float32 matrix product."""
    matrix = torch.ones(CANARY_SIZE, CANARY_SIZE, device=device)
    times = []
    for _ in range(CANARY_RUNS):
        synchronise(device)
        start = perf_counter_ns()
        torch.mm(matrix, matrix)
        synchronise(device)
        times.append(perf_counter_ns() - start)
    return median(times)


def synchronise(device: str) -> None:
    """Wait until a CUDA device has done all that was asked of it."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _switches() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
