"""Small plugins for the tests of suites, so that these do not depend on the built-in ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from bench.contracts import (
    Adapter,
    Attack,
    Bounds,
    Classifier,
    Dataset,
    DatasetChoice,
    Detector,
    Figure,
    Frozen,
    Norm,
    PairedProbe,
    Probe,
    Samples,
    adapter,
    attack,
    dataset,
    detector,
    probe,
)
from bench.errors import PluginError
from bench.randomness import SampleRandom


class FilePart(Frozen):
    file: Path


@adapter("t_net")
class Net(Adapter):
    """A model that is never built."""

    width: int = Field(16, gt=0)
    bounds: Bounds = Bounds(0.0, 1.0)
    rate: float = 0.1
    size: int | Literal["max"] = "max"
    data: DatasetChoice | None = None
    choices: tuple[DatasetChoice, ...] = ()
    parts: tuple[FilePart, ...] = ()
    files: dict[str, Path] = Field(default_factory=dict)

    def build(self, weights: bytes | None) -> Classifier:
        raise PluginError("never built")


@dataset("t_dots")
class Dots(Dataset):
    """A data set that is never loaded."""

    path: Path | None = None

    def load(self) -> Samples:
        raise PluginError("never loaded")


@dataset("t_free")
class Free(Dots):
    """Has whatever splits there are files for."""

    splits: ClassVar[tuple[str, ...]] = ()


class _Still(Attack):
    exhaustive: ClassVar[bool] = True

    def run(self, model: Classifier, x: Tensor, y: Tensor, epsilon: float | None, random: SampleRandom) -> Tensor:
        return x


@attack("t_step")
class Step(_Still):
    """Needs epsilons."""

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF, Norm.L2)
    steps: int = Field(10, ge=1)
    fraction: float = 0.5


@attack("t_endless")
class Endless(_Still):
    """Does not say when it ends, and needs all classes."""

    norms: ClassVar[tuple[Norm, ...]] = (Norm.L2,)
    exhaustive: ClassVar[bool] = False

    @property
    def takes_targets(self) -> bool:
        return False


@attack("t_lib.near")
class Near(_Still):
    """Looks for the smallest distance."""

    norms: ClassVar[tuple[Norm, ...]] = (Norm.L2,)
    minimal: ClassVar[bool] = True


@attack("t_broken")
class Broken(_Still):
    """Is listed, but refuses to be made."""

    norms: ClassVar[tuple[Norm, ...]] = (Norm.L2,)

    @model_validator(mode="before")
    @classmethod
    def _refuse(cls, data: Any) -> Any:
        raise ValueError("returns NaN: use 't_step' instead")


@attack("t_buggy")
class Buggy(_Still):
    """Its validator has a bug."""

    norms: ClassVar[tuple[Norm, ...]] = (Norm.L2,)
    minimal: ClassVar[bool] = True

    @model_validator(mode="before")
    @classmethod
    def _check(cls, data: Any) -> Any:
        return data["forgotten"]


@probe("t_count")
class Count(Probe):
    """Counts."""

    per: int = 1

    def measure(self, model: Classifier, samples: Samples, artefact: bytes | None) -> Sequence[Figure]:
        return []

    @classmethod
    def figures(cls) -> tuple[str, ...]:
        return ("t_count/all", "t_count/some")


@detector("t_surprise")
class Surprise(Detector):
    """Scores nothing."""

    weight: float

    def score(self, model: Classifier, x: Tensor, random: SampleRandom) -> NDArray[np.float64]:
        return np.zeros(len(x))


@probe("t_paired")
class Paired(PairedProbe):
    """Compares."""

    def compare(self, model: Classifier, baseline: Classifier, samples: Samples) -> Sequence[Figure]:
        return []

    @classmethod
    def figures(cls) -> tuple[str, ...]:
        return ("t_paired",)
