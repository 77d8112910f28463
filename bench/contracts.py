"""What each plugin promises: the whole architecture in one file.

A plugin is a frozen pydantic class. Its fields are its keys in a suite, its parameters in MLflow and a part of its
cache key; the first line of its docstring is its help. It is registered by decorator:

    from bench.contracts import Attack, Norm, attack

    @attack("fgsm")
    class FastGradientSign(Attack):
        \"\"\"One step of size epsilon along the sign of the loss gradient.\"\"\"

| kind     | promises                                                        | decorator   |
|----------|-----------------------------------------------------------------|-------------|
| Adapter  | builds a Classifier from its fields and the bytes of its weights | `@adapter`  |
| Dataset  | hands out inputs and labels by index, and knows its own digest    | `@dataset`  |
| Attack   | moves inputs, inside its threat model, so that the label is lost  | `@attack`   |
| Probe    | measures what a classifier costs                                  | `@probe`    |
| Detector | scores how outlying an input is; larger is more outlying, always  | `@detector` |
| Certificate | proves that no input in a ball loses the label                 | `@certificate` |

tests/contracts/ runs these promises over everything registered; `gauntlet check-adapter` runs the adapter's.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from bench.errors import PluginError, did_you_mean
from bench.randomness import SampleRandom
from bench.registry import Registry
from bench.words import Bounds as Bounds
from bench.words import Frozen as Frozen
from bench.words import Gradients as Gradients
from bench.words import Knowledge as Knowledge
from bench.words import Norm as Norm
from bench.words import Realisation as Realisation


class Plugin(Frozen):
    """What a suite can name. `name` is set by the decorator.

    `requires` lists the distributions whose version changes the result: they are a part of the cache key.
    """

    name: ClassVar[str] = ""
    requires: ClassVar[tuple[str, ...]] = ("torch",)

    @classmethod
    def summary(cls) -> str:
        """The first line of the class's own docstring."""
        return (cls.__doc__ or "").strip().partition("\n")[0]

    def inner_plugins(self) -> "tuple[Plugin, ...]":
        """Other plugins that this one works through: their source and versions are a part of its identity."""
        return ()


# --- classifiers and adapters ---------------------------------------------------------------------------------------


class Classifier(ABC):
    """A loaded model, as the engine, attacks, probes and detectors see it.

    Inputs are in input units: preprocessing (mean and standard deviation, resizing of dtype) happens inside, so that
    an epsilon means the same for every model.
    """

    input_shape: tuple[int, ...]  # of one sample, without the batch dimension
    bounds: Bounds
    classes: int
    gradients: Gradients = Gradients.EXACT
    stochastic: bool = False  # two passes of one input may differ
    realisation: Realisation = Realisation.DENSE
    runtime: str = "torch"  # what executes it: timings of two runtimes are never put into one ratio
    feature_layers: tuple[str, ...] = ()
    can_refuse: bool = False  # `refuses` may say yes
    device: str = "cpu"
    loading: "Loading | None" = None  # what loading it took, where the engine has loaded it

    @abstractmethod
    def logits(self, x: Tensor) -> Tensor:
        """Scores before softmax.

        x: (n, *input_shape), on `device`, in `bounds`. Returns (n, classes), float32. Differentiable with respect to
        x unless `gradients` is NONE. Depends on nothing but x: not on the other rows, nor on earlier calls (unless
        `stochastic`).
        """

    def features(self, x: Tensor, layer: str) -> Tensor:
        """Activations of one of `feature_layers`, (n, ...), float32. Raises PluginError for any other layer."""
        hint = did_you_mean(layer, self.feature_layers)
        raise PluginError(f"no feature layer '{layer}'{hint} (named: {', '.join(self.feature_layers) or 'none'})")

    def refuses(self, x: Tensor) -> Tensor:
        """Which inputs it declines to answer, (n,) bool on the CPU. The engine asks only where `can_refuse` is set."""
        return torch.zeros(len(x), dtype=torch.bool)

    def rows(self, rows: Tensor) -> "Classifier":
        """The same classifier for a part of the batch that an attack was given: its passes are charged to those rows.

        rows: (k,) int64, positions in that batch. Only the engine's metered classifier does anything here.
        """
        return self

    @property
    def source(self) -> "Classifier | None":
        """The model that this one was made from, for another runtime say; None where there is none.

        What is crafted on it is transferred to this one by the attack `transfer`.
        """
        return None

    @property
    def module(self) -> nn.Module | None:
        """The torch module inside, where there is one: what operation counters and digests read. In eval mode."""
        return None

    def size_bytes(self) -> int | None:
        """Bytes of the stored artefact, or None where that is the size of the adapter's weights file."""
        return None


