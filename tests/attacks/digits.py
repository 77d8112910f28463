"""A small convolutional net on scikit-learn's digits, trained in a second or two, and samples that it gets right."""

import functools

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from bench.contracts import Bounds, Classifier
from bench.randomness import SampleRandom


class DigitsNet(Classifier):
    """Digits as (1, 8, 8), in bounds of choice. Counts the passes charged to each row of the batch."""

    input_shape = (1, 8, 8)
    classes = 10

    def __init__(self, module: nn.Module, bounds: Bounds = Bounds(0.0, 1.0)) -> None:  # noqa: B008 - an immutable value
        self.net = module
        self.bounds = bounds

    def logits(self, x: Tensor) -> Tensor:
        return self.net((x - self.bounds.low) / (self.bounds.high - self.bounds.low))

    @property
    def module(self) -> nn.Module:
        return self.net


@functools.cache
def data() -> tuple[Tensor, Tensor]:
    """All digits, (1797, 1, 8, 8) in [0, 1], and their labels."""
    digits = load_digits()
    return torch.tensor(digits.images[:, None] / 16, dtype=torch.float32), torch.tensor(digits.target)


@functools.cache
def module() -> nn.Module:
    """The trained net, in eval mode, with frozen parameters. Leaves torch's global generator as it was."""
    x, y = data()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
            nn.Flatten(), nn.Linear(512, 10),
        )  # fmt: skip
        optimizer = torch.optim.Adam(net.parameters(), 2e-3)
        for _ in range(8):
            for rows in torch.randperm(1200).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
                optimizer.step()
    net.zero_grad()
    return net.eval().requires_grad_(False)


def model(bounds: Bounds = Bounds(0.0, 1.0)) -> DigitsNet:  # noqa: B008 - an immutable value
    return DigitsNet(module(), bounds)


def right(n: int, bounds: Bounds = Bounds(0.0, 1.0)) -> tuple[Tensor, Tensor]:  # noqa: B008 - an immutable value
    """The first n held-out samples that the net classifies right, in these bounds, and their labels."""
    x, y = data()[0][1200:], data()[1][1200:]
    rows = (module()(x).argmax(1) == y).nonzero()[:n, 0]
    return x[rows] * (bounds.high - bounds.low) + bounds.low, y[rows]


def streams(n: int, start: int = 0, purpose: str = "test") -> SampleRandom:
    return SampleRandom.of(7, purpose, np.arange(start, start + n).tolist())
