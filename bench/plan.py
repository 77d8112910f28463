"""From a resolved suite to tasks. Pure: opens no file and no socket.

Identity is content. A task's key is a hash of everything that decides its records: the bytes of the weights, the
digest of the data, the parameters and the source of the plugins, the seed, the block of samples, the threads, and the
versions of the libraries that compute. What a thing is called in the suite, and where its file lies, is no part of it.
"""

import fnmatch
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from pydantic import Field

from bench.contracts import Frozen, Goal, GradientPasses, Judging, ThreatModel
from bench.errors import Mistake, SuiteError, did_you_mean
from bench.records import Kind

EXAMINED = "examined"  # argument of the clean pass: at so many samples the gradients are checked


def content_key(*parts: Any) -> str:
    """32 hexadecimal digits: the blake2b hash of canonical JSON."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class PluginRef(Frozen):
    """A plugin by name and arguments, and what these resolved to."""

    label: str  # its name in this suite
    plugin: str
    args: dict[str, Any] = Field(default_factory=dict)
    source: str = ""  # digest of the plugin's source
    versions: dict[str, str] = Field(default_factory=dict)  # of the distributions that compute

    @property
    def identity(self) -> Any:
        return [self.plugin, self.args, self.source, self.versions]


class ModelRef(PluginRef):
    """A model. `weights` is the digest of its bytes; None: it has none, or `training` has yet to make them."""

    weights: str | None = None
    training: str | None = None  # key of the training that makes the weights
    where: tuple[str, ...] = ()  # arguments that say where it lies, not what it is
    baseline: str | None = None  # label of the model that it is compared with
    learnt_from: tuple[str, ...] = ()  # digests of the data of its trainings, as far as these were made here

    @property
    def identity(self) -> Any:
        args = {name: value for name, value in self.args.items() if name not in self.where}
        return [self.plugin, args, self.source, self.versions, self.weights]


class DatasetRef(PluginRef):
    """A data set, and the part of it that a suite takes."""

    split: str
    limit: int | None = None
    stratified: bool = True
    digest: str
    size: int  # samples taken
    classes: int
    images: bool = False  # inputs are (channels, height, width)

    @property
    def identity(self) -> Any:
        return [self.digest, self.split, self.limit, self.stratified, self.size]


class EvaluationRef(PluginRef):
    """An attack, a probe, a detector, or the clean pass."""

    kind: Kind
    norm: str | None = None
    epsilons: tuple[float, ...] = ()
    knowledge: str | None = None
    threat: ThreatModel | None = None  # of an attack
    minimal: bool = False
    exclusive: bool = False
    paired: bool = False  # a probe that measures a model against its baseline
    processes: int = 1  # fresh ones, each of which measures it once
    least_seconds: float = 0.0  # that it takes by its own settings
    hardware: str | None = None  # digest of the hardware that a timing is valid for
    outliers: DatasetRef | None = None
    adversarial: "EvaluationRef | None" = None  # an attack that makes the outliers, of the cell's own samples
    judging: Judging | None = None  # of stochastic models
    keep: str | None = None  # how an attack keeps what it crafts
    gradient_passes: GradientPasses = GradientPasses.FLOAT32  # of an attack
    prove: bool = False  # whether an attack leaves alone what its certificate proves
    remedy: str = ""  # of an attack that was added where records were suspect: what makes it stronger
    only: tuple[tuple[str, str], ...] = ()  # (model, data set) that it is made on; none: every one
    crafted_on: str | None = None  # label of the model that an attack is crafted on; None: on the one that is judged

    @property
    def identity(self) -> Any:
        made = self.outliers or self.adversarial
        outliers = made.identity if made else None
        judging = self.judging.model_dump() if self.judging else None
        kept = [self.keep] if self.keep else []
        passes = [] if self.gradient_passes is GradientPasses.FLOAT32 else [self.gradient_passes]
        proving = ["prove"] if self.prove else []
        return [
            self.kind,
            *super().identity,
            self.norm,
            self.epsilons,
            self.hardware,
            outliers,
            judging,
            *kept,
            *passes,
            *proving,
            *self._limits,
        ]

    @property
    def _limits(self) -> list[Any]:
        """What of the threat model is neither in the arguments nor usual."""
        if self.threat is None or (self.threat.goal is Goal.UNTARGETED and self.threat.budget is None):
            return []
        return [self.threat.goal, None if self.threat.budget is None else self.threat.budget.model_dump()]


class Fit(Frozen):
    """What a detector or attack learns about one model: a task before those of its cell. Kept by content."""

    model: str  # labels: the cell that it belongs to
    dataset: str
    evaluation: str
    data: DatasetRef  # what it is fitted on
    key: str | None = None  # None: the model's weights are not known yet
    state: str | None = None  # digest; None: it has not been fitted yet
    seconds: float | None = None  # that it took; no part of its identity
    size: int | None = None  # bytes of the state


class CellPlan(Frozen):
    """One model on one data set under one evaluation: tasks that differ only in their samples."""

    model: ModelRef
    dataset: DatasetRef
    evaluation: EvaluationRef
    baseline: ModelRef | None = None  # for a paired probe
    surrogate: ModelRef | None = None  # what an attack is crafted on, where that is not the model itself
    seed: int
    block: int  # samples per task
    threads: int
    engine: str
    fit: Fit | None = None

    @property
    def label(self) -> str:
        return f"{self.model.label}/{self.dataset.label}/{self.evaluation.label}"

    @property
    def models(self) -> list[ModelRef]:
        """All that it needs: the one that is judged, the one it is compared with, the one an attack is crafted on."""
        return [ref for ref in (self.model, self.baseline, self.surrogate) if ref is not None]

    @property
    def size(self) -> int:
        """Number of samples: of the data set, and behind them those of a detector's outliers."""
        if self.evaluation.adversarial is not None:
            return 2 * self.dataset.size
        return self.dataset.size + (self.evaluation.outliers.size if self.evaluation.outliers else 0)

    @property
    def count(self) -> int:
        """Number of tasks. What yields figures is one task per process, whatever the size."""
        return self.evaluation.processes if self.evaluation.kind.figures else math.ceil(self.size / self.block)

    @cached_property
    def identity(self) -> str:
        state = self.fit.state if self.fit else None
        baseline = self.baseline.identity if self.baseline else None
        surrogate = self.surrogate.identity if self.surrogate else None
        parts = (self.model.identity, self.dataset.identity, self.evaluation.identity, state, baseline, surrogate)
        return content_key(*parts, self.seed, self.threads, self.engine)

    def tasks(self) -> Iterator["Task"]:
        if self.evaluation.kind.figures:  # each process measures all samples, and has its own key
            for start in range(0, self.count * self.size, self.size):
                yield Task(cell=self, start=start, stop=start + self.size)
            return
        for start in range(0, self.size, self.block):
            yield Task(cell=self, start=start, stop=min(start + self.block, self.size))