@dataclass(frozen=True)
class Loading:
    """What it took to build a classifier and to put it onto its device."""

    seconds: float
    peak_bytes: int | None  # of host memory above what the process held before; None where the system does not tell


class Adapter(Plugin, ABC):
    """How a model is built: from its fields, and from the bytes of its weights.

    `weights` is a file, relative to the suite; its content is a part of every cache key, its path is not.
    The engine reads it, sends the bytes to the workers, and checks their digest there.
    """

    where: ClassVar[frozenset[str]] = frozenset({"weights"})  # fields that say where it lies, not what it is

    weights: Path | None = None

    @abstractmethod
    def build(self, weights: bytes | None) -> Classifier:
        """A classifier in eval mode on the CPU with frozen parameters.

        Raises PluginError where bytes and fields do not fit.
        """

    def place(self, classifier: Classifier, device: str) -> Classifier:
        """Move a classifier that `build` made to `device` ("cpu", "cuda:0"). The default moves its module."""
        if classifier.module is not None:
            classifier.module.to(device)
            classifier.device = device
        return classifier

    def training(self) -> "Training | None":
        """How the weights are made, where they are not given. None: nothing has to be trained."""
        return None

    def artefact(self) -> bytes | None:
        """The bytes of the weights where neither a file nor a training gives them: a model registry does.

        Called once, on the driver.
        """
        return None


class Report(ABC):
    """How a training tells how far it is. `step` raises no error; it may be called often."""

    @abstractmethod
    def step(self, done: int, total: int, **figures: float) -> None: ...


class Training(ABC):
    """Weights that are made by a task, once. Its identity is `recipe`, the data's digest, the seed and its source."""

    data: "DatasetChoice"  # what it is trained on
    parent: "Adapter | None" = None  # a model whose trained weights it starts from
    uses: tuple[type[Plugin], ...] = ()  # other plugins whose source decides the outcome, too

    @abstractmethod
    def recipe(self) -> Mapping[str, Any]:
        """Everything that decides the outcome, as JSON values."""

    @abstractmethod
    def train(self, samples: "Samples", parent: bytes | None, seed: int, report: Report) -> bytes:
        """The weights as safetensors bytes: the same bits for the same arguments, hardware and number of threads."""


# --- data -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Samples:
    """Inputs and labels of one split.

    labels: (n,) int64 in [0, len(class_names)). `fetch` takes indices (k,) int64 and returns (k, *input_shape): float32
    in `bounds`, or integers for data that are not continuous (then `bounds` still holds). `digest` is of the content:
    the same bytes give the same digest wherever they lie.
    """

    labels: NDArray[np.int64]
    fetch: Callable[[NDArray[np.int64]], Tensor]
    input_shape: tuple[int, ...]
    bounds: Bounds
    class_names: tuple[str, ...]
    digest: str
    groups: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # columns (n,) for metrics by group

    def __len__(self) -> int:
        return len(self.labels)


class Dataset(Plugin, ABC):
    """Labelled inputs. `split` names which part; what splits there are is `splits`."""

    splits: ClassVar[tuple[str, ...]] = ("train", "test")

    split: str = "test"

    @abstractmethod
    def load(self) -> Samples:
        """Raises DataError that names the missing file and where to put it, or what is wrong with it."""


