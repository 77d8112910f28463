"""The plain family: a CNN, or without convolutions a perceptron, in full precision; the control of all the others."""

from collections import OrderedDict
from typing import Annotated, Literal

from pydantic import Field, model_validator
from torch import nn

from adapters.family import Family
from adapters.torch_classifier import TorchClassifier
from bench.contracts import adapter

Widths = tuple[Annotated[int, Field(ge=1)], ...]


@adapter("cnn")
class Cnn(Family):
    """Convolutions with ReLU, each halving the image, then linear layers: LeNet-5, LeNet-300-100 and their like.

    A convolution is followed by BatchNorm (unless `normalise: false`), ReLU and 2×2 max pooling; a hidden linear layer
    by ReLU. Without convolutions it is a perceptron. LeNet-5 as Han et al. 2015 prune it (Caffe's): channels [20, 50],
    kernel 5, padding valid, hidden [500], normalise false: 430,500 weights. LeNet-300-100: channels [], hidden
    [300, 100]: 266,200 weights.
    """

    channels: Widths = Field(default=(16, 32), description="maps of each convolution")
    kernel: int = Field(default=3, ge=1, description="height and width of the filters")
    padding: Literal["same", "valid"] = Field(default="same", description="zeros that keep the size, or none")
    hidden: Widths = Field(default=(64,), description="units of each hidden linear layer")
    normalise: bool = Field(default=True, description="BatchNorm after each convolution")

    @model_validator(mode="after")
    def _fits(self) -> "Cnn":
        if len(self.shape) != 3:
            raise ValueError(f"input_shape: give channels, height and width, got {list(self.shape)}")
        if self.padding == "same" and self.kernel % 2 == 0:
            raise ValueError(f"kernel: with `padding: same` it has to be odd, got {self.kernel}")
        self.sizes()
        return self

    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of the input, and after each pooling. Raises ValueError where nothing is left."""
        found = [(self.shape[1], self.shape[2])]
        for layer in range(len(self.channels)):
            height, width = (size if self.padding == "same" else size - self.kernel + 1 for size in found[-1])
            found.append((height // 2, width // 2))
            if min(found[-1]) < 1:
                raise ValueError(
                    f"channels: nothing is left of {self.shape[1]}×{self.shape[2]} pixels after convolution "
                    f"{layer + 1}: use fewer, a smaller `kernel`, or `padding: same`"
                )
        return found

    def net(self) -> nn.Sequential:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        padding = self.kernel // 2 if self.padding == "same" else 0
        fed = self.shape[0]
        for number, maps in enumerate(self.channels, 1):
            layers[f"conv{number}"] = nn.Conv2d(fed, maps, self.kernel, padding=padding, bias=not self.normalise)
            if self.normalise:
                layers[f"norm{number}"] = nn.BatchNorm2d(maps)
            layers[f"relu{number}"] = nn.ReLU()
            layers[f"pool{number}"] = nn.MaxPool2d(2)
            fed = maps
        layers["flatten"] = nn.Flatten()
        height, width = self.sizes()[-1]
        fed *= height * width
        for number, units in enumerate(self.hidden, 1):
            layers[f"linear{number}"] = nn.Linear(fed, units)
            layers[f"active{number}"] = nn.ReLU()
            fed = units
        layers["logits"] = nn.Linear(fed, self.classes)
        return nn.Sequential(layers)

    def classifier(self, net: nn.Module) -> TorchClassifier:
        names = [name for name, _ in net.named_children() if name.startswith(("relu", "active"))]
        return TorchClassifier(net, input_shape=self.shape, classes=self.classes, feature_layers=("flatten", *names))
