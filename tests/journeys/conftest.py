"""A user's own project outside the repository, and the command as they call it."""

import contextlib
import functools
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml

from bench import tracking
from bench.__main__ import main

HERE = Path(__file__).parent
GATE = "LAB_GATE"  # of lab.py
PATIENCE = 900.0  # seconds: only a hang takes as long, however busy the machine is

SUITE: dict[str, Any] = {
    "name": "lab",
    "plugins": ["lab.py"],
    "models": [{"name": "means", "adapter": "lab_means"}],
    "datasets": [{"dataset": "lab_digits"}],
    "evaluations": {
        "attacks": [
            {"attack": "lab_shove", "name": "shove", "norm": "linf", "epsilons": [0.1, 0.2, 0.3]},
            {"attack": "pgd", "norm": "linf", "epsilons": [0.05, 0.1], "args": {"steps": 5}},
        ]
    },
    "resources": {"batch_size": 64},
}
ATTACKS = [
    {"attack": "pgd", "norm": "linf", "epsilons": [0.05, 0.1], "args": {"steps": 10, "random_start": True}},
    {"attack": "foolbox.l2_deep_fool", "name": "deepfool", "norm": "l2", "epsilons": [0.5]},
    {"attack": "foolbox.linf_projected_gradient_descent", "name": "fb_pgd", "norm": "linf", "epsilons": [0.05]},
    {"attack": "lab_shove", "name": "shove", "norm": "l2", "epsilons": [1.0]},
]


@dataclass
class Project:
    """A folder with a suite and a module of one's own."""

    folder: Path

    def suite(self, **changes: Any) -> Path:
        path = self.folder / "suite.yaml"
        path.write_text(yaml.safe_dump({**SUITE, **changes}, sort_keys=False))
        return path

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "bench", *words]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "COLUMNS": "100"}

    def gauntlet(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*words),
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    @contextlib.contextmanager
    def started(self, *words: str, gate: Path | None = None) -> Iterator["Started"]:
        """The command in a group of its own, of which nothing is left afterwards. gate: what `lab.py` waits at."""
        out, err = self.folder / "stdout", self.folder / "stderr"
        with out.open("wb") as to_out, err.open("wb") as to_err:
            process = subprocess.Popen(
                self.command(*words),
                cwd=self.folder,
                env=self.environment() | ({GATE: str(gate)} if gate else {}),
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=to_out,
                stderr=to_err,
            )
        started = Started(process, out, err)
        try:
            yield started
        finally:
            started.signal(signal.SIGKILL)
            process.wait()

    def here(self, *words: str, code: int = 0) -> str:
        """A verb that imports none of the project's modules, in this process: quicker. Returns what it printed."""
        said = io.StringIO()
        with (
            contextlib.chdir(self.folder),
            mock.patch.dict(os.environ, self.environment()),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
        ):
            assert main(list(words)) == code, said.getvalue()
        return said.getvalue()

    def run(self, output: str = "out", *words: str, code: int = 0) -> dict[str, Any]:
        """Into a folder that has MLflow's tables already: making them takes longer than filling them."""
        database = self.folder / output / "mlflow.db"
        if not database.exists():
            database.parent.mkdir(exist_ok=True)
            database.write_bytes(tables())
        done = self.gauntlet("run", "suite.yaml", "--output", output, "--format", "json", *words, code=code)
        return json.loads(done.stdout)

    def records(self, output: str = "out") -> bytes:
        path = self.folder / output / "export.parquet"
        self.here("records", output, "--to", str(path))
        return path.read_bytes()

    def stored(self, output: str) -> dict[Path, int]:
        """The files of records that a run has written, and when."""
        files = (self.folder / output / "store" / "records").rglob("*.parquet")
        return {path: path.stat().st_mtime_ns for path in files if not path.name.startswith(".")}


@dataclass(frozen=True)
class Started:
    """A command that goes on."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    def reach(self, true: Callable[[], object]) -> None:
        """Wait until it is so, while the process lives."""
        wait_until(lambda: true() or self.process.poll() is not None)
        assert self.process.poll() is None, f"it ended before that:\n{self.err.read_text()}"

    def signal(self, number: signal.Signals) -> None:
        """To the whole group: the driver and its Ray, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def end(self, code: int = 0) -> tuple[str, str]:
        """Wait for it. Returns what it printed on stdout and stderr."""
        assert self.process.wait(PATIENCE) == code, self.err.read_text()
        return self.out.read_text(), self.err.read_text()


def wait_until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.02)


@functools.cache
def tables() -> bytes:
    """An MLflow database in which nothing stands."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mlflow.db")
        with tracking.connect(f"sqlite:///{path}"):
            return path.read_bytes()


def in_folder(folder: Path) -> Project:
    shutil.copy(HERE / "lab.py", folder / "lab.py")
    made = Project(folder)
    made.suite()
    return made


@pytest.fixture(scope="session", autouse=True)
def workers_do_not_starve() -> Iterator[None]:
    """Ray gives its workers the lowest priority but four: beside a busy neighbour they would hardly run at all."""
    with mock.patch.dict(os.environ, {"RAY_worker_niceness": "0"}):
        yield


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return in_folder(tmp_path)


@dataclass(frozen=True)
class Finished:
    """A project whose suite has run, while the tracking server was away, into `out`; what that printed."""

    project: Project
    document: dict[str, Any]
    said: str


@pytest.fixture(scope="session")
def _finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    project = in_folder(tmp_path_factory.mktemp("finished"))
    away = ("--tracking-uri", "http://127.0.0.1:9", "--format", "json")
    done = project.gauntlet("run", "suite.yaml", "--output", "out", *away)
    return Finished(project, json.loads(done.stdout), done.stderr)


@pytest.fixture
def finished(_finished: Finished, tmp_path: Path) -> Finished:
    """A copy of one's own."""
    shutil.copytree(_finished.project.folder, tmp_path, dirs_exist_ok=True)
    return Finished(Project(tmp_path), _finished.document, _finished.said)


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose suite of several attacks has run on one worker, undisturbed, into `one`."""
    project = in_folder(tmp_path_factory.mktemp("alone"))
    resources = {"batch_size": 32}
    project.suite(
        evaluations={"attacks": ATTACKS}, datasets=[{"dataset": "lab_digits", "limit": 300}], resources=resources
    )
    project.run("one", "--workers", "1")
    return project
