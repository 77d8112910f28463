"""Inputs that a model does not know: classes that it was not trained on, and noise."""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, model_validator
from scipy import ndimage
from torch import Tensor

from adapters.arrays import check_indices, digest
from bench.contracts import Bounds, Dataset, Samples, dataset, datasets
from bench.errors import DataError
from bench.randomness import SampleRandom


@dataset("classes_of")
class ClassesOf(Dataset):
    """Some classes of another data set, numbered anew from 0 in the order given: inliers, or outliers.

    `held_back` samples of the split `train`, the first in an order shuffled by NumPy's default_rng(shuffle_seed), are
    left out of it: they are the split `val`.
    """

    requires: ClassVar[tuple[str, ...]] = ("torch", "numpy")
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")

    dataset: str
    args: dict[str, Any] = Field(default_factory=dict)
    classes: Annotated[tuple[int, ...], Field(min_length=1)]
    held_back: Annotated[int, Field(ge=0)] = 0
    shuffle_seed: Annotated[int, Field(ge=0)] = 0
    split: Literal["train", "val", "test"] = "test"

    @model_validator(mode="after")
    def _fits(self) -> "ClassesOf":
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes: one stands twice in {list(self.classes)}")
        if self.dataset == self.name:
            raise ValueError(f"dataset: '{self.name}' cannot be taken from itself")
        datasets.build(self.dataset, {**self.args, "split": "test" if self.split == "test" else "train"})
        return self

    @property
    def tokens(self) -> bool:
        return datasets.build(self.dataset, self.args).tokens

    def load(self) -> Samples:
        whole = datasets.build(self.dataset, {**self.args, "split": "test" if self.split == "test" else "train"}).load()
        unknown = [label for label in self.classes if not 0 <= label < len(whole.class_names)]
        if unknown:
            raise DataError(
                f"classes_of {self.dataset}: no class {unknown[0]}, there are 0..{len(whole.class_names) - 1}"
            )
        rows = np.flatnonzero(np.isin(whole.labels, self.classes))
        if self.split != "test":
            np.random.default_rng(self.shuffle_seed).shuffle(rows)
            rows = np.sort(rows[: self.held_back] if self.split == "val" else rows[self.held_back :])
        if not len(rows):
            raise DataError(
                f"classes_of {self.dataset}: the split '{self.split}' is empty",
                "set `held_back` above 0, below their number",
            )
        new = {label: index for index, label in enumerate(self.classes)}
        return Samples(
            labels=np.array([new[int(label)] for label in whole.labels[rows]], dtype=np.int64),
            fetch=lambda indices: whole.fetch(rows[check_indices(indices, len(rows))]),
            input_shape=whole.input_shape,
            bounds=whole.bounds,
            class_names=tuple(whole.class_names[label] for label in self.classes),
            digest=digest(whole.digest, rows, list(self.classes)),
            groups={name: column[rows] for name, column in whole.groups.items()},
            vocabulary=whole.vocabulary,
        )


@dataset("noise")
class Noise(Dataset):
    """Synthetic outliers: inputs without any object in them, each drawn from a stream of its own.

    In units of `bounds` as [0, 1]: gaussian ½ + ½·N(0, 1), clipped; rademacher 0 or 1; bernoulli as rademacher, but the
    same in all channels; blobs, Bernoulli(0.7) blurred with σ = 1.5 pixels, and 0 where below 0.75. After
    Hendrycks et al. 2019 (Outlier Exposure), appendix. There is one class, without a meaning.
    """

    requires: ClassVar[tuple[str, ...]] = ("torch", "numpy", "scipy")
    splits: ClassVar[tuple[str, ...]] = ("test",)

    kind: Literal["gaussian", "rademacher", "bernoulli", "blobs"]
    input_shape: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    bounds: Bounds = Bounds(0.0, 1.0)
    size: PositiveInt = 1000
    seed: Annotated[int, Field(ge=0)] = 0
    split: Literal["test"] = "test"

    @model_validator(mode="after")
    def _fits(self) -> "Noise":
        if not self.bounds.low < self.bounds.high:
            raise ValueError(f"bounds: the lower one must be below the upper one, got {list(self.bounds)}")
        if self.kind == "blobs" and len(self.input_shape) < 2:
            raise ValueError("input_shape: blobs need height and width")
        return self

    def load(self) -> Samples:
        draw = _KINDS[self.kind]
        low, high = self.bounds

        def fetch(indices: NDArray[np.int64]) -> Tensor:
            rows = check_indices(indices, self.size)
            random = SampleRandom.of(self.seed, f"noise/{self.kind}", [int(row) for row in rows])
            return (low + (high - low) * draw(random, self.input_shape)).clamp(low, high)

        labels = np.zeros(self.size, dtype=np.int64)
        content = digest(self.model_dump(mode="json", exclude={"split"}))
        return Samples(labels, fetch, self.input_shape, self.bounds, (self.kind,), content)


def _gaussian(random: SampleRandom, shape: tuple[int, ...]) -> Tensor:
    return (0.5 + 0.5 * random.normal(shape)).clamp(0, 1)


def _rademacher(random: SampleRandom, shape: tuple[int, ...]) -> Tensor:
    return random.integers(shape, 0, 2).float()


def _bernoulli(random: SampleRandom, shape: tuple[int, ...]) -> Tensor:
    grey = (1, *shape[1:]) if len(shape) == 3 else shape
    return random.integers(grey, 0, 2).float().expand(len(random), *shape).clone()


def _blobs(random: SampleRandom, shape: tuple[int, ...]) -> Tensor:
    seeds = (random.uniform(shape) < 0.7).float().numpy()
    sigma = [0.0] * (seeds.ndim - 2) + [1.5, 1.5]
    smooth = torch.from_numpy(ndimage.gaussian_filter(seeds, sigma))
    return torch.where(smooth < 0.75, torch.zeros(()), smooth)


_KINDS: dict[str, Callable[[SampleRandom, tuple[int, ...]], Tensor]] = {
    "gaussian": _gaussian,
    "rademacher": _rademacher,
    "bernoulli": _bernoulli,
    "blobs": _blobs,
}
