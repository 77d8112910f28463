"""What a run leaves behind, and how it is read again.

<output>/store/                        records and weights, shared by all runs (bench.store)
<output>/runs/<submission>/suite.yaml  as it was given
<output>/runs/<submission>/resolved.yaml, resolved.json, manifest.json, failures.jsonl, status.json
<output>/reports/<submission>/         leaderboard.html and its like
<output>/mlflow.db, mlartifacts/       MLflow, unless another tracking URI was given
"""

import json
import platform
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa

from bench.errors import OperatorError, did_you_mean
from bench.examples import Examples
from bench.plan import CellPlan, PluginRef, Resolved
from bench.plugins import ROOT
from bench.records import FIGURES, SAMPLES, Cell, Failure, conform, device_of
from bench.store import Store, write_atomically

LIBRARIES = ("torch", "numpy", "ray", "foolbox", "mlflow", "pyarrow", "scikit-learn", "onnxruntime")


@dataclass(frozen=True)
class Run:
    """One submission in an output folder."""

    output: Path
    submission: str

    @classmethod
    def create(
        cls,
        output: Path,
        resolved: Resolved,
        given: str,
        complete: str,
        manifest: Mapping[str, Any],
        name: str | None = None,
    ) -> "Run":
        """Write down what is about to be run; the same submission again takes up its own place.

        given: the suite's text as it was submitted; complete: with all defaults and overrides. name: its own, where it
        should not share its place with others of the same content.
        """
        run = cls(output, name or resolved.submission)
        run.write("suite.yaml", given)
        run.write("resolved.yaml", complete)
        run.set_resolved(resolved)
        run.write("manifest.json", json.dumps(manifest, indent=2, sort_keys=True))
        run.write("failures.jsonl", "")
        run.set_status("running")
        return run

    @property
    def folder(self) -> Path:
        return self.output / "runs" / self.submission

    @property
    def reports(self) -> Path:
        return self.output / "reports" / self.submission

    @cached_property
    def store(self) -> Store:
        return Store(str(self.output / "store"))

    @cached_property
    def resolved(self) -> Resolved:
        return Resolved.model_validate_json(self.read("resolved.json"))

    def set_resolved(self, resolved: Resolved) -> None:
        """Again when models that were yet to be trained have got their weights."""
        self.__dict__.pop("resolved", None)
        self.write("resolved.json", resolved.model_dump_json(indent=2))

    @property
    def manifest(self) -> dict[str, Any]:
        return dict(json.loads(self.read("manifest.json")))

    @property
    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.read("status.json")))

    def set_status(self, state: str, **more: Any) -> None:
        """state: running, stopped, complete, or incomplete (some tasks failed)."""
        self.write("status.json", json.dumps({"state": state, "time": time.time(), **more}))

    @property
    def failures(self) -> list[Failure]:
        return [Failure.model_validate_json(line) for line in self.read("failures.jsonl").splitlines()]

    def add_failure(self, failure: Failure) -> None:
        with (self.folder / "failures.jsonl").open("a") as file:
            file.write(failure.model_dump_json() + "\n")

    def cells(self, only: str | None = None) -> Iterator[Cell]:
        """The records of each cell, row by row of the leaderboard: by model, then data set, as the suite has them."""
        failures: dict[str, list[Failure]] = {}
        for failure in self.failures:
            failures.setdefault(f"{failure.model}/{failure.dataset}/{failure.evaluation}", []).append(failure)
        models, datasets, evaluations = map(_places, self._refs())
        for plan in sorted(
            self.resolved.cells(only),
            key=lambda p: (models[p.model.label], datasets[p.dataset.label], evaluations[p.evaluation.label]),
        ):
            ref = plan.evaluation
            mine = failures.get(plan.label, [])
            table, devices = self._table(plan)
            yield Cell(
                model=plan.model.label,
                dataset=plan.dataset.label,
                evaluation=ref.label,
                kind=ref.kind,
                table=table,
                failures=mine,
                plugin=ref.plugin,
                norm=ref.norm,
                epsilons=ref.epsilons,
                knowledge=ref.knowledge,
                threat=ref.threat,
                remedy=ref.remedy,
                minimal=ref.minimal,
                planned=plan.size,
                devices=devices,
                seen=plan.dataset.digest in plan.model.learnt_from,
                fit_seconds=plan.fit.seconds if plan.fit else None,
                state_bytes=plan.fit.size if plan.fit else None,
            )

    def _refs(self) -> tuple[Sequence[PluginRef], ...]:
        return self.resolved.models, self.resolved.datasets, self.resolved.evaluations

    def _table(self, plan: CellPlan) -> tuple[pa.Table, list[str]]:
        """A cell's records, and the names of the devices that computed them."""
        schema = FIGURES if plan.evaluation.kind.figures else SAMPLES
        there = [task.key for task in plan.tasks() if self.store.has(task.key)]
        read = [self.store.read(key, schema.names) for key in there]
        devices = sorted({device for part in read if (device := device_of(part))})
        parts = [conform(part, schema) for part in read]
        return pa.concat_tables(parts) if parts else schema.empty_table(), devices

    def examples(self, only: str | None = None, enough: int | None = None) -> Iterator[tuple[CellPlan, Examples]]:
        """The adversarial examples of each attack that kept some, one attack's in memory at a time.

        enough: do not read on when there are so many.
        """
        for plan in self.resolved.cells(only):
            parts: list[pa.Table] = []
            there = (task.key for task in plan.tasks() if plan.evaluation.keep and self.store.has(task.key))
            for key in there:
                parts.append(self.store.read(key))
                crafted = sum(len(part) - part["adversarial"].null_count for part in parts)
                if enough is not None and crafted >= enough:
                    break
            if parts and (found := Examples.of(pa.concat_tables(parts))) is not None:
                yield plan, found

    def used(self) -> Iterator[str]:
        """Every key in the store that this run refers to."""
        for model in self.resolved.models:
            yield from filter(None, (model.weights, model.training))
        for fit in self.resolved.fits:
            yield from filter(None, (fit.key, fit.state))
        for plan in self.resolved.cells():
            yield from (task.key for task in plan.tasks())

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()

    def write(self, name: str, text: str) -> None:
        write_atomically(self.folder / name, text.encode())


