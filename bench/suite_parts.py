"""The nouns of a suite: what its keys are, what they may be, and the plugin objects they stand for."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field, field_validator, model_validator

from bench import contracts, names
from bench.contracts import (
    Adapter,
    Attack,
    Budget,
    Certificate,
    Dataset,
    Detector,
    Goal,
    GradientPasses,
    JointAttack,
    Judging,
    Keep,
    Norm,
    Probe,
)
from bench.suite_base import MAX_ENTRIES, Part
from bench.suite_board import LABEL
from bench.suite_board import Leaderboard as Leaderboard
from bench.suite_resources import NODE_LABEL, NODE_SELECTOR
from bench.suite_resources import Resources as Resources

SLUG = r"^[a-z0-9][a-z0-9_-]*$"
REGISTERED = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[1-9][0-9]*)?$"
PATTERNS = {  # in words, for messages
    SLUG: "must be lower-case letters, digits, '-' and '_', and start with a letter or digit",
    LABEL: "must be letters, digits, '_', '.' and '-', and start with a letter, a digit or '_'",
    REGISTERED: "must be the name of a registered model, or NAME/VERSION such as 'resnet/3'",
    NODE_LABEL: "must be a label of nodes, such as 'tier' or 'ray.io/accelerator-type'",
    NODE_SELECTOR: "must be VALUE, !VALUE, in(VALUE, VALUE) or !in(VALUE, VALUE)",
}
RESERVED = ("clean", names.WORST)  # labels that the engine gives itself

Slug = Annotated[str, Field(pattern=SLUG, max_length=64)]
Label = Annotated[str, Field(pattern=LABEL, max_length=64)]
Arguments = dict[str, Any]
Epsilon = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _ascending(epsilons: tuple[float, ...]) -> tuple[float, ...]:
    """In order. Raises ValueError for two that metric names cannot tell apart."""
    seen: dict[str, float] = {}
    for epsilon in sorted(epsilons):
        text = f"{epsilon:g}"
        if text in seen:
            raise ValueError(
                f"{text} stands twice: remove one"
                if seen[text] == epsilon
                else f"{seen[text]!r} and {epsilon!r} are both {text} in metric names (6 digits): remove one"
            )
        seen[text] = epsilon
    return tuple(seen.values())


Epsilons = Annotated[tuple[Epsilon, ...], Field(max_length=MAX_ENTRIES), AfterValidator(_ascending)]


def default_label(plugin: str) -> str:
    """What an evaluation or data set is called where it gives no name: `l2_deep_fool` for `foolbox.l2_deep_fool`."""
    return plugin.rpartition(".")[2]


class ModelSpec(Part):
    """A model: built by an adapter, trained by a recipe, or taken from MLflow's model registry."""

    name: Label
    """What the model is called on the leaderboard."""
    adapter: str | None = None
    """The adapter that builds it (`gauntlet list adapters`)."""
    recipe: Arguments | None = None
    """How it is made: `family`, the adapter of a model family, and beside it that adapter's arguments."""
    registered: Annotated[str, Field(pattern=REGISTERED)] | None = None
    """A model of the registry: NAME (the newest version) or NAME/VERSION (`gauntlet models list`)."""
    args: Arguments = Field(default_factory=dict)
    """Arguments of the adapter. Files are relative to the suite."""
    baseline: Label | None = None
    """Name of the model of this suite that it is compared with: for ratios of size, work and time."""

    @model_validator(mode="after")
    def _one_origin(self) -> "ModelSpec":
        if sum(origin is not None for origin in (self.adapter, self.recipe, self.registered)) != 1:
            raise ValueError(
                "a model has one of `adapter:` (built here), `recipe:` (trained here) and `registered:` (from the "
                "model registry)"
            )
        return self

    @property
    def plugin(self) -> str:
        """Name of the adapter that builds it; `mlflow` for a registered model."""
        return self.adapter or (str(self.recipe["family"]) if self.recipe else "mlflow")

    @property
    def arguments(self) -> dict[str, Any]:
        """What the adapter is built with."""
        if self.recipe is not None:
            return {name: value for name, value in self.recipe.items() if name != "family"}
        if self.registered is None:
            return self.args
        name, _, version = self.registered.partition("/")
        return {"uri": f"models:/{name}/{version or 'latest'}", **self.args}

    def build(self) -> Adapter:
        """The adapter. Raises PluginError for an unknown name, pydantic's ValidationError for wrong arguments."""
        return contracts.adapters.build(self.plugin, self.arguments)


