"""What NVIDIA's management library (NVML) tells of a GPU: its limits, what slows it down, the energy it took.

Needs the extra `gauntlet-bench[gpu]`; without it, and without a GPU, everything here says so.
"""

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from bench.errors import PluginError

ARITHMETIC = "TF32 off, cudnn.benchmark off"
SLOWED = {  # NVML's reasons that make a timing no measure of the GPU; idle clocks and clocks set by its owner are none
    "SwPowerCap": "power cap",
    "HwSlowdown": "hardware slowdown",
    "HwThermalSlowdown": "heat (hardware)",
    "SwThermalSlowdown": "heat (driver)",
    "HwPowerBrakeSlowdown": "power brake",
}


def exact_arithmetic() -> None:
    """float32 is float32 on a GPU, too, and the same kernels are chosen each time: ARITHMETIC, set in this process."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = False


@dataclass(frozen=True)
class Gpu:
    """A GPU as NVML sees it."""

    nvml: Any
    handle: Any

    def facts(self) -> dict[str, str]:
        """gpu_driver, gpu_power_cap (W), gpu_clocks (highest of SM and memory, MHz), gpu_mig. "unknown": not told."""
        nvml, handle = self.nvml, self.handle
        return {
            "gpu_driver": self._told(lambda: str(nvml.nvmlSystemGetDriverVersion())),
            "gpu_power_cap": self._told(lambda: f"{nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1e3:g} W"),
            "gpu_clocks": self._told(
                lambda: " / ".join(
                    f"{nvml.nvmlDeviceGetMaxClockInfo(handle, clock)} MHz"
                    for clock in (nvml.NVML_CLOCK_SM, nvml.NVML_CLOCK_MEM)
                )
            ),
            "gpu_mig": self._told(lambda: "on" if nvml.nvmlDeviceGetMigMode(handle)[0] else "off"),
        }

    def disturbances(self) -> tuple[str, ...]:
        """What slows it down at this moment, and whether others compute on it."""
        try:
            bits = self.nvml.nvmlDeviceGetCurrentClocksEventReasons(self.handle)
            processes = len(self.nvml.nvmlDeviceGetComputeRunningProcesses(self.handle))
        except self.nvml.NVMLError as problem:
            return (f"the GPU does not tell whether it was disturbed: {problem}",)
        seen = [name for key, name in SLOWED.items() if bits & getattr(self.nvml, f"nvmlClocksEventReason{key}")]
        found = [f"the GPU was slowed down by {', '.join(seen)}"] if seen else []
        return (*found, *([f"{processes} processes compute on the GPU"] if processes > 1 else []))

    def joules(self) -> float:
        """Energy since the driver was loaded. Raises PluginError where the GPU counts none."""
        try:
            return float(self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle)) / 1e3
        except self.nvml.NVMLError as problem:
            raise PluginError(f"NVML gives no energy: {problem}") from None

    def _told(self, ask: Callable[[], str]) -> str:
        try:
            return ask()
        except self.nvml.NVMLError:
            return "unknown"


def gpu(device: str) -> Gpu:
    """The GPU of a torch device ("cuda:0"), found by its UUID: torch's numbers are not NVML's once some are hidden.

    Raises PluginError where NVML, or its Python package, is missing.
    """
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ModuleNotFoundError:
        raise PluginError(
            "NVML needs the package nvidia-ml-py, which is not installed", "`pip install gauntlet-bench[gpu]`"
        ) from None
    try:
        nvml.nvmlInit()
        uuid = torch.cuda.get_device_properties(device).uuid
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        slice_ = visible if visible.startswith("MIG-") else f"GPU-{uuid}"
        return Gpu(nvml, nvml.nvmlDeviceGetHandleByUUID(slice_))
    except nvml.NVMLError as problem:
        raise PluginError(f"NVML does not know the GPU of {device}: {problem}") from None
