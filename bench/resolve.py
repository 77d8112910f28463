"""From names to content: digests of weights, data and source. What a plan is made of."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from bench.contracts import (
    Adapter,
    Attack,
    Certificate,
    Judging,
    Knowledge,
    PairedProbe,
    Plugin,
    Samples,
    ThreatModel,
    Training,
    attacks,
    certificates,
    datasets,
    detectors,
)
from bench.data import subset
from bench.errors import DataError, PluginError, SuiteError
from bench.escalation import Remedy, escalated
from bench.fitting import misfits
from bench.names import COST_SUFFIX
from bench.plan import EXAMINED, DatasetRef, EvaluationRef, Fit, ModelRef, Resolved, content_key
from bench.plugins import engine_digest, source_digest
from bench.records import Cell, Kind
from bench.store import Store, digest
from bench.suite import AttackSpec, DatasetSpec, DetectorSpec, ModelSpec, Suite
from bench.worker import FitTask, TrainTask

CLEAN = "clean"
EXAMINED_SAMPLES = 64  # at which gradients are checked, where an attack will follow them


@dataclass(frozen=True)
class Weights:
    """The bytes that a model is built from, by digest; or the training that has yet to make them."""

    digest: str | None = None
    training: str | None = None  # key of the training, done or not
    todo: TrainTask | None = None  # the training that can run now: its own, or its parent's


@dataclass
class Resolver:
    """Resolves a suite against a store. Loads each data set once. `keep` copies weights into the store."""

    store: Store
    suite: Suite
    hardware: str  # digest of this machine's fingerprint
    keep: bool = True
    _samples: dict[str, Samples] = field(default_factory=dict)
    _artefacts: dict[str, bytes | None] = field(default_factory=dict)

    def resolve(self, only: str | None = None) -> tuple[Resolved, list[TrainTask | FitTask]]:
        """The suite by content, and the trainings and fits that can start now.

        only: a shell pattern on `model/dataset/evaluation`; what no such cell needs is not made. Call it again when
        these have ended: further ones may have been waiting for their weights. Raises DataError, PluginError, and
        SuiteError where models and data do not fit, or `only` leaves nothing.
        """
        self._check_fit()
        found = [self._model(spec) for spec in self.suite.models]
        resolved = Resolved(
            suite=self.suite.name,
            seed=self.suite.seed,
            block=self.suite.resources.batch_size,
            threads=self.suite.resources.threads,
            engine=engine_digest(),
            models=tuple(ref for ref, _ in found),
            datasets=tuple(self._dataset(spec) for spec in self.suite.datasets),
            evaluations=self._evaluations(),
        )
        fits: list[Fit] = []
        fittings: dict[str, FitTask] = {}
        for fit, task in self._fits(resolved):
            fits.append(fit)
            if task:
                fittings[task.key] = task
        resolved = resolved.model_copy(update={"fits": tuple(fits)})
        cells = list(resolved.cells(only))
        if not cells:
            resolved.check(only)
        needed = {ref.label for cell in cells for ref in cell.models}
        todo: dict[str, TrainTask | FitTask] = {}
        for ref, weights in found:
            if weights.todo and ref.label in needed:
                todo.setdefault(weights.todo.key, weights.todo)
        todo |= {cell.fit.key: fittings[cell.fit.key] for cell in cells if cell.fit and cell.fit.key in fittings}
        return resolved, list(todo.values())

    def escalated(self, resolved: Resolved, cells: Iterable[Cell]) -> Resolved:
        """The suite with the attacks that the records of its own evaluations call for (bench.escalation)."""
        found: dict[str, tuple[AttackSpec, Remedy]] = {}
        wanted: dict[str, list[tuple[str, str]]] = {}
        for spec, remedy, cell in escalated(resolved, cells):
            found.setdefault(spec.name, (spec, remedy))
            wanted.setdefault(spec.name, []).append(cell)
        further = (
            _attack(spec, self.suite.stochastic).model_copy(
                update={"remedy": str(remedy), "only": tuple(wanted[label])}
            )
            for label, (spec, remedy) in found.items()
        )
        return resolved.model_copy(update={"evaluations": (*resolved.evaluations, *further)})

    def _check_fit(self) -> None:
        """Before anything is stored or trained."""
        loaded = {spec.name: self._loaded(spec) for spec in self.suite.datasets}
        asked = self.suite.evaluations.detectors
        outliers = {spec.name: self._loaded(spec.outliers) for spec in asked if spec.outliers is not None}
        if mistakes := list(misfits(self.suite, loaded, outliers)):
            raise SuiteError(mistakes)

    # --- models

    def _model(self, spec: ModelSpec) -> tuple[ModelRef, Weights]:
        adapter = spec.build()
        weights = self._weights(spec.name, adapter)
        ref = ModelRef(
            label=spec.name,
            plugin=adapter.name,
            args=_arguments(adapter),
            source=_source(adapter),
            versions=versions(adapter),
            weights=weights.digest,
            training=weights.training,
            where=tuple(sorted(adapter.where)),
            baseline=spec.baseline,
            learnt_from=tuple(sorted(self._learnt_from(adapter))),
        )
        return ref, weights

    def _learnt_from(self, adapter: Adapter) -> set[str]:
        """Digests of the data that its training reads, and those of the models it starts from; none with weights."""
        training = None if self._artefact(adapter) is not None else adapter.training()
        if training is None:
            return set()
        choices = (training.data, *training.also) if training.learns else training.also
        found = {self._load(choice.dataset, choice.split, choice.args).digest for choice in choices}
        return found | self._learnt_from(training.parent) if training.parent else found

    def _weights(self, label: str, adapter: Adapter) -> Weights:
        if (data := self._artefact(adapter)) is not None:
            return Weights(self.store.put_blob(data) if self.keep else digest(data))
        training = adapter.training()
        if training is None:
            return Weights()
        parent = self._weights(label, training.parent) if training.parent else Weights()
        key = self._training_key(adapter, training, parent)
        if (made := self.store.trained(key)) is not None:
            return Weights(made, key)
        if parent.training and parent.digest is None:
            return Weights(None, key, parent.todo)
        args = _arguments(adapter)
        task = TrainTask(key, label, adapter.name, args, parent.digest, self.suite.seed, self.suite.resources.threads)
        return Weights(None, key, task)

    def _artefact(self, adapter: Adapter) -> bytes | None:
        key = repr(adapter)
        if key not in self._artefacts:
            try:
                self._artefacts[key] = adapter.weights.read_bytes() if adapter.weights else adapter.artefact()
            except OSError as problem:
                raise DataError(f"weights of adapter '{adapter.name}' cannot be read: {problem}") from None
        return self._artefacts[key]

    def _training_key(self, adapter: Adapter, training: Training, parent: Weights) -> str:
        choice = training.data
        data = self._load(choice.dataset, choice.split, choice.args)
        source = [source_digest(type(training)), *map(_source, adapter.inner_plugins())]
        recipe = [adapter.name, dict(training.recipe()), *source, versions(adapter)]
        recipe += [self._load(other.dataset, other.split, other.args).digest for other in training.also]
        return content_key("train", recipe, data.digest, parent.training or parent.digest, *self._settings())

    def _settings(self) -> tuple[int, int]:
        return self.suite.seed, self.suite.resources.threads

    # --- data and evaluations

    def _dataset(self, spec: DatasetSpec) -> DatasetRef:
        plugin = spec.build()
        args = plugin.model_dump(mode="json", exclude={"split"})
        samples = self._loaded(spec)
        return DatasetRef(
            label=spec.name,
            plugin=plugin.name,
            args=args,
            source=source_digest(type(plugin)),
            split=spec.split,
            limit=spec.limit,
            stratified=spec.stratified,
            digest=samples.digest,
            classes=len(samples.class_names),
            images=len(samples.input_shape) == 3,
            size=len(subset(samples.labels, spec.limit, spec.stratified, seed=0)),
        )

    def _loaded(self, spec: DatasetSpec) -> Samples:
        plugin = spec.build()
        return self._load(plugin.name, spec.split, plugin.model_dump(mode="json", exclude={"split"}))

    def _load(self, name: str, split: str, args: Mapping[str, Any]) -> Samples:
        key = repr((name, split, sorted(args.items())))
        if key not in self._samples:
            self._samples[key] = datasets.build(name, {**args, "split": split}).load()
        return self._samples[key]

    def _evaluations(self) -> tuple[EvaluationRef, ...]:
        asked = self.suite.evaluations
        white = any(attacks.get(spec.attack).knowledge is Knowledge.WHITE_BOX for spec in asked.attacks)
        found = [
            EvaluationRef(
                label=CLEAN, plugin=CLEAN, kind=Kind.CLEAN, versions={"torch": version("torch")},
                args={EXAMINED: EXAMINED_SAMPLES} if white else {}, judging=self.suite.stochastic,
            )
        ]  # fmt: skip
        for spec in asked.attacks:
            found.append(
                _attack(spec.model_copy(update={"budget": spec.budget or asked.budget}), self.suite.stochastic)
            )
        for detection in asked.detectors:
            described = _described(detection.name, detection.build())
            outliers = self._dataset(detection.outliers) if detection.outliers else None
            made = _attack(crafter.attack_spec, self.suite.stochastic) if (crafter := detection.adversarial) else None
            found.append(EvaluationRef(kind=Kind.DETECTOR, outliers=outliers, adversarial=made, **described))
            if detection.cost:
                described["label"] += COST_SUFFIX
                found.append(EvaluationRef(kind=Kind.COST, exclusive=True, hardware=self.hardware, **described))
        for proof in asked.certificates:
            described = _described(proof.name, proof.build())
            found.append(
                EvaluationRef(
                    kind=Kind.CERTIFICATE, norm=proof.norm, epsilons=proof.epsilons, judging=self.suite.stochastic,
                    **described,
                )
            )  # fmt: skip
        for probing in asked.probes:
            probe = probing.build()
            hardware = self.hardware if probe.exclusive else None
            found.append(
                EvaluationRef(
                    kind=Kind.PROBE, exclusive=probe.exclusive, paired=isinstance(probe, PairedProbe),
                    processes=probe.process_count(), least_seconds=probe.least_seconds(), hardware=hardware,
                    **_described(probing.name, probe),
                )
            )  # fmt: skip
        return tuple(found)

    def _fits(self, resolved: Resolved) -> Iterator[tuple[Fit, FitTask | None]]:
        """What is learnt about each model, done or not, with what can be done for it now."""
        evaluations = {ref.label: ref for ref in resolved.evaluations}
        for learner, labels in self._learners():
            for spec, attacked in zip(self.suite.datasets, resolved.datasets, strict=True):
                data = self._fit_data(learner, spec)
                if isinstance(learner, AttackSpec) and data.digest == attacked.digest:
                    raise PluginError(
                        f"attack '{learner.name}' would learn from the samples of '{spec.name}' that it attacks",
                        "name data that the suite does not attack under its `fit_on:`, another split say",
                    )
                for model in resolved.models:
                    fit, task = self._fit(model, data, evaluations[learner.name])
                    for label in labels:
                        yield fit.model_copy(update={"dataset": spec.name, "evaluation": label}), task

    def _learners(self) -> Iterator[tuple[AttackSpec | DetectorSpec, list[str]]]:
        """What has to be fitted, and the labels of the evaluations that it is fitted for."""
        for attack in self.suite.evaluations.attacks:
            if attacks.get(attack.attack).fits:
                yield attack, [attack.name]
        for detection in self.suite.evaluations.detectors:
            if detectors.get(detection.detector).fits:
                yield detection, [detection.name, *([detection.name + COST_SUFFIX] if detection.cost else [])]

    def _fit_data(self, learner: AttackSpec | DetectorSpec, spec: DatasetSpec) -> DatasetRef:
        if learner.fit_on is not None:
            return self._dataset(learner.fit_on)
        return self._dataset(spec.model_copy(update={"split": "train", "limit": None}))

    def _fit(self, model: ModelRef, data: DatasetRef, ref: EvaluationRef) -> tuple[Fit, FitTask | None]:
        fit = Fit(model=model.label, dataset="", evaluation="", data=data)
        if model.training and model.weights is None:
            return fit, None
        learner = [ref.plugin, ref.args, ref.source, ref.versions]
        key = content_key("fit", model.identity, learner, data.identity, *self._settings(), engine_digest())
        if (state := self.store.trained(key)) is None:
            label = f"{ref.label} on {model.label}"
            return fit.model_copy(update={"key": key}), FitTask(key, label, model, ref, data, *self._settings())
        seconds, size = self.store.cost(key)
        return fit.model_copy(update={"key": key, "state": state, "seconds": seconds, "size": size}), None


def versions(plugin: Plugin) -> dict[str, str]:
    """The versions of the distributions that compute a plugin's result. Raises PluginError for one not installed."""
    try:
        return {name: version(name) for name in plugin.distributions()}
    except PackageNotFoundError as problem:
        raise PluginError(f"{plugin.name}: needs the package {problem.name}", f"pip install {problem.name}") from None


