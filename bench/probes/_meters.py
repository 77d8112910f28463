"""Counters of energy that a machine really has."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.errors import PluginError
from bench.gpu import gpu

RAPL = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Meter:
    """`read` gives joules since some fixed moment."""

    source: str
    read: Callable[[], float]


def rapl(root: Path = RAPL) -> Meter:
    """All processor packages of this machine together. Raises PluginError where it has no counter that can be read."""
    zones = sorted(zone for zone in root.glob("intel-rapl:*") if zone.name.count(":") == 1)
    if not zones:
        raise PluginError(f"this machine has no RAPL counter ({root}/intel-rapl:*)")
    try:
        wraps = [_microjoules(zone / "max_energy_range_uj") for zone in zones]
        counters = [_Unwrapped(zone / "energy_uj", wrap) for zone, wrap in zip(zones, wraps, strict=True)]
    except OSError as problem:
        raise PluginError(f"the RAPL counter cannot be read: {problem}") from None
    return Meter("RAPL, processor packages", lambda: sum(counter.joules() for counter in counters))


def nvml(device: str) -> Meter:
    """The GPU `device` ("cuda:0"). Raises PluginError where there is no NVML, or the GPU counts no energy."""
    found = gpu(device)
    found.joules()
    return Meter("NVML, the whole GPU", found.joules)


class _Unwrapped:
    """A counter of microjoules that starts again at 0 beyond `wrap`; read more often than it wraps around."""

    def __init__(self, file: Path, wrap: float) -> None:
        self._file, self._wrap = file, wrap
        self._last, self._turns = _microjoules(file), 0

    def joules(self) -> float:
        now = _microjoules(self._file)
        self._turns += now < self._last
        self._last = now
        return (now + self._turns * self._wrap) / 1e6


def _microjoules(file: Path) -> float:
    return float(file.read_text())