class Task(Frozen):
    """A range of the samples of a cell: the unit of work, of retry and of storage. Names and numbers only."""

    cell: CellPlan
    start: int
    stop: int

    @property
    def key(self) -> str:
        return content_key(self.cell.identity, self.start, self.stop)


class Resolved(Frozen):
    """A suite after every name was resolved to content: all that decides the records, and nothing else."""

    suite: str
    seed: int
    block: int
    threads: int
    engine: str
    models: tuple[ModelRef, ...]
    datasets: tuple[DatasetRef, ...]
    evaluations: tuple[EvaluationRef, ...]
    fits: tuple[Fit, ...] = ()

    @property
    def submission(self) -> str:
        """`quickstart-1a2b3c4d`: the same suite, data, weights and code give the same submission, so that it resumes.

        A model that is yet to be trained counts by its training, a fit by its data.
        """
        models = [[ref.label, *ref.identity[:-1], ref.training or ref.weights, ref.baseline] for ref in self.models]
        datasets = [[ref.label, ref.identity] for ref in self.datasets]
        evaluations = [[ref.label, ref.identity, ref.crafted_on] for ref in self.evaluations]
        fits = [[fit.model, fit.dataset, fit.evaluation, fit.data.identity] for fit in self.fits]
        content = content_key(models, datasets, evaluations, fits, self.seed, self.block, self.threads, self.engine)
        return f"{self.suite}-{content[:8]}"

    def cells(self, only: str | None = None) -> Iterator[CellPlan]:
        """Every model on every data set under every evaluation; timings last, since they need a quiet machine.

        only: a shell pattern on `model/dataset/evaluation`.
        """
        for exclusive in (False, True):
            for model in self.models:
                for dataset in self.datasets:
                    for evaluation in self.evaluations:
                        if evaluation.exclusive is exclusive and _wanted(evaluation, model, dataset):
                            cell = self._cell(model, dataset, evaluation)
                            if only is None or fnmatch.fnmatchcase(cell.label, only):
                                yield cell

    def check(self, only: str | None) -> None:
        """Raises SuiteError where nothing matches the pattern."""
        if only is not None and next(self.cells(only), None) is None:
            labels = [cell.label for cell in self.cells()]
            near = did_you_mean(only, labels) or f" (the first is '{labels[0]}')"
            message = f"no MODEL/DATASET/EVALUATION of the suite matches '{only}'{near}"
            raise SuiteError([Mistake("--only", "", message)])

    @cached_property
    def _fits(self) -> dict[tuple[str, str, str], Fit]:
        return {(fit.model, fit.dataset, fit.evaluation): fit for fit in self.fits}

    def _cell(self, model: ModelRef, dataset: DatasetRef, evaluation: EvaluationRef) -> CellPlan:
        others = {ref.label: ref for ref in self.models}
        return CellPlan(
            fit=self._fits.get((model.label, dataset.label, evaluation.label)),
            baseline=others[model.baseline] if evaluation.paired and model.baseline else None,
            surrogate=others[evaluation.crafted_on] if evaluation.crafted_on else None,
            model=model,
            dataset=dataset,
            evaluation=evaluation,
            seed=self.seed,
            block=self.block,
            threads=self.threads,
            engine=self.engine,
        )


def _wanted(evaluation: EvaluationRef, model: ModelRef, dataset: DatasetRef) -> bool:
    """Whether an evaluation is made on a model and a data set."""
    if evaluation.paired and model.baseline is None:
        return False
    return not evaluation.only or (model.label, dataset.label) in evaluation.only


def planned(cells: Sequence[CellPlan]) -> int:
    """Number of tasks in these cells."""
    return sum(cell.count for cell in cells)
