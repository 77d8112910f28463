"""Networks that are trained so that their robustness can be proved: interval bound propagation (Gowal et al. 2018)."""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  the name that every torch program uses
from pydantic import Field, model_validator
from torch import Tensor, nn

from adapters.family import Family
from adapters.recipe import train
from adapters.torch_classifier import TorchClassifier
from bench.contracts import Bounds, Samples, adapter
from bench.errors import PluginError


@adapter("certified")
class Certified(Family):
    """A CNN of two strided convolutions, trained by interval bound propagation, for which linear bounds prove much.

    Gowal et al. 2018, On the Effectiveness of Interval Bound Propagation. The net is the small one of Wong and Kolter
    2018: 16 and 32 maps of 4x4 with stride 2, and a hidden layer of 100. The loss is cross-entropy, mixed with that of
    the worst logits inside the L-infinity ball; radius and weight grow from 0 over the epochs between `warm_up` and
    `ramp`.
    """

    epsilon: float = Field(default=0.1, gt=0, description="radius of the ball that the training bounds, input units")
    worst_weight: float = Field(default=0.5, ge=0, le=1, description="of the worst-case loss at the end")
    warm_up: float = Field(default=0.1, ge=0, lt=1, description="share of the steps before the radius grows")
    ramp: float = Field(default=0.6, gt=0, le=1, description="share of the steps after which it has grown")

    @model_validator(mode="after")
    def _ordered(self) -> "Certified":
        if not self.warm_up < self.ramp:
            raise ValueError(f"`warm_up` must end before `ramp` ({self.ramp:g}), got {self.warm_up:g}")
        if self.train.adversary or self.train.teacher:
            raise ValueError("interval bounds take the place of `train.adversary` and `train.teacher`: remove them")
        if len(self.shape) != 3 or self.shape[1] % 4 or self.shape[2] % 4:
            raise ValueError(
                f"the net takes images with sides of multiples of 4, and those of the data are {self.shape}"
            )
        return self

    def net(self) -> nn.Sequential:
        channels, height, width = self.shape
        return nn.Sequential(
            nn.Conv2d(channels, 16, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * (height // 4) * (width // 4), 100),
            nn.ReLU(),
            nn.Linear(100, self.classes),
        )

    def classifier(self, net: nn.Module) -> TorchClassifier:
        return TorchClassifier(net, input_shape=self.shape, classes=self.classes, feature_layers=("1", "3", "6"))

    def fit(self, net: nn.Module, x: Tensor, y: Tensor, samples: Samples, **options: Any) -> None:
        objective = _Objective(self, samples.bounds)
        options.pop("teacher")
        train(net, x, y, self.train, loss=objective.loss, before_step=objective.begin, bounds=samples.bounds, **options)


class _Objective:
    """The loss at the current radius (Gowal et al. 2018, equation 12)."""

    def __init__(self, fields: Certified, bounds: Bounds) -> None:
        self.fields, self.bounds = fields, bounds
        self.grown = 0.0  # from 0 to 1

    def begin(self, done: int, total: int) -> None:
        start, end = self.fields.warm_up, self.fields.ramp
        self.grown = min(1.0, max(0.0, (done / total - start) / (end - start)))

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        fit = F.cross_entropy(net(x), y)
        weight = self.grown * self.fields.worst_weight
        if weight == 0:
            return fit
        worst = worst_logits(net, x, y, self.grown * self.fields.epsilon, self.bounds)
        return (1 - weight) * fit + weight * F.cross_entropy(worst, y)


def worst_logits(net: nn.Module, x: Tensor, y: Tensor, epsilon: float, bounds: Bounds) -> Tensor:
    """(n, classes): upper bounds of each logit less that of the label, over the ball inside the bounds.

    The last layer is elided: its rows are subtracted before its bound is taken (Gowal et al. 2018, section 3.2). All
    below 0 but the label's own, which is 0: no input in the ball loses the label.
    """
    assert isinstance(net, nn.Sequential)
    low, high = (x - epsilon).clamp(min=bounds.low), (x + epsilon).clamp(max=bounds.high)
    *hidden, last = net
    for layer in hidden:
        low, high = interval(layer, low, high)
    assert isinstance(last, nn.Linear)
    weight = last.weight[None] - last.weight[y][:, None]  # (n, classes, features)
    bias = last.bias[None] - last.bias[y][:, None]
    middle, radius = (high + low) / 2, (high - low) / 2
    return (weight @ middle[:, :, None] + weight.abs() @ radius[:, :, None]).squeeze(2) + bias


def interval(layer: nn.Module, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """What a layer gives of all inputs between low and high (n, ...), elementwise (Gowal et al. 2018, equations 5, 6).

    Raises PluginError for a layer that is neither a convolution, linear, a flattening nor monotone.
    """
    if isinstance(layer, nn.ReLU | nn.Flatten):
        return layer(low), layer(high)
    middle, radius = (high + low) / 2, (high - low) / 2
    if isinstance(layer, nn.Conv2d):
        middle, spread = layer(middle), F.conv2d(radius, layer.weight.abs(), None, layer.stride, layer.padding)
    elif isinstance(layer, nn.Linear):
        middle, spread = layer(middle), F.linear(radius, layer.weight.abs())
    else:
        raise PluginError(f"no interval bounds for the layer {type(layer).__name__}")
    return middle - spread, middle + spread


@torch.no_grad()
def proved(net: nn.Module, x: Tensor, y: Tensor, epsilon: float, bounds: Bounds) -> Tensor:
    """(n,) bool: whether interval bounds alone prove x (n, *shape) at the radius epsilon."""
    worst = worst_logits(net, x, y, epsilon, bounds).clone()
    worst[torch.arange(len(y)), y] = -torch.inf
    return worst.amax(1) < 0