class DatasetSpec(Part):
    """A data set, or a subset of it."""

    dataset: str
    """The data set (`gauntlet list datasets`)."""
    name: Label = Field(default_factory=lambda data: default_label(data["dataset"]), validate_default=True)
    """What it is called on the leaderboard. Default: its own name."""
    split: Label = "test"
    """Which part of it."""
    limit: Annotated[int, Field(gt=0)] | None = None
    """Take so many samples; all where it is left out."""
    stratified: bool = True
    """Whether the subset keeps the shares of the classes."""
    args: Arguments = Field(default_factory=dict)
    """Arguments of the data set. Files are relative to the suite, or to the data folder."""

    def build(self) -> Dataset:
        """The data set, not loaded. Raises PluginError or pydantic's ValidationError."""
        return contracts.datasets.build(self.dataset, {**self.args, "split": self.split})


class AttackSpec(Part):
    """An attack inside its threat model."""

    attack: str
    """The attack (`gauntlet list attacks`)."""
    name: Label = Field(default_factory=lambda data: default_label(data["attack"]), validate_default=True)
    """Its label in metric names. Default: its own name, without what stands before the dot."""
    norm: Norm
    """How distance is measured: l0, l1, l2 or linf."""
    epsilons: Epsilons = ()
    """Radii of the ball in input units. May be left out for attacks that look for the smallest distance."""
    goal: Goal = Goal.UNTARGETED
    """`untargeted`, any wrong class; or one class for each sample: `runner_up`, `least_likely` or `random`."""
    budget: Budget | None = None
    """What it may spend on a sample at an epsilon: `gradients`, `queries`, `seconds`. Left out: all it asks for."""
    keep: Keep | None = None
    """Keep what it crafts as data: `exact`, or `8bit` (rounded, a quarter of the size). Left out: nothing."""
    gradient_passes: GradientPasses = GradientPasses.FLOAT32
    """`float32`; `bfloat16`, or `compiled` by torch.compile: faster on some machines. Verdicts are float32's."""
    prove: bool = True
    """Leave alone what quick bounds prove: no attack inside the ball can break it. The row says how many samples."""
    args: Arguments = Field(default_factory=dict)
    """Arguments of the attack."""
    crafted_on: Label | None = None
    """Name of the model of this suite that is attacked in the place of each model, which then judges: transfer."""
    fit_on: DatasetSpec | None = None
    """What the attacker has to learn from, if it learns. Left out: the split `train` of each data set of the suite."""

    def build(self) -> Attack:
        """The attack. Raises PluginError or pydantic's ValidationError."""
        return contracts.attacks.build(self.attack, {**self.args, "norm": self.norm})


class CrafterSpec(Part):
    """An attack that makes outliers for a detector: it takes any class, with all that it asks for."""

    attack: str
    """The attack (`gauntlet list attacks`)."""
    norm: Norm
    """How distance is measured: l0, l1, l2 or linf."""
    epsilons: Epsilons = ()
    """One radius of the ball in input units. May be left out for attacks that look for the smallest distance."""
    args: Arguments = Field(default_factory=dict)
    """Arguments of the attack."""

    @field_validator("epsilons")
    @classmethod
    def _one(cls, epsilons: tuple[float, ...]) -> tuple[float, ...]:
        if len(epsilons) > 1:
            raise ValueError("takes one: name the detector once for each, with a `name:` of its own")
        return epsilons

    @property
    def attack_spec(self) -> AttackSpec:
        """The same as an attack of the suite."""
        return AttackSpec(attack=self.attack, norm=self.norm, epsilons=self.epsilons, args=self.args)


def _joint(spec: AttackSpec) -> Iterator[str]:
    """The metrics of an attack over several domains, as far as these are known before the models are."""
    if not issubclass(contracts.attacks.get(spec.attack), JointAttack):
        return
    attack = spec.build()
    assert isinstance(attack, JointAttack)
    for epsilon in spec.epsilons:
        yield names.joint_success("group" if attack.together > 1 else "all", spec.norm, spec.name, epsilon)
        for domain in attack.domain_names:
            yield names.success_in(spec.norm, spec.name, domain, epsilon)
    yield from (names.domain_weight(spec.norm, spec.name, domain) for domain in attack.domain_names)