def find(name: str, output: Path) -> Run:
    """A run by its id, its own folder, or the latest of an output folder. Raises OperatorError with the nearest id."""
    path = Path(name)
    if (path / "status.json").is_file():
        return Run(path.resolve().parents[1], path.resolve().name)
    if (path / "runs").is_dir():
        return latest(path)
    if (output / "runs" / name / "status.json").is_file():
        return Run(output, name)
    known = [run.submission for run in runs(output)]
    raise OperatorError(
        f"no run '{name}' in {output / 'runs'}{did_you_mean(name, known)}",
        f"known: {', '.join(known) or 'none'}; --output names another folder",
    )


def runs(output: Path) -> list[Run]:
    """All runs of an output folder, the latest first."""
    folders = [status.parent for status in (output / "runs").glob("*/status.json")]
    found = [Run(output, folder.name) for folder in folders]
    return sorted(found, key=lambda run: -float(run.status["time"]))


def latest(output: Path) -> Run:
    found = runs(output)
    if not found:
        raise OperatorError(f"no run in {output}", "`gauntlet run suites/quickstart.yaml` makes one")
    return found[0]


def manifest(command: Iterable[str], fingerprint: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """What one has to know to do the same again: revision, versions, hardware, seed, command."""
    return {
        "command": list(command),
        "git_revision": _git("rev-parse", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain")),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in LIBRARIES},
        "hardware": dict(fingerprint),
        "seed": seed,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _places(refs: Sequence[PluginRef]) -> dict[str, int]:
    return {ref.label: place for place, ref in enumerate(refs)}


def _git(*command: str) -> str | None:
    """None where this is no git checkout, or there is no git."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *command], capture_output=True, text=True, check=True)  # noqa: S607
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