class AdapterChoice(Frozen):
    """A model by its adapter, as a field of another plugin."""

    adapter: str
    args: dict[str, Any] = Field(default_factory=dict)


class DatasetChoice(Frozen):
    """A data set by name, as a field of another plugin."""

    dataset: str
    split: str = "train"
    args: dict[str, Any] = Field(default_factory=dict)


# --- evaluations ------------------------------------------------------------------------------------------------------


class Attack(Plugin, ABC):
    """Moves inputs inside a ball so that the classifier loses the label.

    The engine hands over only samples that still stand (right when untouched, not broken at a smaller epsilon),
    verifies every result with one clean forward pass, and counts what leaves the bounds or the ball as not broken. So
    an attack need not report success, and cannot lie about it.
    """

    norms: ClassVar[tuple[Norm, ...]]  # those it can be asked for
    knowledge: ClassVar[Knowledge] = Knowledge.WHITE_BOX
    minimal: ClassVar[bool] = False  # True: looks for the smallest distance, is run once, ignores epsilon
    swift: ClassVar[bool] = False  # True: is given a faster copy of the model, equal to it up to rounding (bench.swift)

    norm: Norm

    @property
    def proved_by(self) -> str | None:
        """A certificate whose proof spares a sample the attack; samples that it cannot judge are attacked."""
        return None

    @abstractmethod
    def run(self, model: Classifier, x: Tensor, y: Tensor, epsilon: float | None, random: SampleRandom) -> Tensor:
        """Adversarial inputs for x.

        x: (n, *input_shape) in bounds; y: (n,) int64, the labels; n may be 0. epsilon: radius in input units, None if
        `minimal`. random: one stream per row, the only source of randomness. Returns the shape and dtype of x, without
        gradient. Leaves parameters, buffers and modes of the model untouched. Asks `model.logits` for a subset of its
        rows through `model.rows(indices)`, so that passes are charged to the right samples.
        """


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


class Detector(Plugin, ABC):
    """Scores how outlying inputs are. Larger is more outlying, always; float64; never NaN.

    A detector that `fits` looks at inliers first. The engine calls `fit` once per model and data, as a task of its own,
    keeps the state by its content, and scores with what `restore` makes of it; another may score right away.
    """

    fits: ClassVar[bool] = False

    def fit(self, model: Classifier, samples: Samples, seed: int) -> bytes:
        """What it learns from inliers: arrays as safetensors bytes, never a pickle.

        The same bits for the same arguments, hardware and number of threads. Raises PluginError where the model lacks
        what the detector needs (a feature layer, say).
        """
        raise PluginError(f"detector '{self.name}' has nothing to fit")

    def restore(self, state: bytes) -> "Detector":
        """A copy of this detector that knows what `fit` returned."""
        raise PluginError(f"detector '{self.name}' has nothing to restore")

    @property
    def threshold(self) -> float | None:
        """The score above which an input is flagged, set by `fit` from inliers alone. None: there is none."""
        return None

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


# --- the registries ---------------------------------------------------------------------------------------------------

adapters: Registry[Adapter] = Registry("adapter", "adapters", Adapter)  # type: ignore[type-abstract]
datasets: Registry[Dataset] = Registry("dataset", "datasets", Dataset)  # type: ignore[type-abstract]
attacks: Registry[Attack] = Registry("attack", "attacks", Attack)  # type: ignore[type-abstract]
probes: Registry[Probe] = Registry("probe", "probes", Probe)  # type: ignore[type-abstract]
detectors: Registry[Detector] = Registry("detector", "detectors", Detector)  # type: ignore[type-abstract]
certificates: Registry[Certificate] = Registry("certificate", "certificates", Certificate)  # type: ignore[type-abstract]

REGISTRIES: Mapping[str, Registry[Any]] = {
    registry.plural: registry for registry in (adapters, datasets, attacks, probes, detectors, certificates)
}

adapter = adapters.register
dataset = datasets.register
attack = attacks.register
probe = probes.register
detector = detectors.register
certificate = certificates.register
