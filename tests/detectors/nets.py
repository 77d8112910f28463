"""A small net with dropout, and inputs in two classes: everything a detector needs, in milliseconds."""

import numpy as np
import torch
from torch import Tensor, nn

from adapters.torch_classifier import TorchClassifier
from bench.contracts import Bounds, Report, Samples
from bench.randomness import SampleRandom

SHAPE = (1, 6, 6)


class Small(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.relu = nn.ReLU()
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(dropout)
        self.hidden = nn.Linear(64, 12)
        self.act = nn.Tanh()
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.norm(self.relu(self.conv(x))))
        return self.head(self.act(self.hidden(x.flatten(1))))


class Grown(TorchClassifier):
    """Has two earlier selves: other random weights."""

    def members(self) -> list[TorchClassifier]:
        return [*(_one(self.module.drop.p, seed) for seed in (1, 2)), self]


def _one(dropout: float, seed: int, kind: type[TorchClassifier] = TorchClassifier) -> TorchClassifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Small(dropout)
    return kind(net, input_shape=SHAPE, classes=3, feature_layers=("norm", "act"))


def model(dropout: float = 0.3) -> TorchClassifier:
    return _one(dropout, 0, Grown)


def inputs(n: int, seed: int = 0) -> Tensor:
    """(n, 1, 6, 6) in [0, 1]"""
    return torch.from_numpy(np.random.default_rng(seed).random((n, *SHAPE), dtype=np.float32))


def samples(n: int = 120, seed: int = 0) -> Samples:
    x = inputs(n, seed)
    labels = np.random.default_rng(seed).integers(0, 3, n)
    return Samples(
        labels, lambda rows: x[torch.from_numpy(rows)], SHAPE, Bounds(0, 1), ("a", "b", "c"), f"small-{seed}"
    )


def streams(n: int, start: int = 0) -> SampleRandom:
    return SampleRandom.of(0, "test", list(range(start, start + n)))


def features(x: Tensor, layer: str = "act") -> np.ndarray:
    with torch.no_grad():
        return model().features(x, layer).flatten(1).double().numpy()


def logits(x: Tensor) -> np.ndarray:
    with torch.no_grad():
        return model().logits(x).double().numpy()


class Quiet(Report):
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []

    def step(self, done: int, total: int, **figures: float) -> None:
        self.steps.append((done, total))
