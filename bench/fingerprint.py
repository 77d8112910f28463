"""What a timing is valid for: the hardware and the software that it ran on.

Timings of two fingerprints are never ranked against each other.
"""

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from bench.errors import PluginError
from bench.gpu import ARITHMETIC, gpu

LIBRARIES = ("torch", "numpy", "onnxruntime", "openvino")
Fingerprint = dict[str, str | int | float]
UNKNOWN = "unknown"  # the machine does not tell


def fingerprint() -> Fingerprint:
    """Of this process, as it stands now: threads and visible GPUs are those of the caller.

    Keys: cpu, cpu_flags (digest), cores (those this process may use), quota (cores, of the control group; 0: none),
    governor, gpu (and with one: driver, power cap, clocks, MIG mode, CUDA, cuDNN, arithmetic), kernel, python, the
    LIBRARIES, threads and interop_threads of torch. What the machine does not tell is "unknown"; what it does not have
    is "none". Raises nothing.
    """
    return {
        **_cpu(),
        "quota": _quota(Path("/sys/fs/cgroup")),
        "governor": _read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")) or UNKNOWN,
        **_gpu(),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{library: _version(library) for library in LIBRARIES},
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
    }


def fingerprint_digest(found: Mapping[str, str | int | float]) -> str:
    """16 hexadecimal digits that differ where the fingerprints do. The order of the keys does not matter."""
    text = json.dumps(dict(found), sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def with_threads(found: Mapping[str, str | int | float], threads: int) -> tuple[Fingerprint, str]:
    """A machine's fingerprint with the threads that a suite gives a worker, and its digest: what timings bear."""
    mine = {**found, "threads": threads}
    return mine, fingerprint_digest(mine)


def device_name(device: str) -> str:
    """The processor's or the GPU's name, of a torch device of this machine."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else str(_cpu()["cpu"])


def _cpu() -> dict[str, str | int | float]:
    first, _, _ = _read(Path("/proc/cpuinfo")).partition("\n\n")
    pairs = (line.partition(":") for line in first.splitlines())
    lines = {key.strip(): value.strip() for key, _, value in pairs}
    flags = lines.get("flags") or lines.get("Features", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "cpu": lines.get("model name") or platform.processor() or platform.machine(),
        "cpu_flags": hashlib.blake2b(flags.encode(), digest_size=4).hexdigest() if flags else UNKNOWN,
        "cores": cores,
    }


def _quota(root: Path) -> float:
    """Cores that the control group allows; 0 where it sets no limit. Version 2 and version 1 of the interface."""
    words = _read(root / "cpu.max").split() or [
        _read(root / "cpu" / "cpu.cfs_quota_us"),
        _read(root / "cpu" / "cpu.cfs_period_us"),
    ]
    if len(words) != 2 or not all(word.isdigit() for word in words):
        return 0.0
    return int(words[0]) / int(words[1])


def _gpu() -> dict[str, str | int | float]:
    if not torch.cuda.is_available():
        return {"gpu": "none"}
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "gpu": ", ".join(names),
        **_managed(),
        "cuda": torch.version.cuda or UNKNOWN,
        "cudnn": torch.backends.cudnn.version() or UNKNOWN,
        "gpu_arithmetic": ARITHMETIC,
    }


def _managed() -> dict[str, str]:
    """What NVML tells of the first GPU: the machines we know have several of one kind."""
    try:
        return gpu("cuda:0").facts()
    except PluginError as problem:
        return {"gpu_driver": f"{UNKNOWN} ({problem.message})"}


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "none"


def _read(path: Path) -> str:
    """The text of a file of the kernel, or nothing where this machine has no such file."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