def _attack(spec: AttackSpec, judging: Judging) -> EvaluationRef:
    attack = spec.build()
    threat = ThreatModel(
        norm=spec.norm, epsilons=spec.epsilons, goal=spec.goal, budget=spec.budget, allowance=attack.allowance,
        knowledge=Knowledge.TRANSFER if spec.crafted_on else attack.knowledge,
    )  # fmt: skip
    described, proof = _described(spec.name, attack), attack.proved_by if spec.prove else None
    if proof is not None:
        described["source"] += source_digest(certificates.get(proof))
    return EvaluationRef(
        kind=Kind.ATTACK, norm=spec.norm, epsilons=spec.epsilons, knowledge=threat.knowledge, threat=threat,
        minimal=attack.minimal, crafted_on=spec.crafted_on, judging=judging, keep=spec.keep,
        gradient_passes=spec.gradient_passes, prove=proof is not None, **described,
    )  # fmt: skip


def _described(label: str, plugin: Plugin) -> dict[str, Any]:
    hidden = {"norm"} if isinstance(plugin, Attack | Certificate) else set()
    return {
        "label": label,
        "plugin": plugin.name,
        "args": plugin.model_dump(mode="json", exclude=hidden),
        "source": _source(plugin),
        "versions": versions(plugin),
    }


def _source(plugin: Plugin) -> str:
    """Digest of a plugin's source, and of what it works through."""
    parts = [[_source(part), versions(part)] for part in plugin.inner_plugins()]
    own = source_digest(type(plugin))
    return content_key(own, parts) if parts else own


def _arguments(adapter: Adapter) -> dict[str, Any]:
    return adapter.model_dump(mode="json", exclude={"weights"})
