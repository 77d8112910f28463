"""What is asked of NVML, against a stand-in; tests/probes/test_gpu.py asks a real GPU."""

import pynvml
import pytest

from bench.errors import PluginError
from bench.gpu import SLOWED, gpu
from tests.probes.nvml import with_nvml


def test_the_gpu_is_found_by_its_uuid_and_a_slice_by_its_own(monkeypatch):
    fake = with_nvml(monkeypatch)
    gpu("cuda:0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-12")
    gpu("cuda:0")
    assert fake.asked == ["GPU-aa-bb", "MIG-12"]


def test_its_limits_are_in_watts_and_megahertz_and_what_is_not_told_is_unknown(monkeypatch):
    fake = with_nvml(monkeypatch)
    fake.refused.add("nvmlDeviceGetMigMode")
    assert gpu("cuda:0").facts() == {
        "gpu_driver": "570.1",
        "gpu_power_cap": "700 W",
        "gpu_clocks": "1980 MHz / 3201 MHz",
        "gpu_mig": "unknown",
    }


def test_idle_clocks_disturb_nothing_but_a_power_cap_heat_and_neighbours_do(monkeypatch):
    fake = with_nvml(monkeypatch)
    assert gpu("cuda:0").disturbances() == ()
    fake.reasons, fake.processes = 0x1 | 0x4 | 0x20, 2
    slowed, crowded = gpu("cuda:0").disturbances()
    assert slowed == "the GPU was slowed down by power cap, heat (driver)"
    assert crowded == "2 processes compute on the GPU"
    fake.refused.add("nvmlDeviceGetCurrentClocksEventReasons")
    assert gpu("cuda:0").disturbances() == ("the GPU does not tell whether it was disturbed: Not Supported",)


def test_the_stand_in_has_the_names_and_values_of_the_real_package(monkeypatch):
    fake = with_nvml(monkeypatch)
    for name in (*fake.answers, *(f"nvmlClocksEventReason{key}" for key in SLOWED), "NVML_CLOCK_SM", "NVML_CLOCK_MEM"):
        real = getattr(pynvml, name)
        assert callable(real) or real == getattr(fake, name), name
    assert issubclass(pynvml.NVMLError, Exception)


def test_without_a_driver_the_real_package_gives_a_reason():
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        with pytest.raises(PluginError, match="NVML does not know the GPU of cuda:0"):
            gpu("cuda:0")
    else:
        pytest.skip("this machine has an NVIDIA driver")