class ProbeSpec(Part):
    """A measurement of cost. The probe's name alone is enough where it needs no arguments."""

    probe: str
    """The probe (`gauntlet list probes`)."""
    name: Label = Field(default_factory=lambda data: default_label(data["probe"]), validate_default=True)
    """Its label. Default: its own name."""
    args: Arguments = Field(default_factory=dict)
    """Arguments of the probe."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, data: Any) -> Any:
        return {"probe": data} if isinstance(data, str) else data

    def build(self) -> Probe:
        """The probe. Raises PluginError or pydantic's ValidationError."""
        return contracts.probes.build(self.probe, self.args)


class DetectorSpec(Part):
    """A detector, and the outliers that it should tell from the suite's data sets."""

    detector: str
    """The detector (`gauntlet list detectors`)."""
    name: Label = Field(default_factory=lambda data: default_label(data["detector"]), validate_default=True)
    """Its label in metric names. Default: its own name."""
    outliers: DatasetSpec | None = None
    """The data set whose samples are outliers, all of them."""
    adversarial: CrafterSpec | None = None
    """Or: the outliers are what this attack makes of the suite's own data, at one epsilon."""
    fit_on: DatasetSpec | None = None
    """The inliers that it is fitted on, if it has to be. Left out: the split `train` of each data set of the suite."""
    cost: bool = False
    """Whether to time it, alone on a node."""
    args: Arguments = Field(default_factory=dict)
    """Arguments of the detector."""

    @model_validator(mode="after")
    def _one_kind(self) -> "DetectorSpec":
        if (self.outliers is None) == (self.adversarial is None):
            raise ValueError("a detector has either `outliers:` (a data set) or `adversarial:` (an attack)")
        return self

    def build(self) -> Detector:
        """The detector. Raises PluginError or pydantic's ValidationError."""
        return contracts.detectors.build(self.detector, self.args)


class CertificateSpec(Part):
    """A proof of robustness, at the radii of a norm."""

    certificate: str
    """The certificate (`gauntlet list certificates`)."""
    name: Label = Field(default_factory=lambda data: default_label(data["certificate"]), validate_default=True)
    """Its label in metric names. Default: its own name."""
    norm: Norm
    """How distance is measured: l1, l2 or linf."""
    epsilons: Annotated[Epsilons, Field(min_length=1)]
    """Radii of the ball in input units."""
    args: Arguments = Field(default_factory=dict)
    """Arguments of the certificate."""

    def build(self) -> Certificate:
        """The certificate. Raises PluginError or pydantic's ValidationError."""
        return contracts.certificates.build(self.certificate, {**self.args, "norm": self.norm})


