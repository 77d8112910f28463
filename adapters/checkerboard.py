"""The Artificial Checkerboard Enhancer with its padding: a defence against whoever does not know of it.

The enhancer lets one pixel in four carry most of the gradient; the padding then moves the image by one pixel, so that
what an attack wrote onto those pixels falls between them. The idea and its published figures are those of the paper on
gradient checkerboards; the layers are our own reading of it: a strided 1x1 convolution and nearest upsampling.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812  the name that every torch program uses
from pydantic import Field, model_validator
from torch import Tensor, nn

from adapters.family import Family, FamilyTraining, tensors
from adapters.recipe import train
from adapters.reference_training import own_random_numbers
from adapters.torch_classifier import TorchClassifier, load_state, state_from_bytes, state_to_bytes
from bench.contracts import Adapter, Classifier, Report, Samples, Training, adapter
from bench.errors import PluginError

Padding = Literal["none", "fixed", "random"]
SHIFTS = ((0, 1), (1, 0), (1, 1))  # (rows, columns) that the random padding chooses from


class Enhancer(nn.Module):
    """x + intensity * (u(x) - x): u reads one pixel of each 2x2 cell, and gives all four of them what it read."""

    def __init__(self, channels: int, intensity: float) -> None:
        super().__init__()
        self.intensity = intensity
        self.read = nn.Conv2d(channels, channels, 1, stride=2)
        with torch.no_grad():
            nn.init.dirac_(self.read.weight)
            self.read.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        read = F.interpolate(self.read(x), scale_factor=2.0, mode="nearest")[:, :, : x.shape[2], : x.shape[3]]
        return x + self.intensity * (read - x)


class Defended(nn.Module):
    """(n, channels, height, width) to (n, classes): padding, enhancer, network.

    `padding` none: the image as it is; fixed: one column of zeros at the left, the last column dropped; random: a row,
    a column, or both, drawn for each image from torch's global generator.
    """

    def __init__(self, network: nn.Module, channels: int, intensity: float, padding: Padding) -> None:
        super().__init__()
        self.network, self.padding = network, padding
        self.enhancer = Enhancer(channels, intensity) if intensity else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.network(self.enhancer(self.padded(x)))
        return scores

    def padded(self, x: Tensor) -> Tensor:
        if self.padding == "none":
            return x
        if self.padding == "fixed":
            return shifted(x, 0, 1)
        moved = torch.stack([shifted(x, *shift) for shift in SHIFTS])
        chosen = torch.randint(len(SHIFTS), (len(x),), device="cpu").to(x.device)
        return moved[chosen, torch.arange(len(x), device=x.device)]


def shifted(x: Tensor, rows: int, columns: int) -> Tensor:
    """The images moved down and to the right, zeros behind them; what leaves at the edge is lost."""
    height, width = x.shape[-2:]
    return F.pad(x, (columns, 0, rows, 0))[..., :height, :width]


class DefendedClassifier(TorchClassifier):
    """A defended network that knows what it was made from: itself without padding, and that without the enhancer."""

    def __init__(self, net: nn.Module, made_from: Classifier | None, stochastic: bool, **description: Any) -> None:
        super().__init__(net, stochastic=stochastic, **description)
        self._made_from = made_from

    @property
    def source(self) -> Classifier | None:
        return self._made_from

    def size_bytes(self) -> int:
        """Without the weights of what it was made from, which the stored file holds as well."""
        return len(state_to_bytes(self.module.state_dict()))


@adapter("checkerboard")
class Checkerboard(Family):
    """A CNN behind the Artificial Checkerboard Enhancer, fine-tuned from the same CNN without it, with its padding.

    `source`, for the attack `transfer`: the model without its padding (the attacker is unaware of it), and of that the
    CNN that it was fine-tuned from (generations: 2). `intensity: 0` is that CNN: the control.
    """

    width: int = Field(default=16, ge=1, description="maps of the first convolution, half those of the second")
    intensity: float = Field(default=0.9, ge=0, lt=1, description="of the enhancer (lambda); 0: there is none")
    padding: Padding = Field(default="fixed", description="none, fixed (one column) or random (then stochastic)")

    @model_validator(mode="after")
    def _fits(self) -> "Checkerboard":
        if len(self.shape) != 3 or min(self.shape[1:]) < 4 or self.shape[1] % 4 or self.shape[2] % 4:
            raise ValueError(f"input_shape: needs images whose sides divide by four, got {list(self.shape)}")
        if self.padding != "none" and not self.intensity:
            raise ValueError("padding: is the enhancer's: set `padding: none`, or an `intensity` above 0")
        if self.intensity and self.train.teacher is not None:
            raise ValueError("train: the fine-tuning starts from a CNN, it has no teacher: leave `teacher` out")
        return self

    def cnn(self) -> nn.Sequential:
        channels, height, width = self.shape
        return nn.Sequential(
            nn.Conv2d(channels, self.width, 3, padding=1), nn.BatchNorm2d(self.width), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(self.width, 2 * self.width, 3, padding=1), nn.BatchNorm2d(2 * self.width), nn.ReLU(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2 * self.width * (height // 4) * (width // 4), self.classes),
        )  # fmt: skip

    def net(self) -> Defended:
        return Defended(self.cnn(), self.shape[0], self.intensity, self.padding)

    def control(self) -> "Checkerboard":
        """The CNN that it is fine-tuned from."""
        return self.model_copy(update={"intensity": 0.0, "padding": "none", "weights": None})

    def classifier(self, net: nn.Module) -> DefendedClassifier:
        assert isinstance(net, Defended)
        return self._described(net, None)

    def _described(self, net: Defended, made_from: Classifier | None) -> DefendedClassifier:
        net.requires_grad_(False)
        random = net.padding == "random"
        return DefendedClassifier(net, made_from, random, input_shape=self.shape, classes=self.classes)

    def build(self, weights: bytes | None) -> TorchClassifier:
        if weights is None or not self.intensity:
            return super().build(weights)
        state = state_from_bytes(weights)
        before = {name.removeprefix("before."): value for name, value in state.items() if name.startswith("before.")}
        after = {name: value for name, value in state.items() if not name.startswith("before.")}
        original = self._described(_filled(self.control().net(), before), None)
        unpadded = self._described(_filled(self.model_copy(update={"padding": "none"}).net(), after), original)
        return unpadded if self.padding == "none" else self._described(_filled(self.net(), after), unpadded)

    def training(self) -> Training | None:
        if self.weights:
            return None
        return _FineTuning(self) if self.intensity else FamilyTraining(self)


def _filled(net: Defended, state: Mapping[str, Tensor]) -> Defended:
    load_state(net, state)
    return net


class _FineTuning(FamilyTraining):
    """From the control's weights. The padding is not trained: it comes afterwards, so one training serves all three."""

    def __init__(self, model: Checkerboard) -> None:
        super().__init__(model)
        self.defended = model
        self.parent: Adapter = model.control()

    def recipe(self) -> Mapping[str, Any]:
        return {name: value for name, value in super().recipe().items() if name != "padding"}

    def train(self, samples: Samples, parent: bytes | None, seed: int, report: Report) -> bytes:
        if parent is None:
            raise PluginError("model 'checkerboard' is fine-tuned from a CNN whose weights are missing")
        before = state_from_bytes(parent)
        model = self.defended
        x, y = tensors(samples, model.shape, model.classes)
        seed += model.repeat
        with own_random_numbers(seed):
            net = model.model_copy(update={"padding": "none"}).net()
            load_state(net.network, {name.removeprefix("network."): value for name, value in before.items()})
            train(net, x, y, model.train, bounds=samples.bounds, seed=seed, report=report)
        return state_to_bytes(net.state_dict() | {f"before.{name}": value for name, value in before.items()})
