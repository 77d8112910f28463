"""A user's own project outside the repository, and the command as they call it."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.__main__ import main

HERE = Path(__file__).parent

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

    def gauntlet(self, *words: str, code: int = 0, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*words),
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def here(self, *words: str, code: int = 0) -> str:
        """A verb that imports none of the project's modules, in this process: quicker. Returns what it printed."""
        said = io.StringIO()
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            assert main(list(words)) == code, said.getvalue()
        return said.getvalue()

    def run(self, output: str = "out", *words: str, code: int = 0) -> dict[str, Any]:
        done = self.gauntlet("run", "suite.yaml", "--output", output, "--format", "json", *words, code=code)
        return json.loads(done.stdout)

    def records(self, output: str = "out") -> bytes:
        path = self.folder / output / "export.parquet"
        self.here("records", output, "--to", str(path))
        return path.read_bytes()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    shutil.copy(HERE / "lab.py", tmp_path / "lab.py")
    made = Project(tmp_path)
    made.suite()
    return made
