"""What measures: attacks, probes, detectors and certificates."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import model_validator
from torch import Tensor

from bench.contracts.data import Samples
from bench.contracts.models import Classifier
from bench.contracts.plugin import Plugin
from bench.contracts.threats import Allowance
from bench.errors import PluginError
from bench.randomness import SampleRandom
from bench.words import Frozen, Knowledge, Norm


class Learner(Plugin, ABC):
    """What may have to learn about a model before it is used on it: detectors, and attacks with a model of their own.

    The engine calls `fit` once per model and data, as a task of its own, keeps the state by its content, and goes on
    with what `restore` makes of it.
    """

    fits: ClassVar[bool] = False  # whether it has to

    def fit(self, model: Classifier, samples: Samples, seed: int) -> bytes:
        """What it learns from the model and these samples: arrays as safetensors bytes, never a pickle.

        The same bits for the same arguments, hardware and number of threads. Raises PluginError where the model lacks
        what is needed (a feature layer, say), and where the samples are too few.
        """
        raise PluginError(f"'{self.name}' has nothing to fit")

    def restore(self, state: bytes) -> Self:
        """A copy of it that knows what `fit` returned."""
        raise PluginError(f"'{self.name}' has nothing to restore")


class Attack(Learner):
    """Moves inputs inside a ball so that the classifier loses the label.

    The engine hands over only samples that still stand (right when untouched, not broken at a smaller epsilon),
    verifies every result with one clean forward pass, and counts what leaves the bounds or the ball as not broken. So
    an attack need not report success, and cannot lie about it. One that `fits` learns from samples that the suite does
    not attack.
    """

    norms: ClassVar[tuple[Norm, ...]]  # those it can be asked for
    knowledge: ClassVar[Knowledge] = Knowledge.WHITE_BOX
    minimal: ClassVar[bool] = False  # True: looks for the smallest distance, is run once, ignores epsilon
    tokens: ClassVar[bool] = False  # True: replaces tokens of texts; False: moves continuous inputs
    exhaustive: ClassVar[bool] = False  # True: ends when nothing is left to try, whatever that costs
    swift: ClassVar[bool] = False  # True: is given a faster copy of the model, equal to it up to rounding (bench.swift)

    norm: Norm

    @model_validator(mode="after")
    def _has_norm(self) -> Self:
        if self.norm not in self.norms:
            raise ValueError(f"'{self.name}' has no norm '{self.norm}' (it has: {', '.join(self.norms)})")
        return self

    @property
    def proved_by(self) -> str | None:
        """A certificate whose proof spares a sample the attack; samples that it cannot judge are attacked.

        Two passes of intervals, unless a search is worth a better proof, or what it finds is not for the model alone.
        """
        return None if self.minimal or self.tokens else "interval_bounds"

    @property
    def averages(self) -> bool:
        """Whether it follows means over several passes, as a stochastic model needs (EOT)."""
        return False

    @property
    def takes_targets(self) -> bool:
        """Whether a choice of two classes is enough for it: a goal with a target leaves the target and all others."""
        return True

    @property
    def allowance(self) -> Allowance:
        """How far it goes by itself: a part of its threat model. Read off its fields `steps`, `queries`, `restarts`.

        An attack that has neither of the first two says it here, or is `exhaustive`; else a suite has to limit it by
        `budget:`.
        """
        fields = {name: getattr(self, name, None) for name in ("steps", "queries", "restarts")}
        return Allowance(**{name: value for name, value in fields.items() if isinstance(value, int)})

    @property
    def fit_queries(self) -> int | None:
        """Inputs that its fit put to the model, once for all samples; None where it does not fit."""
        return None

    @abstractmethod
    def run(self, model: Classifier, x: Tensor, y: Tensor, epsilon: float | None, random: SampleRandom) -> Tensor:
        """Adversarial inputs for x.

        x: (n, *input_shape) in bounds; y: (n,) int64, the labels; n may be 0. epsilon: radius in input units, None if
        `minimal`. random: one stream per row, the only source of randomness. Returns the shape and dtype of x, without
        gradient. Leaves parameters, buffers and modes of the model untouched. Asks `model.logits` for a subset of its
        rows through `model.rows(indices)`, so that passes are charged to the right samples.
        """


class JointAttack(Attack):
    """Moves inputs so that the label is lost in several domains at once, and weighs these: where it is hardest.

    Domains are classifiers that see one input (`domains`), or samples that share one perturbation (`together`). The
    engine asks it at one epsilon, and checks the label in each domain by a pass of its own.
    """

    @property
    def takes_targets(self) -> bool:
        """Not for goals with a target: the target of a group of samples, or of several models, is not one class."""
        return False

    @property
    def proved_by(self) -> str | None:
        """None: what is proved of the model says nothing of the other domains."""
        return None

    @property
    def together(self) -> int:
        """So many samples that follow each other share a perturbation: 1 for attacks on each sample by itself."""
        return 1

    @property
    def domain_names(self) -> tuple[str, ...]:
        """Names of the domains, where they are known before the model is."""
        return ()

    def domains(self, model: Classifier) -> Mapping[str, Classifier]:
        """What all have to lose the label of one input, by name. Empty where samples are the domains."""
        return {}

    @abstractmethod
    def weigh(
        self, model: Classifier, x: Tensor, y: Tensor, epsilon: float, random: SampleRandom, places: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Moved inputs of the shape of x, and the final weights: (n, domains), or (n, 1), a sample's among its group.

        places: (n,) int64, ascending: where each row stands in the block that the engine measures. Those with one
        quotient by `together` share a perturbation; the engine leaves out what is not attacked. The rest as `run`.
        """

    def run(self, model: Classifier, x: Tensor, y: Tensor, epsilon: float | None, random: SampleRandom) -> Tensor:
        """See Attack.run."""
        assert epsilon is not None
        return self.weigh(model, x, y, epsilon, random, torch.arange(len(x), device=x.device))[0]


