"""What runs on a worker: loads a model once, takes many tasks, answers each with records or with a reason.

No Ray here: the same class runs in a test, in an actor, or in a process of its own.
"""

import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from bench import contracts, detection, measure, plugins
from bench.contracts import Attack, Classifier, Detector, Goal, Keep, Learner, PairedProbe, Report, Samples
from bench.data import subset
from bench.errors import DataError, GauntletError, PluginError
from bench.fingerprint import device_name
from bench.gpu import exact_arithmetic
from bench.memory import loading
from bench.plan import EXAMINED, CellPlan, DatasetRef, EvaluationRef, ModelRef, Task
from bench.records import Kind, Reason, encode
from bench.store import digest

MODELS = 2  # loaded at once, at the most; the one not used for longest goes
DATASETS = 4
LEARNERS = 2  # fitted detectors and attacks


@dataclass(frozen=True)
class Measured:
    """The records of a task, as Parquet bytes; or the weights that a training made. And the seconds it took."""

    data: bytes
    seconds: float = 0.0
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)  # of a training, by name: a point an epoch


@dataclass(frozen=True)
class Failed:
    """Why a task has no records. `model` says that its model cannot be loaded at all."""

    reason: Reason
    message: str
    details: str = ""
    model: bool = False


Outcome = Measured | Failed


@dataclass(frozen=True)
class TrainTask:
    """The making of a model's weights: one task, whose result is stored by content."""

    key: str
    label: str
    plugin: str
    args: dict[str, Any]
    parent: str | None  # digest of the weights that it starts from
    seed: int
    threads: int


@dataclass(frozen=True)
class FitTask:
    """The fitting of a detector or an attack to one model: one task, whose result is stored by content."""

    key: str
    label: str
    model: ModelRef
    learner: EvaluationRef
    data: DatasetRef
    seed: int
    threads: int

    @property
    def parent(self) -> str | None:
        """Digest of the weights that it needs."""
        return self.model.weights


class _Noting(Report):
    """Passes everything on, and notes the figures."""

    def __init__(self, inner: Report) -> None:
        self._inner = inner
        self.curves: dict[str, list[float]] = {}

    def step(self, done: int, total: int, **figures: float) -> None:
        for name, value in figures.items():
            self.curves.setdefault(name, []).append(float(value))
        self._inner.step(done, total, **figures)

    def saved(self) -> bytes | None:
        return self._inner.saved()

    def save(self, state: bytes) -> None:
        self._inner.save(state)


class CannotLoad(PluginError):
    """A model cannot be built on this worker."""