class Evaluations(Part):
    """What is done to every model on every data set, besides the clean pass."""

    attacks: Annotated[tuple[AttackSpec, ...], Field(max_length=MAX_ENTRIES)] = ()
    """Does it break?"""
    budget: Budget | None = None
    """What each attack may spend that has no `budget` of its own: a leaderboard at equal budget."""
    escalate: bool = False
    """Whether a model whose figures are suspect is attacked again, by stronger attacks than the suite names."""
    probes: Annotated[tuple[ProbeSpec, ...], Field(max_length=MAX_ENTRIES)] = ()
    """What does it cost?"""
    detectors: Annotated[tuple[DetectorSpec, ...], Field(max_length=MAX_ENTRIES)] = ()
    """Does it notice?"""
    certificates: Annotated[tuple[CertificateSpec, ...], Field(max_length=MAX_ENTRIES)] = ()
    """What can be proved?"""

    def metric_names(self, compared: bool = False) -> list[str]:
        """The metrics that records of these evaluations yield, in the order of the suite, worst cases last.

        compared: whether some model of the suite has a baseline, so that there are ratios.

        Where two probes yield a figure of one name, the later one's has its label appended, as in bench.metrics.rows.
        """
        found = dict.fromkeys((names.CLEAN_ACCURACY, *names.CONFIDENCE, *names.REFUSAL, *names.CORRUPTION))
        worst: dict[str, dict[float, None]] = {}
        for spec in self.attacks:
            here = f"{spec.norm}/{spec.name}"
            for epsilon in spec.epsilons:
                metric = names.robust_accuracy(spec.norm, spec.name, epsilon)
                found |= dict.fromkeys((metric, metric.replace("robust_accuracy", "attack_success", 1)))
                found |= dict.fromkeys(f"{share}/{here}/{epsilon:g}" for share in names.OF_PASSES)
                if spec.keep:
                    found[names.quantised(metric)] = None
                if spec.goal is Goal.UNTARGETED:
                    worst.setdefault(spec.norm, {})[epsilon] = None
            if contracts.attacks.get(spec.attack).minimal or not spec.epsilons:
                found[names.median_distance(spec.norm, spec.name)] = None
            if contracts.attacks.get(spec.attack).tokens:
                found[names.adversarial_gain(spec.norm, spec.name)] = None
            found |= dict.fromkeys(f"{spent}/{here}" for spent in names.PASSES)
            if contracts.attacks.get(spec.attack).fits:
                found |= dict.fromkeys(f"{metric}/{spec.name}" for metric in names.LEARNT)
            found |= dict.fromkeys(_joint(spec))
        for probe in self.probes:
            for figure in contracts.probes.get(probe.probe).figures():
                found[f"{figure}/{probe.name}" if figure in found else figure] = None
        if compared:
            found |= dict.fromkeys(names.RELATIVE_CORRUPTION)
            found |= dict.fromkeys(ratio for ratio, metric in names.RATIOS.items() if metric in found)
        for detector in self.detectors:
            found |= dict.fromkeys(f"{metric}/{detector.name}" for metric in (*names.DETECTION, *names.JOINT))
            if contracts.detectors.get(detector.detector).fits:
                found |= dict.fromkeys(f"{metric}/{detector.name}" for metric in names.FITTED)
            if detector.adversarial is not None:
                told = names.ADVERSARIAL if contracts.detectors.get(detector.detector).fits else names.ADVERSARIAL[:1]
                found |= dict.fromkeys(f"{metric}/{detector.name}" for metric in told)
            if detector.cost:
                found |= dict.fromkeys((names.overhead(detector.name), names.detector_passes(detector.name)))
        for proof in self.certificates:
            found |= dict.fromkeys(names.certified_accuracy(proof.norm, proof.name, e) for e in proof.epsilons)
        for norm, epsilons in worst.items():
            found |= dict.fromkeys(names.worst_case(norm, epsilon) for epsilon in sorted(epsilons))
        return list(found)


class Suite(Part):
    """Everything that one submission runs: models × data sets × evaluations."""

    name: Slug
    """What the suite is called; also its experiment in MLflow."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Where all random numbers start."""
    plugins: Annotated[tuple[str, ...], Field(max_length=MAX_ENTRIES)] = ()
    """Modules that register plugins: a .py file or a package folder beside the suite, or an installed module."""
    models: Annotated[tuple[ModelSpec, ...], Field(min_length=1, max_length=MAX_ENTRIES)]
    """What is evaluated."""
    datasets: Annotated[tuple[DatasetSpec, ...], Field(min_length=1, max_length=MAX_ENTRIES)]
    """What it is evaluated on."""
    evaluations: Evaluations = Evaluations()
    """What is done to it. Clean accuracy is always measured."""
    stochastic: Judging = Judging()
    """How models are judged whose answers are random."""
    resources: Resources = Resources()
    """What a worker gets."""
    leaderboard: Leaderboard = Leaderboard()
    """How the results are shown."""
    profiles: dict[Slug, Arguments] = Field(default_factory=dict)
    """Other forms of this suite: by name, what `--profile NAME` changes, as `--set` would (`seed: 1`)."""

    def metric_names(self) -> list[str]:
        """The metrics that a complete run yields for every row. Raises PluginError for an unknown attack or probe."""
        found = self.evaluations.metric_names(any(model.baseline for model in self.models))
        return found + [score.metric for score in self.leaderboard.scores]


KINDS: Mapping[str, type[Part]] = {  # by the key that names the plugin
    "adapter": ModelSpec,
    "dataset": DatasetSpec,
    "attack": AttackSpec,
    "probe": ProbeSpec,
    "detector": DetectorSpec,
    "certificate": CertificateSpec,
}