class Figure(Frozen):
    """One measured number, with its 95 % interval and the number of observations behind it, where it has them."""

    name: str  # "latency_ms/p50"
    value: float | None  # None: could not be had; `flags` says why
    unit: str = ""
    low: float | None = None
    high: float | None = None
    n: int | None = None
    flags: tuple[str, ...] = ()  # "contended: ...", "incomplete: ...", "simulated"


class Probe(Plugin, ABC):
    """Measures what a classifier costs.

    `exclusive` probes (timings) run with a node to themselves, in a fresh process, and their records are valid for one
    hardware fingerprint only.
    """

    exclusive: ClassVar[bool] = False

    def process_count(self) -> int:
        """How many fresh processes measure it, one after the other: only exclusive probes may ask for more than one.

        Their figures are merged: the median over the processes, with its 95 % order-statistic interval.
        """
        return 1

    def least_seconds(self) -> float:
        """How long its own settings make it take in a process, at least: `resources.timeout` comes on top of it."""
        return 0.0

    @abstractmethod
    def measure(self, model: Classifier, samples: Samples, artefact: bytes | None) -> Sequence[Figure]:
        """artefact: the bytes of the weights, as stored. Raises nothing that the user could not mend."""

    @classmethod
    @abstractmethod
    def figures(cls) -> tuple[str, ...]:
        """Names of the figures it yields, so that a suite's columns can be checked before anything runs."""


class PairedProbe(Probe, ABC):
    """Measures a classifier against its baseline, both in one process: what a suite's `baseline:` is for."""

    exclusive: ClassVar[bool] = True

    @abstractmethod
    def compare(self, model: Classifier, baseline: Classifier, samples: Samples) -> Sequence[Figure]:
        """Figures of the model relative to the baseline. The two may be the same object."""

    def measure(self, model: Classifier, samples: Samples, artefact: bytes | None) -> Sequence[Figure]:
        """Against itself, where there is no other baseline."""
        return self.compare(model, model, samples)


class Detector(Learner):
    """Scores how outlying inputs are. Larger is more outlying, always; float64; never NaN.

    A detector that `fits` looks at inliers first; another may score right away.
    """

    @property
    def threshold(self) -> float | None:
        """The score above which an input is flagged, set by `fit` from inliers alone. None: there is none."""
        return None

    def differentiable(self, model: Classifier, x: Tensor) -> Tensor | None:
        """The score as a tensor (n,) float64 with a gradient to x, equal to `score` up to rounding.

        For attacks that know the detector. None: the score has no gradient, or is drawn at random.
        """
        return None

    def suspicion(self, model: Classifier, x: Tensor) -> Tensor:
        """`differentiable`, less the threshold where there is one. Raises PluginError where there is no gradient."""
        found = self.differentiable(model, x)
        if found is None:
            raise PluginError(
                f"detector '{self.name}' has no gradient that an adaptive attack could follow",
                "attack it without knowledge of the detector, or through one that has a gradient",
            )
        return found if self.threshold is None else found - self.threshold

    @abstractmethod
    def score(self, model: Classifier, x: Tensor, random: SampleRandom) -> NDArray[np.float64]:
        """x: (n, *input_shape), n > 0. random: one stream per row, the only source of randomness. Returns (n,)."""


class Certificate(Plugin, ABC):
    """Proves samples robust: no input inside the ball and the bounds loses the label, whatever the attack."""

    norms: ClassVar[tuple[Norm, ...]]  # those it can be asked for

    norm: Norm

    @abstractmethod
    def proves(self, model: Classifier, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        """(n,) bool: whether x (n, *input_shape) with labels y (n,) is proved at the radius epsilon.

        True is a promise; False says nothing. Raises PluginError where the model cannot be bounded.
        """
