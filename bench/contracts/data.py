"""What models are measured on, and how a plugin's field names a data set or a model."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from bench.contracts.plugin import Plugin
from bench.words import Bounds, Frozen


@dataclass(frozen=True)
class Samples:
    """Inputs and labels of one split.

    labels: (n,) int64 in [0, len(class_names)). `fetch` takes indices (k,) int64 and returns (k, *input_shape): float32
    in `bounds`, or int64 ids of `vocabulary` for texts (then `bounds` are 0 and the largest id; id 0 fills up what is
    shorter than the longest). `digest` is of the content, groups included: the same bytes give the same digest wherever
    they lie.
    """

    labels: NDArray[np.int64]
    fetch: Callable[[NDArray[np.int64]], Tensor]
    input_shape: tuple[int, ...]
    bounds: Bounds
    class_names: tuple[str, ...]
    digest: str
    groups: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # columns (n,) for metrics by group
    vocabulary: tuple[str, ...] = ()  # the token of each id, where inputs are token ids

    def __len__(self) -> int:
        return len(self.labels)


class Dataset(Plugin, ABC):
    """Labelled inputs. `split` names which part; what splits there are is `splits`."""

    splits: ClassVar[tuple[str, ...]] = ("train", "test")

    split: str = "test"

    @property
    def tokens(self) -> bool:
        """Whether the inputs are token ids, known before anything is loaded: attacks that need numbers are refused."""
        return False

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
