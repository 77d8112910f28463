"""The network that ODIN was published with: two convolutions, dropout, two linear layers; trained on some classes."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  the name that every torch program uses
from pydantic import Field, model_validator
from torch import nn

from adapters.outlier_exposure import Exposure, Loss
from adapters.reference_training import own_random_numbers, tensors
from adapters.torch_classifier import TorchClassifier, load_state, state_from_bytes, state_to_bytes
from bench.contracts import Adapter, Classifier, DatasetChoice, Report, Samples, Training, adapter
from bench.errors import PluginError

INLIERS = DatasetChoice(
    dataset="classes_of",
    split="train",
    args={"dataset": "fashion_mnist", "classes": [0, 1, 3, 4, 8], "held_back": 3000},
)


class Net(nn.Module):
    """(n, 1, size, size) -> (n, classes). `pool2` yields (n, 64, 5, 5) for size 28 without padding."""

    def __init__(self, size: int, padding: int, classes: int) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(1, 32, 3, padding=padding)
        self.c2 = nn.Conv2d(32, 64, 3, padding=padding)
        self.pool1 = nn.MaxPool2d(2)
        self.pool2 = nn.MaxPool2d(2)
        self.drop1 = nn.Dropout(0.25)
        self.f1 = nn.Linear(64 * left_of(size, padding) ** 2, 128)
        self.relu = nn.ReLU()
        self.drop2 = nn.Dropout(0.5)
        self.f2 = nn.Linear(128, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool1(F.relu(self.c1(x)))
        x = self.pool2(F.relu(self.c2(x)))
        x = self.relu(self.f1(self.drop1(x.flatten(1))))
        scores: torch.Tensor = self.f2(self.drop2(x))
        return scores


def left_of(size: int, padding: int) -> int:
    """Height and width after both convolutions and poolings; 0 or less: nothing is left."""
    for _ in range(2):
        size = (size - 2 + 2 * padding) // 2
    return size


@adapter("odin_cnn")
class OdinCnn(Adapter):
    """A CNN with dropout for square grey images, trained on five classes of Fashion-MNIST by RMSprop."""

    data: DatasetChoice = INLIERS
    size: Annotated[int, Field(ge=1, description="height and width of an image")] = 28
    padding: Annotated[int, Field(ge=0, le=1, description="of both convolutions")] = 0
    classes: Annotated[int, Field(ge=2)] = 5
    epochs: Annotated[int, Field(ge=1)] = 10
    batch_size: Annotated[int, Field(ge=1)] = 128
    learning_rate: Annotated[float, Field(gt=0)] = 0.001
    repeat: Annotated[int, Field(ge=0, description="trains another one: joins the suite's seed")] = 0
    snapshots: Annotated[int, Field(ge=0, description="kept of the training, the last one included; 0: none")] = 0
    exposure: Exposure | None = Field(default=None, description="outliers that it is shown (Outlier Exposure)")

    @model_validator(mode="after")
    def _fits(self) -> "OdinCnn":
        if left_of(self.size, self.padding) < 1:
            raise ValueError(f"size: nothing is left of {self.size}×{self.size} pixels: set `padding: 1`, or enlarge")
        if len(set(self.kept())) < self.snapshots or self.snapshots == 1:
            most = int(0.6 * self.epochs) + 1
            raise ValueError(f"snapshots: 0, or 2 to {most} for {self.epochs} epochs, got {self.snapshots}")
        return self

    def kept(self) -> list[int]:
        """The epochs after which a snapshot is kept: evenly spaced in the last 60 % (Geifman et al. 2019)."""
        if not self.snapshots:
            return []
        return [round(epoch) for epoch in np.linspace(0.4 * self.epochs, self.epochs, self.snapshots).tolist()]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return 1, self.size, self.size

    def net(self) -> Net:
        """With random weights."""
        return Net(self.size, self.padding, self.classes)

    def build(self, weights: bytes | None) -> TorchClassifier:
        if weights is None:
            raise PluginError(
                "model 'odin_cnn' was built without weights",
                "run it through `gauntlet run`, which trains it once, or name a file under `weights`",
            )
        state = state_from_bytes(weights)
        earlier = [self._one(_part(state, epoch)) for epoch in self.kept()[:-1]]
        return Grown(self._one({name: value for name, value in state.items() if "@" not in name}), earlier)

    def _one(self, state: Mapping[str, torch.Tensor]) -> TorchClassifier:
        net = self.net()
        load_state(net, state)
        layers = ("pool1", "pool2", "relu")
        return TorchClassifier(net, input_shape=self.input_shape, classes=self.classes, feature_layers=layers)

    def training(self) -> Training | None:
        return None if self.weights else _Training(self)


class Grown(TorchClassifier):
    """A trained net, which knows what it was at earlier epochs."""

    def __init__(self, final: TorchClassifier, earlier: Sequence[TorchClassifier]) -> None:
        super().__init__(
            final.module, input_shape=final.input_shape, classes=final.classes, feature_layers=final.feature_layers
        )
        self._earlier = tuple(earlier)

    def members(self) -> Sequence[Classifier]:
        return (*self._earlier, self) if self._earlier else ()


def _part(state: Mapping[str, torch.Tensor], epoch: int) -> dict[str, torch.Tensor]:
    """The snapshot after that epoch."""
    end = f"@{epoch}"
    return {name.removesuffix(end): value for name, value in state.items() if name.endswith(end)}


class _Training(Training):
    def __init__(self, model: OdinCnn) -> None:
        self.model = model
        self.data = model.data
        self.also = () if model.exposure is None else (model.exposure.outliers,)

    def recipe(self) -> Mapping[str, Any]:
        return self.model.model_dump(mode="json", exclude={"weights", "data"})

    def train(self, samples: Samples, parent: bytes | None, seed: int, report: Report) -> bytes:
        model = self.model
        x, y = tensors(samples, model.input_shape, model.classes)
        loss: Loss = lambda net, inputs, labels, rows: F.cross_entropy(net(inputs), labels)  # noqa: E731
        if model.exposure is not None:
            loss = model.exposure.loss(loss, model.exposure.inputs(model.input_shape))
        kept: dict[str, torch.Tensor] = {}
        with own_random_numbers(seed + model.repeat) as random:
            net = model.net().train()
            optimiser = torch.optim.RMSprop(net.parameters(), lr=model.learning_rate)
            for epoch in range(model.epochs):
                for rows in torch.split(torch.randperm(len(x), generator=random), model.batch_size):
                    value = loss(net, x[rows], y[rows], rows)
                    optimiser.zero_grad()
                    torch.autograd.backward(value)
                    optimiser.step()
                report.step(epoch + 1, model.epochs, loss=value.item())
                if epoch + 1 in model.kept()[:-1]:
                    kept |= {f"{name}@{epoch + 1}": part.clone() for name, part in net.state_dict().items()}
        return state_to_bytes({**net.state_dict(), **kept})