@dataclass
class Worker:
    """Takes tasks. `fetch` answers the digest of weights with their bytes; `device` is a torch device."""

    sources: Sequence[plugins.Source]
    fetch: Callable[[str], bytes]
    device: str = "cpu"
    _models: "OrderedDict[str, tuple[Classifier, bytes | None]]" = field(default_factory=OrderedDict)
    _learners: "OrderedDict[str, Learner]" = field(default_factory=OrderedDict)
    _samples: "OrderedDict[str, tuple[Samples, NDArray[np.int64]]]" = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        plugins.load_built_in()
        for source in self.sources:
            plugins.load_source(source)
        exact_arithmetic()

    def run(self, task: Task, sources: Sequence[plugins.Source] = ()) -> Outcome:
        """Never raises what a plugin raised: a failure is an answer. sources: modules that this task needs, too."""
        torch.set_num_threads(task.cell.threads)
        return self._guarded(lambda: encode(self._measure(task), device_name(self.device)), task.cell.model, sources)

    def train(self, task: TrainTask, report: Report, sources: Sequence[plugins.Source] = ()) -> Outcome:
        """Train a model's weights."""
        torch.set_num_threads(task.threads)
        noted = _Noting(report)

        def make() -> bytes:
            training = contracts.adapters.build(task.plugin, task.args).training()
            if training is None:
                raise PluginError(f"adapter '{task.plugin}' has neither weights nor a training")
            choice = training.data
            samples = contracts.datasets.build(choice.dataset, {"split": choice.split, **choice.args}).load()
            parent = None if task.parent is None else self._bytes(task.parent)
            return training.train(samples, parent, task.seed, noted)

        outcome = self._guarded(make, None, sources)
        return replace(outcome, curves=noted.curves) if isinstance(outcome, Measured) else outcome

    def fit(self, task: FitTask, report: Report, sources: Sequence[plugins.Source] = ()) -> Outcome:
        """Fit a detector or an attack; the state is the outcome's data."""
        torch.set_num_threads(task.threads)

        def make() -> bytes:
            model, _ = self._model(task.model)
            samples, chosen = self._dataset(task.data)
            return detection.fitted(_learner(task.learner), model, samples, chosen, task.seed, report)

        return self._guarded(make, task.model, sources)

    def _guarded(self, work: Callable[[], bytes], model: ModelRef | None, sources: Sequence[plugins.Source]) -> Outcome:
        begun = time.monotonic()
        try:
            _load(sources)
            return Measured(work(), time.monotonic() - begun)
        except CannotLoad as problem:
            return Failed(Reason.ADAPTER, str(problem), traceback.format_exc(), model=True)
        except DataError as problem:
            return Failed(Reason.DATA, str(problem), traceback.format_exc())
        except (MemoryError, torch.OutOfMemoryError) as problem:
            self._forget(model)
            return Failed(Reason.MEMORY, f"{problem or type(problem).__name__}; try a smaller resources.batch_size")
        except Exception as problem:  # noqa: BLE001 - whatever a plugin raises becomes a reason in the report
            self._forget(model)
            message = str(problem) if isinstance(problem, GauntletError) else f"{type(problem).__name__}: {problem}"
            return Failed(Reason.ADAPTER, message, traceback.format_exc())

    def _measure(self, task: Task) -> pa.Table:
        cell = task.cell
        ref = cell.evaluation
        model, artefact = self._model(cell.model)
        samples, chosen = self._dataset(cell.dataset)
        indices = chosen[task.start : task.stop]
        if ref.kind is Kind.CLEAN:
            examined = int(ref.args.get(EXAMINED, 0)) - task.start
            return measure.clean(model, samples, indices, max(0, examined), ref.judging or measure.ONCE)
        if ref.kind is Kind.ATTACK:
            attack = self._learnt(cell)
            assert isinstance(attack, Attack)
            purpose = repr(ref.identity[:3])
            judging, keep = ref.judging or measure.ONCE, None if ref.keep is None else Keep(ref.keep)
            surrogate = self._model(cell.surrogate)[0] if cell.surrogate else None
            threat = ref.threat
            return measure.attacked(
                attack, ref.epsilons, purpose, model, samples, indices, cell.seed, judging, keep, surrogate,
                goal=threat.goal if threat else Goal.UNTARGETED, budget=threat.budget if threat else None,
                gradient_passes=ref.gradient_passes, prove=ref.prove,
            )  # fmt: skip
        if ref.kind is Kind.CERTIFICATE:
            certificate = contracts.certificates.build(ref.plugin, {**ref.args, "norm": ref.norm})
            return measure.certified(certificate, ref.epsilons, model, samples, indices, ref.judging or measure.ONCE)
        if ref.kind is Kind.PROBE:
            probe = contracts.probes.build(ref.plugin, ref.args)
            if cell.baseline is not None and isinstance(probe, PairedProbe):
                return measure.compared(probe, model, self._model(cell.baseline)[0], samples, ref.hardware)
            return measure.probed(probe, model, samples, artefact, ref.hardware)
        detector = self._learnt(cell)
        assert isinstance(detector, Detector)
        if ref.kind is Kind.COST:
            return detection.cost(ref.label, detector, model, samples, chosen, cell.seed, ref.hardware)
        parts = [detection.detected(detector, False, model, samples, indices, cell.seed)] if len(indices) else []
        first, last = max(0, task.start - len(chosen)), task.stop - len(chosen)
        if last > first and ref.adversarial is not None:
            made = ref.adversarial
            attack = contracts.attacks.build(made.plugin, {**made.args, "norm": made.norm})
            epsilon = made.epsilons[0] if made.epsilons and not attack.minimal else None
            mine, judging = chosen[first:last], made.judging or measure.ONCE
            parts.append(detection.deceived(detector, attack, epsilon, model, samples, mine, cell.seed, judging))
        elif last > first:
            assert ref.outliers is not None, "a detector is judged against outliers"
            others, picked = self._dataset(ref.outliers)
            parts.append(detection.detected(detector, True, model, others, picked[first:last], cell.seed))
        return pa.concat_tables(parts)

    def _model(self, ref: ModelRef) -> tuple[Classifier, bytes | None]:
        key = repr(ref.identity)
        if key not in self._models:
            while len(self._models) >= MODELS:
                self._models.popitem(last=False)
            try:
                artefact = None if ref.weights is None else self._bytes(ref.weights)
                adapter = contracts.adapters.build(ref.plugin, ref.args)
                with loading() as took:
                    model = adapter.place(adapter.build(artefact), self.device)
                model.loading = took()
                self._models[key] = model, artefact
            except (MemoryError, torch.OutOfMemoryError, DataError):
                raise
            except Exception as problem:
                raise CannotLoad(f"model '{ref.label}' cannot be loaded: {problem}") from problem
        self._models.move_to_end(key)
        return self._models[key]

    def _learnt(self, cell: CellPlan) -> Learner:
        """The cell's attack or detector, with what its fit has learnt."""
        ref, state = cell.evaluation, cell.fit.state if cell.fit else None
        if state is None:
            return _learner(ref)
        key = repr((ref.plugin, ref.args, ref.norm, state))
        if key not in self._learners:
            while len(self._learners) >= LEARNERS:
                self._learners.popitem(last=False)
            self._learners[key] = _learner(ref).restore(self._bytes(state))
        self._learners.move_to_end(key)
        return self._learners[key]

    def _forget(self, ref: ModelRef | None) -> None:
        """Load the model anew for the next task: this one may have been left in any state."""
        if ref is not None:
            self._models.pop(repr(ref.identity), None)

    def _bytes(self, key: str) -> bytes:
        data = self.fetch(key)
        if digest(data) != key:
            raise DataError(f"the weights {key} arrived damaged", "the task is tried again elsewhere")
        return data

    def _dataset(self, ref: DatasetRef) -> tuple[Samples, NDArray[np.int64]]:
        key = repr([ref.plugin, ref.args, ref.identity])
        if key not in self._samples:
            while len(self._samples) >= DATASETS:
                self._samples.popitem(last=False)
            samples = contracts.datasets.build(ref.plugin, {**ref.args, "split": ref.split}).load()
            if samples.digest != ref.digest:
                raise DataError(
                    f"data set '{ref.label}' is not the same here: digest {samples.digest}, planned {ref.digest}",
                    "copy the data folder of the machine that submitted to this node",
                )
            self._samples[key] = samples, subset(samples.labels, ref.limit, ref.stratified, seed=0)
        self._samples.move_to_end(key)
        return self._samples[key]


def _learner(ref: EvaluationRef) -> Learner:
    """The attack or detector, which has learnt nothing yet."""
    if ref.kind is Kind.ATTACK:
        return contracts.attacks.build(ref.plugin, {**ref.args, "norm": ref.norm})
    return contracts.detectors.build(ref.plugin, ref.args)


def _load(sources: Sequence[plugins.Source]) -> None:
    """Once: what is loaded stays. Raises CannotLoad, so that no other task of the model is tried."""
    for source in sources:
        try:
            plugins.load_source(source)
        except PluginError as problem:
            raise CannotLoad(problem.message, problem.hint) from problem
