"""The doubly nested anytime network as a model: it stops as soon as it is sure, and says where."""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
import torch.nn.functional as F  # noqa: N812  the name that every torch program uses
from pydantic import Field, model_validator
from torch import Tensor, nn

from adapters.doubly_nested_net import DoublyNested, Subnet, staircase
from adapters.family import Family, FamilyTraining
from adapters.recipe import Recipe, train
from adapters.torch_classifier import TorchClassifier, check_input
from bench.contracts import Samples, Training, adapter

Size = Annotated[int, Field(ge=1)]


class AnytimeClassifier(TorchClassifier):
    """Runs the networks of the path one after the other; a part is one of them."""

    def __init__(self, net: DoublyNested, input_shape: tuple[int, ...], classes: int) -> None:
        super().__init__(net, input_shape=input_shape, classes=classes)
        self.net = net
        self.part_names = tuple(f"{stages}x{groups}" for stages, groups in net.path)

    def parts(self, x: Tensor) -> Tensor:
        check_input(x, self.input_shape)
        left = torch.zeros(0, dtype=torch.int64)
        if len(x):
            with torch.no_grad():
                left = self.net.run(x.to(torch.float32))[1]
        return torch.arange(len(self.part_names)) <= left[:, None]


@adapter("doubly_nested")
class DoublyNestedModel(Family):
    """A network of stages and channel groups whose slices all classify; it stops at the first one that is sure.

    `path` lists the networks that are asked, as [stages, groups]; left out, it grows from [1, 1] by a stage or a group
    at a time. `subnet` asks one of them alone, for the curve of accuracy against operations. Neither changes the
    weights: all networks are trained together, once.
    """

    pools: Annotated[tuple[bool, ...], Field(min_length=1, max_length=8)] = Field(
        default=(True, True, False), description="one per stage: whether it halves height and width"
    )
    groups: int = Field(default=3, ge=1, le=16, description="channel groups")
    width: int = Field(default=8, ge=1, description="maps of a group")
    threshold: float = Field(default=0.95, gt=0, le=1, description="softmax probability that is sure enough to stop")
    path: tuple[tuple[Size, Size], ...] | None = Field(default=None, description="the networks asked, in order")
    subnet: tuple[Size, Size] | None = Field(default=None, description="one network alone")
    train: Recipe = Field(default=Recipe(epochs=5, batch_size=64, learning_rate=0.01), description="how it is trained")

    @model_validator(mode="after")
    def _fits(self) -> "DoublyNestedModel":
        if min(self.shape[1:]) >> sum(self.pools) < 1:
            raise ValueError(f"pools: nothing is left of {self.shape[1]} pixels halved {sum(self.pools)} times")
        if self.path is not None and self.subnet is not None:
            raise ValueError("subnet: is the whole path, so give one of `subnet` and `path`")
        for stages, groups in self.asked():
            if stages > len(self.pools) or groups > self.groups:
                raise ValueError(
                    f"path, subnet: no network [{stages}, {groups}]: there are {len(self.pools)} stages (`pools`) and "
                    f"{self.groups} groups"
                )
        if not self.asked() or len(set(self.asked())) < len(self.asked()):
            raise ValueError("path: needs one network at least, and none twice")
        if self.train.teacher is not None:
            raise ValueError("train: the networks of the grid learn from the labels: leave `teacher` out")
        return self

    def asked(self) -> tuple[Subnet, ...]:
        """The networks that are asked, in order."""
        if self.subnet is not None:
            return (self.subnet,)
        return self.path if self.path is not None else staircase(len(self.pools), self.groups)

    @property
    def untraceable(self) -> str:
        return "" if len(self.asked()) == 1 else "it stops at another network for each input (one `subnet` does not)"

    def net(self) -> DoublyNested:
        return DoublyNested(self.shape, self.classes, self.width, self.groups, self.pools)

    def classifier(self, net: nn.Module) -> AnytimeClassifier:
        assert isinstance(net, DoublyNested)
        net.path, net.threshold = self.asked(), self.threshold
        return AnytimeClassifier(net, self.shape, self.classes)

    def fit(self, net: nn.Module, x: Tensor, y: Tensor, samples: Samples, **options: Any) -> None:
        train(net, x, y, self.train, bounds=samples.bounds, loss=every_loss, **options)

    def training(self) -> Training | None:
        return None if self.weights else _Training(self)


class _Training(FamilyTraining):
    """One training for all networks of the grid, whichever are asked later."""

    def recipe(self) -> Mapping[str, Any]:
        asked = ("threshold", "path", "subnet")
        return {name: value for name, value in super().recipe().items() if name not in asked}


def every_loss(net: nn.Module, x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
    """The mean cross-entropy of all networks of the grid."""
    assert isinstance(net, DoublyNested)
    return torch.stack([F.cross_entropy(logits, y) for logits in net.every(x).values()]).mean()
