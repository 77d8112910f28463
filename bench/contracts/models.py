"""What is measured: a classifier, the adapter that builds it, and the training that makes its weights."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bench.contracts.data import DatasetChoice, Samples
from bench.contracts.plugin import Plugin
from bench.errors import PluginError, did_you_mean
from bench.words import Bounds, Gradients, Realisation


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
    smoothing: float | None = None  # standard deviation of the Gaussian noise that each pass adds to its input
    realisation: Realisation = Realisation.DENSE
    runtime: str = "torch"  # what executes it: timings of two runtimes are never put into one ratio
    feature_layers: tuple[str, ...] = ()
    can_refuse: bool = False  # `refuses` may say yes
    part_names: tuple[str, ...] = ()  # of a model that leaves parts of itself out: those that `parts` tells of
    vocabulary: tuple[str, ...] = ()  # inputs are int64 ids of these tokens, 0 filling up; the data's must be the same
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

    def suspicion(self, x: Tensor) -> Tensor | None:
        """How outlying the detector that guards this model finds inputs: what an adaptive attack lowers.

        x as for `logits`. Returns (n,) float64, differentiable with respect to x, above 0 where the input is flagged
        (the plain score, where the detector has no threshold). None: no detector guards it. Raises PluginError for a
        detector without a gradient.
        """
        return None

    def members(self) -> Sequence["Classifier"]:
        """The classifiers that an ensemble is made of; or what this one was at earlier epochs of its training, the
        earliest first, and itself last. None for most."""
        return ()

    def parts(self, x: Tensor) -> Tensor:
        """Which of `part_names` a pass over each input runs: (n, len(part_names)) bool on the CPU."""
        return torch.zeros((len(x), 0), dtype=torch.bool)

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


class Wrapped(Classifier):
    """A classifier around another one: what a subclass does not say itself, that one says. Not its `rows`.

    One that changes inputs says it in `seen`; one that others have to be seen through, in `around`. What it says
    of itself it sets after `super().__init__`.
    """

    def __init__(self, model: Classifier) -> None:
        self._model = model
        for name in Classifier.__annotations__:
            setattr(self, name, getattr(model, name))

    def seen(self, x: Tensor) -> Tensor:
        """What the model inside is asked about, in the place of x."""
        return x

    def around(self, model: Classifier) -> Classifier:
        """`model` as this one shows it: a member of the model inside, or what that one was made from."""
        return model

    def moved(self, adapter: "Adapter", device: str) -> Classifier:
        """Itself, after `adapter` has placed the model inside on `device`."""
        self._model = adapter.place(self._model, device)
        self.device = self._model.device
        return self

    def logits(self, x: Tensor) -> Tensor:
        return self._model.logits(self.seen(x))

    def features(self, x: Tensor, layer: str) -> Tensor:
        return self._model.features(self.seen(x), layer)

    def refuses(self, x: Tensor) -> Tensor:
        return self._model.refuses(self.seen(x))

    def suspicion(self, x: Tensor) -> Tensor | None:
        return self._model.suspicion(self.seen(x))

    def members(self) -> Sequence[Classifier]:
        return [self.around(member) for member in self._model.members()]

    def parts(self, x: Tensor) -> Tensor:
        return self._model.parts(self.seen(x))

    @property
    def source(self) -> Classifier | None:
        source = self._model.source
        return None if source is None else self.around(source)

    @property
    def module(self) -> nn.Module | None:
        return self._model.module

    def size_bytes(self) -> int | None:
        return self._model.size_bytes()


@dataclass(frozen=True)
class Loading:
    """What it took to build a classifier and to put it onto its device."""

    seconds: float
    peak_bytes: int | None  # of host memory above what the process held before; None where the system does not tell


@dataclass(frozen=True)
class Signature:
    """What a classifier takes and gives, in the words of Classifier."""

    input_shape: tuple[int, ...]
    bounds: Bounds
    classes: int


class Adapter(Plugin, ABC):
    """How a model is built: from its fields, and from the bytes of its weights.

    `weights` is a file, relative to the suite; its content is a part of every cache key, its path is not.
    The engine reads it, sends the bytes to the workers, and checks their digest there.
    """

    where: ClassVar[frozenset[str]] = frozenset({"weights"})  # fields that say where it lies, not what it is

    weights: Path | None = None

    @property
    def signature(self) -> "Signature | None":
        """What goes in and comes out, where the fields tell it: data that do not fit are refused before any work."""
        return None

    @abstractmethod
    def build(self, weights: bytes | None) -> Classifier:
        """A classifier in eval mode on the CPU with frozen parameters.

        Raises PluginError where bytes and fields do not fit.
        """

    def place(self, classifier: Classifier, device: str) -> Classifier:
        """Move a classifier that `build` made to `device` ("cpu", "cuda:0"). The default moves its module, and those of
        its members and of what it was made from."""
        parts = [*classifier.members(), classifier]
        while (source := parts[-1].source) is not None:
            parts.append(source)
        for part in parts:
            if part.module is not None:
                part.module.to(device)
                part.device = device
        return classifier

    def training(self) -> "Training | None":
        """How the weights are made, where they are not given. None: nothing has to be trained."""
        return None

    @property
    def untraceable(self) -> str:
        """Why no other runtime can be given its program, as words that follow "because"; empty where one can."""
        return ""

    def artefact(self) -> bytes | None:
        """The bytes of the weights where neither a file nor a training gives them: a model registry does.

        Called once, on the driver.
        """
        return None


class Report(ABC):
    """How a training tells how far it is, and keeps what it needs to go on after it was killed."""

    @abstractmethod
    def step(self, done: int, total: int, **figures: float) -> None:
        """So much of it is done. Raises nothing; may be called often.

        figures: the next point of the training's curves, `loss` and `accuracy` say; once an epoch.
        """

    def saved(self) -> bytes | None:
        """The last state that an earlier attempt at this very training saved; None where it starts anew."""
        return None

    def save(self, state: bytes) -> None:  # noqa: B027 - a report that keeps nothing is one
        """Keep the state of the training in place of an earlier one, until it is done. Best every few seconds.

        This one keeps nothing. A training that goes on from `saved` ends with the bits of one that was never killed.
        """


class Training(ABC):
    """Weights that are made by a task, once.

    Its identity is `recipe`, the data's digest, the seed, and the source of it, of the adapter and of the adapter's
    `inner_plugins`.
    """

    data: "DatasetChoice"  # what it is trained on
    parent: "Adapter | None" = None  # a model whose trained weights it starts from
    also: "tuple[DatasetChoice, ...]" = ()  # further data, which it loads itself: their digests join its identity
    learns: bool = True  # from `data`; False where it names some and looks at none

    @abstractmethod
    def recipe(self) -> Mapping[str, Any]:
        """Everything that decides the outcome, as JSON values."""

    @abstractmethod
    def train(self, samples: "Samples", parent: bytes | None, seed: int, report: Report) -> bytes:
        """The weights as safetensors bytes: the same bits for the same arguments, hardware and number of threads."""
