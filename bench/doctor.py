"""What this machine has, and whether it will do."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from bench import cluster, plugins
from bench.data import catalogue, data_root
from bench.errors import GauntletError
from bench.fingerprint import fingerprint
from bench.placement import Share
from bench.runs import LIBRARIES

LEAST_FREE = 2 << 30  # bytes on the disk of the output folder


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `hint` says what to do where it is not right."""

    name: str
    ok: bool
    detail: str
    hint: str = ""


def checks(output: Path) -> Iterator[Check]:
    """Look at everything that a run needs; the last check starts a Ray and stops it again."""
    yield _tried("import names", _import_names)
    yield _tried("plugins", _plugins)
    yield Check("libraries", True, ", ".join(f"{name} {version(name)}" for name in LIBRARIES))
    machine = fingerprint()
    yield Check("processor", True, f"{machine['cpu']}, {machine['cores']} cores, quota {machine['quota'] or 'none'}")
    yield Check("GPU", True, f"{machine['gpu']}")
    yield _disk(output)
    present = [entry.name for entry in catalogue() if entry.present]
    yield Check("data", True, f"{data_root()}: {', '.join(present) or 'nothing yet (digits need no file)'}")
    yield _tried("Ray", _ray)


def _import_names() -> str:
    plugins.check_import_names()
    return f"ours, in {plugins.ROOT}"


def _plugins() -> str:
    plugins.load_built_in()
    return "all imported"


def _disk(output: Path) -> Check:
    place = next(folder for folder in (output.absolute(), *output.absolute().parents) if folder.exists())
    if not place.is_dir():
        return Check("output", False, f"{place} is not a folder", "name another one with --output")
    try:
        with tempfile.TemporaryFile(dir=place):  # mode bits do not tell: root may write everywhere but where it cannot
            pass
    except OSError as problem:
        return Check("output", False, f"{place} cannot be written to: {problem.strerror}", "name another with --output")
    free = shutil.disk_usage(place).free
    detail = f"{output.absolute()}: {free / 2**30:.0f} GiB free"
    return Check("output", free > LEAST_FREE, detail, "make room, or name another folder with --output")


def _ray() -> str:
    with cluster.cluster(None, None, Share()) as ray:
        return f"starts, with room for {ray.room()} workers"


def _tried(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, True, look())
    except GauntletError as problem:
        return Check(name, False, problem.message, problem.hint)
