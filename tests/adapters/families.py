"""What the tests of the model families share: the digits, a trained net, and reports that watch or interrupt."""

import functools

import numpy as np
import torch

from adapters.cnn import Cnn
from bench import plugins
from bench.contracts import Adapter, DatasetChoice, Report, Samples, datasets

plugins.load_built_in()
DIGITS = {"dataset": "digits", "split": "train"}
SMALL = {
    "data": DIGITS,
    "channels": [6, 10],
    "hidden": [24],
    "train": {"epochs": 6, "batch_size": 64, "learning_rate": 0.01},
}
MODEL = {"adapter": "cnn", "args": SMALL}


class Quiet(Report):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []
        self.figures: list[dict[str, float]] = []

    def step(self, done: int, total: int, **figures: float) -> None:
        assert 0 <= done <= total
        self.steps.append((done, total))
        if figures:
            self.figures.append(figures)


class KilledError(Exception):
    pass


class Killed(Quiet):
    """Keeps checkpoints, and dies at one of them; the next attempt may go on."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after
        self.kept: bytes | None = None

    def saved(self) -> bytes | None:
        return self.kept

    def save(self, state: bytes) -> None:
        self.kept = state
        self.left -= 1
        if self.left == 0:
            raise KilledError


@functools.cache
def digits(split: str = "train") -> Samples:
    return datasets.build("digits", {"split": split}).load()


def trained(adapter: Adapter, parent: bytes | None = None, seed: int = 0, report: Report | None = None) -> bytes:
    training = adapter.training()
    assert training is not None
    assert training.data == DatasetChoice(**DIGITS)
    return training.train(digits(), parent, seed, report or Quiet())


@functools.cache
def small_cnn() -> bytes:
    """The weights of `Cnn(**SMALL)`."""
    return trained(Cnn(**SMALL))


def accuracy(adapter: Adapter, weights: bytes) -> float:
    """On the 450 held-out digits."""
    test = digits("test")
    with torch.no_grad():
        predicted = adapter.build(weights).logits(test.fetch(np.arange(len(test)))).argmax(1)
    return float((predicted.numpy() == test.labels).mean())


def resumed(adapter: Adapter, parent: bytes | None, after: int) -> bytes:
    """The weights of a training that was killed at its checkpoint number `after`, and then went on."""
    report = Killed(after)
    try:
        trained(adapter, parent, report=report)
    except KilledError:
        return trained(adapter, parent, report=report)
    raise AssertionError(f"the training ended before its checkpoint number {after}")
