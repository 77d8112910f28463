"""A stand-in for NVML's Python package: what we ask, and how we read the answers, needs no GPU."""

import sys
from types import SimpleNamespace
from typing import ClassVar

import torch


class Refused(Exception):
    pass


class FakeNvml:
    """Answers as nvidia-ml-py does: milliwatts, millijoules, bit masks; raises what a GPU does not support."""

    NVMLError = Refused
    NVML_CLOCK_SM, NVML_CLOCK_MEM = 1, 2
    REASONS: ClassVar = {
        "GpuIdle": 0x1, "SwPowerCap": 0x4, "HwSlowdown": 0x8, "SwThermalSlowdown": 0x20,
        "HwThermalSlowdown": 0x40, "HwPowerBrakeSlowdown": 0x80,
    }  # fmt: skip

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.asked: list[str] = []
        self.reasons = 0x1
        self.processes = 1
        self.answers = {
            "nvmlInit": lambda: None,
            "nvmlDeviceGetHandleByUUID": self._handle,
            "nvmlSystemGetDriverVersion": lambda: "570.1",
            "nvmlDeviceGetEnforcedPowerLimit": lambda handle: 700_000,
            "nvmlDeviceGetMaxClockInfo": lambda handle, clock: {1: 1980, 2: 3201}[clock],
            "nvmlDeviceGetMigMode": lambda handle: [0, 0],
            "nvmlDeviceGetCurrentClocksEventReasons": lambda handle: self.reasons,
            "nvmlDeviceGetComputeRunningProcesses": lambda handle: [object()] * self.processes,
            "nvmlDeviceGetTotalEnergyConsumption": lambda handle: 5000,
        }

    def _handle(self, uuid: str) -> str:
        self.asked.append(uuid)
        return uuid

    def __getattr__(self, name: str):
        if name in self.refused:
            return lambda *_: (_ for _ in ()).throw(Refused("Not Supported"))
        if name.startswith("nvmlClocksEventReason"):
            return self.REASONS[name.removeprefix("nvmlClocksEventReason")]
        try:
            return self.answers[name]
        except KeyError:
            raise AttributeError(name) from None


def with_nvml(monkeypatch) -> FakeNvml:
    """The stand-in in place of the package, and one GPU in torch's eyes."""
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="aa-bb"))
    return fake
