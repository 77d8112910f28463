"""Adversarial examples as data: written to a file, and replayed against other models."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench import runs
from bench.errors import Mistake, OperatorError, SuiteError
from bench.examples import Examples
from bench.plan import CellPlan
from bench.runs import Run
from bench.store import digest, write_atomically
from bench.suite import DatasetSpec, Evaluations, Leaderboard, Suite

PARTS = {"crafted": "", "quantised": ".8bit", "untouched": ".untouched"}  # of a file: what its data set is called


def source(name: str, output: Path) -> Run:
    """The run that is meant; of an output folder the latest whose attacks keep examples. Raises OperatorError."""
    if (Path(name) / "runs").is_dir():
        keeping = (run for run in runs.runs(Path(name)) if any(ref.keep for ref in run.resolved.evaluations))
        if (found := next(keeping, None)) is not None:
            return found
    return runs.find(name, output)


def kept(run: Run, only: str | None) -> list[tuple[CellPlan, Examples]]:
    """The attacks of a run that kept examples. Raises OperatorError that says what there is, where there is none."""
    found = list(run.examples(only))
    if not found:
        having = [plan.label for plan in run.resolved.cells() if plan.evaluation.keep]
        advice = (
            "add `keep: exact` to an attack of the suite, and run it" if not having else f"kept: {', '.join(having)}"
        )
        raise OperatorError(f"{run.submission} has no adversarial examples{f' of {only}' if only else ''}", advice)
    return found


def write(run: Run, only: str | None, path: Path) -> int:
    """Write what one attack crafted on one model as .npz; returns the number of samples. Raises OperatorError where
    `only` leaves more than one."""
    found = kept(run, only)
    if len(found) > 1:
        labels = ", ".join(plan.label for plan, _ in found)
        raise OperatorError(f"{len(found)} attacks kept examples: {labels}", "name one by --only MODEL/DATASET/ATTACK")
    [(plan, examples)] = found
    write_atomically(path, archive(run, plan, examples))
    return len(examples.sample)


def archive(run: Run, plan: CellPlan, examples: Examples) -> bytes:
    """The .npz that the data set `adversarial` reads: the same examples give the same bytes."""
    about = {
        "submission": run.submission,
        "model": plan.model.label,
        "weights": plan.model.weights,
        "dataset": plan.dataset.label,
        "digest": plan.dataset.digest,
        "attack": plan.evaluation.plugin,
        "args": plan.evaluation.args,
        "norm": plan.evaluation.norm,
        "epsilons": plan.evaluation.epsilons,
    }
    arrays: dict[str, NDArray[np.generic]] = {name: value for name, value in vars(examples).items() if name != "bounds"}
    arrays["bounds"] = np.array(examples.bounds, np.float64)
    arrays["classes"] = np.array(plan.dataset.classes)
    arrays["about"] = np.array(json.dumps(about, sort_keys=True))
    sink = io.BytesIO()
    np.savez(sink, **arrays)  # type: ignore[arg-type]
    return sink.getvalue()


def replay(suite: Suite, run: Run, only: str | None, output: Path) -> Suite:
    """A suite that tries the examples of a run on the models of another suite.

    A data set for each attack that kept examples, as crafted and rounded to 8 bits, and the same samples untouched. The
    files are written below the output folder, named by their content. Raises OperatorError, SuiteError.
    """
    datasets = tuple(spec for plan, examples in kept(run, only) for spec in _datasets(run, plan, examples, output))
    name = f"{suite.name[:55]}-transfer"
    if len({spec.name for spec in datasets}) < len(datasets):
        raise SuiteError([Mistake("--only", "", "two of these have names that are alike in 50 letters: name one")])
    update = {"name": name, "datasets": datasets, "evaluations": Evaluations(), "leaderboard": Leaderboard()}
    return suite.model_copy(update=update)


def _datasets(run: Run, plan: CellPlan, examples: Examples, output: Path) -> Iterator[DatasetSpec]:
    data = archive(run, plan, examples)
    path = (output / "examples" / f"{digest(data)}.npz").absolute()
    if not path.exists():
        write_atomically(path, data)
    label = plan.label.replace("/", ".")[:50]
    for part, suffix in PARTS.items():
        if part == "crafted" and examples.adversarial.dtype == np.uint8:
            continue  # kept in 8 bits: how they were crafted is not known any more
        yield DatasetSpec(dataset="adversarial", name=f"{label}{suffix}", args={"path": str(path), "part": part})
