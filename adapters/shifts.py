"""Another data set under a shift of its inputs: common corruptions, rotations. The kind of shift is a group column."""

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, model_validator
from scipy import ndimage
from torch import Tensor

from adapters import corruptions
from adapters.arrays import check_indices, digest
from adapters.corruptions import NAMES, SEVERITIES, Variant, corrupt
from bench.contracts import Dataset, Samples, dataset, datasets
from bench.data import subset
from bench.errors import DataError
from bench.randomness import seed_of

Rows = NDArray[np.int64]
UNTOUCHED = "untouched"


class _Shifted(Dataset):
    """Copies of another data set, one behind the other, each under a shift of its own.

    `limit` takes so many samples of the other, stratified, before they are copied: all copies are of the same samples.
    """

    requires: ClassVar[tuple[str, ...]] = ("torch", "numpy", "scipy", "pillow")

    dataset: str
    args: dict[str, Any] = Field(default_factory=dict)
    limit: PositiveInt | None = None
    split: Literal["train", "test"] = "test"

    @model_validator(mode="after")
    def _inside(self) -> "_Shifted":
        if self.dataset in ("corrupted", "rotated"):
            raise ValueError(f"dataset: '{self.dataset}' is a shift already: name the data set inside")
        self.whole()
        return self

    def whole(self) -> Dataset:
        """The data set inside, not loaded."""
        return datasets.build(self.dataset, {**self.args, "split": self.split})

    @abstractmethod
    def shifts(self) -> Sequence[dict[str, str]]:
        """Of each copy the values of its group columns."""

    @abstractmethod
    def shift(self, x: Tensor, rows: Rows, copy: int) -> Tensor:
        """x: (n, channels, height, width) float32 in [0, 1], the samples `rows` of the data set inside."""

    def load(self) -> Samples:
        """Raises DataError for inputs that are no images of 1 or 3 channels."""
        inside = self.whole().load()
        if len(inside.input_shape) != 3 or inside.input_shape[0] not in (1, 3):
            raise DataError(
                f"{self.name} {self.dataset}: images of 1 or 3 channels are needed, its inputs are {inside.input_shape}"
            )
        chosen = subset(inside.labels, self.limit, True, seed=0)
        copies, (low, high) = self.shifts(), inside.bounds

        def fetch(indices: Rows) -> Tensor:
            asked = check_indices(indices, len(copies) * len(chosen))
            found = torch.empty((len(asked), *inside.input_shape))
            for copy in np.unique(asked // len(chosen)).tolist():
                places = np.flatnonzero(asked // len(chosen) == copy)
                rows = chosen[asked[places] % len(chosen)]
                x = (inside.fetch(rows).to(torch.float32) - low) / (high - low)
                found[torch.from_numpy(places)] = self.shift(x, rows, copy)
            return (low + (high - low) * found).clamp(low, high)

        own = {column: np.repeat([copy[column] for copy in copies], len(chosen)) for column in copies[0]}
        theirs = {name: np.tile(column[chosen], len(copies)) for name, column in inside.groups.items()}
        return Samples(
            labels=np.tile(inside.labels[chosen], len(copies)),
            fetch=fetch,
            input_shape=inside.input_shape,
            bounds=inside.bounds,
            class_names=inside.class_names,
            digest=digest(inside.digest, chosen, self.model_dump(mode="json", exclude={"args"}), _program()),
            groups={**theirs, **own},
        )


@dataset("corrupted")
class Corrupted(_Shifted):
    """Another data set under the common corruptions of Hendrycks and Dietterich 2019, at severities 1 to 5.

    The copies: the untouched inputs, then each corruption at each severity. Group columns: `corruption` and `severity`,
    which the mean corruption error is made of. Random numbers belong to the sample, not to the batch. variant: whose
    settings, those of CIFAR-10-C or ImageNet-C; left out: by the size of the images (ImageNet-C from 128 pixels on).
    """

    corruptions: Annotated[tuple[str, ...], Field(min_length=1)] = NAMES
    severities: Annotated[
        tuple[Annotated[int, Field(ge=1, le=SEVERITIES)], ...], Field(min_length=1, max_length=SEVERITIES)
    ] = (1, 2, 3, 4, 5)
    untouched: bool = True
    variant: Variant | None = None
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _known(self) -> "Corrupted":
        for name in self.corruptions:
            if name not in NAMES:
                raise ValueError(f"corruptions: no corruption '{name}' (known: {', '.join(NAMES)})")
        for what, values in (("corruptions", self.corruptions), ("severities", self.severities)):
            if len(set(values)) < len(values):
                raise ValueError(f"{what}: one stands twice in {list(values)}")
        return self

    def shifts(self) -> Sequence[dict[str, str]]:
        every = [(name, severity) for name in self.corruptions for severity in self.severities]
        head = [{"corruption": UNTOUCHED, "severity": "0"}] if self.untouched else []
        return head + [{"corruption": name, "severity": str(severity)} for name, severity in every]

    def shift(self, x: Tensor, rows: Rows, copy: int) -> Tensor:
        name, severity = self.shifts()[copy].values()
        if name == UNTOUCHED:
            return x
        made = [
            corrupt(image, name, int(severity), _random(self.seed, f"{name}/{severity}", row), self.variant)
            for image, row in zip(x.double().numpy(), rows.tolist(), strict=True)
        ]
        return torch.from_numpy(np.stack(made)).to(torch.float32)


@dataset("rotated")
class Rotated(_Shifted):
    """Another data set with its images rotated about their centre, counter-clockwise, by each of some angles.

    Bilinear; what comes in from outside is the lowest value. Multiples of 90° of square images are exact. Group column:
    `angle`, in degrees.
    """

    angles: Annotated[tuple[Annotated[float, Field(ge=-360, le=360)], ...], Field(min_length=1)] = (
        *(0, 15, 30, 45, 60, 75, 90, 180),
    )

    @model_validator(mode="after")
    def _distinct(self) -> "Rotated":
        if len({f"{angle:g}" for angle in self.angles}) < len(self.angles):
            raise ValueError(f"angles: one stands twice in {list(self.angles)}")
        return self

    def shifts(self) -> Sequence[dict[str, str]]:
        return [{"angle": f"{angle:g}"} for angle in self.angles]

    def shift(self, x: Tensor, rows: Rows, copy: int) -> Tensor:
        angle = self.angles[copy]
        if angle % 180 == 0 or (angle % 90 == 0 and x.shape[2] == x.shape[3]):
            return x.rot90(int(angle // 90), (2, 3))
        found = ndimage.rotate(x.numpy(), angle, axes=(3, 2), reshape=False, order=1, mode="constant", cval=0.0)
        return torch.from_numpy(found)


def _random(seed: int, purpose: str, row: int) -> np.random.Generator:
    return np.random.default_rng(seed_of(seed, f"corrupted/{purpose}", row))


def _program() -> list[str]:
    """What decides the pixels beside the arguments: this code, and the libraries that it computes with."""
    own = [hashlib.blake2b(Path(file).read_bytes()).hexdigest() for file in (corruptions.__file__, __file__)]
    return own + [version(name) for name in ("numpy", "scipy", "pillow")]
