"""Attacks that leave a sample alone as soon as it is broken, and know which of theirs are."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from bench.contracts import Attack, Classifier
from bench.errors import PluginError
from bench.randomness import SampleRandom


class StandingAttack(Attack):
    """An attack inside a ball that reports its own successes, so that another can go on with what still stands."""

    swift: ClassVar[bool] = True

    @abstractmethod
    def strike(
        self, model: Classifier, x: Tensor, y: Tensor, epsilon: float, random: SampleRandom
    ) -> tuple[Tensor, Tensor]:
        """Moved inputs of the shape of x, and (n,) bool: those whose label a pass of this very input saw lost.

        What is not broken comes back as it was. Arguments as in Attack.run; n is at least 1.
        """

    def run(self, model: Classifier, x: Tensor, y: Tensor, epsilon: float | None, random: SampleRandom) -> Tensor:
        """See Attack.run. Returns the first broken input found for each sample, else the sample itself."""
        assert epsilon is not None
        if len(x) == 0:
            return x
        return self.strike(model, x, y, epsilon, random)[0]


class Board:
    """Which samples of a batch (n, ...) still stand, and what broke the others."""

    def __init__(self, x: Tensor) -> None:
        self.moved = x.clone()
        self.broken = torch.zeros(len(x), dtype=torch.bool, device=x.device)

    @property
    def standing(self) -> Tensor:
        """(k,) int64: rows of what stands."""
        return torch.nonzero(~self.broken)[:, 0]

    def take(self, rows: Tensor, moved: Tensor, broken: Tensor) -> None:
        """Enter what broke: rows (k,), moved (k, ...), broken (k,) bool."""
        self.moved[rows[broken]] = moved[broken]
        self.broken[rows[broken]] = True

    def rounds(self, count: int) -> Iterator[tuple[int, Tensor]]:
        """(number, rows that stand) for each of `count` rounds, until nothing stands."""
        for number in range(count):
            rows = self.standing
            if len(rows) == 0:
                return
            yield number, rows


def need_classes(attack: str, model: Classifier, least: int, instead: str) -> None:
    """Raises PluginError where the model has fewer classes than the attack's loss compares."""
    if model.classes < least:
        raise PluginError(
            f"attack '{attack}' compares {least} logits, and this model has {model.classes} classes", f"use {instead}"
        )


def lost(logits: Tensor, y: Tensor) -> Tensor:
    """(n,) bool: the label is not the prediction. NaN scores say nothing, so that they are not right."""
    return (logits.argmax(1) != y) | logits.isnan().any(1)


def ranking(model: Classifier, x: Tensor) -> Tensor:
    """(n, classes) int64: the classes of each row of x, largest logit first."""
    with torch.no_grad():
        return model.logits(x).argsort(dim=1, descending=True)
