"""Whether a timing was disturbed: by neighbours on the same cores, or by a machine that changed its speed."""

import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter_ns, process_time_ns, thread_time_ns

import torch

from bench.errors import PluginError
from bench.gpu import gpu

SHARE = 0.95  # of the time, at least, that the measuring thread must have had its core
SWITCHES = 50.0  # involuntary context switches per second, at most: a busy neighbour causes 100 to 200
DRIFT = 0.05  # of the canary, at most
STEAL = 0.02  # of the machine's time, at most, that its host gave to other virtual machines
CANARY_RUNS = 100
CANARY_SIZE = 192


@dataclass(frozen=True)
class Disturbance:
    """What was seen beside a measurement."""

    share: float  # CPU time of the measuring thread / wall time
    switches: float  # involuntary context switches of the process, per second
    drift: float  # of a fixed matrix product after the measurement against before, signed share
    steal: float = 0.0  # share of the machine's processor time that its host gave to others; 0 where it does not tell
    gpu: tuple[str, ...] = ()  # what the GPU tells

    def reasons(self, device: str) -> tuple[str, ...]:
        """Why the timing is not to be trusted; empty where it is. On a GPU the thread may wait: no share is asked."""
        seen = []
        if self.share < SHARE and device == "cpu":
            seen.append(f"its thread had the core for {self.share:.0%} of the time")
        if self.switches > SWITCHES:
            seen.append(f"{self.switches:.0f} involuntary context switches per second")
        if abs(self.drift) > DRIFT:
            seen.append(f"a fixed matrix product changed its speed by {self.drift:+.0%}")
        if self.steal > STEAL:
            seen.append(f"the host took {self.steal:.0%} of the machine's processor time away")
        return (*seen, *self.gpu)


def watched(measure: Callable[[], None], device: str) -> Disturbance:
    """Run `measure` once and tell what disturbed it."""
    before, ticks = canary(device), _ticks()
    switches, cpu, wall = _switches(), thread_time_ns(), perf_counter_ns()
    measure()
    cpu, wall, switches = thread_time_ns() - cpu, perf_counter_ns() - wall, _switches() - switches
    stolen, passed = (after - earlier for after, earlier in zip(_ticks(), ticks, strict=True))
    return Disturbance(
        share=cpu / wall,
        switches=switches / (wall / 1e9),
        drift=canary(device) / before - 1,
        steal=stolen / max(1, passed),
        gpu=_told_by_gpu(device),
    )


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


def _ticks(stat: Path = Path("/proc/stat")) -> tuple[int, int]:
    """Of all processors since the start: ticks that the host gave to others, and all; (0, 0) where it does not tell."""
    try:
        fields = [int(word) for word in stat.read_text().partition("\n")[0].split()[1:9]]
    except (OSError, ValueError):
        return 0, 0
    return (fields[7], sum(fields)) if len(fields) == 8 else (0, 0)


def _told_by_gpu(device: str) -> tuple[str, ...]:
    if not device.startswith("cuda"):
        return ()
    try:
        return gpu(device).disturbances()
    except PluginError as problem:
        return (f"the GPU does not tell whether it was disturbed: {problem.message}",)
