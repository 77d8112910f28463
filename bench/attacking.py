"""An attack on a block of samples, from the smallest epsilon to the largest: the engine judges what it returns."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.contracts import Attack, Budget, Classifier, Judging
from bench.examples import Keeper
from bench.joint import Joint
from bench.metering import Passes, Untouched
from bench.randomness import SampleRandom, seed_of
from bench.records import REFUSED
from bench.strikes import TOLERANCE, Indices, struck, verified
from bench.token_ids import gain


@dataclass
class Attacking:
    """An attack on a block of n samples under way, at k epsilons: what it has broken, how, and what that took."""

    attack: Attack
    epsilons: tuple[float, ...]
    purpose: str
    model: Classifier  # which judges
    seen: Classifier  # which the attack is crafted on
    asked: Classifier  # the same, or a faster copy of it
    x: Tensor
    labels: NDArray[np.int32]
    indices: Indices
    prediction: NDArray[np.int32]  # of the untouched inputs
    kept: NDArray[np.float64]  # (n, k): the smallest share of passes that kept the label, of a stochastic model
    targets: Tensor | None
    seed: int
    judging: Judging
    budget: Budget | None
    keeper: Keeper
    joint: Joint

    def __post_init__(self) -> None:
        n, wrong = len(self.indices), self.prediction != self.labels
        self.broken = np.repeat(wrong[:, None], len(self.epsilons), axis=1)
        self.distance = np.where(wrong, 0.0, np.nan)
        self.final = self.prediction.copy()
        self.escaped, self.stopped = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
        self.gains = np.full(n, np.nan)  # of texts
        self.passes = Passes.zero(n)

    def search(self) -> None:
        """A minimal attack is run once: what it breaks is broken at all epsilons from its distance on."""
        rows = np.flatnonzero(~np.isfinite(self.distance))
        if len(rows):
            lost, far = self._strike(rows, None, "minimal")
            self.distance[rows[lost]] = far[lost]
            self.broken[rows[lost]] = far[lost, None] <= np.asarray(self.epsilons) + TOLERANCE

    def walk(self, proved: NDArray[np.bool_] | None) -> None:
        """The epsilons upwards: what is broken at one is broken at all larger ones. proved (n, k): what is spared."""
        for column, epsilon in enumerate(self.epsilons):
            spared = False if proved is None else proved[:, column]
            rows = np.flatnonzero(~self.broken[:, column] & ~np.asarray(spared))
            if len(rows):
                lost, far = self._strike(rows, epsilon, f"{epsilon!r}")
                self.distance[rows[lost]] = far[lost]
                self.broken[rows[lost], column:] = True

    def _strike(
        self, rows: Indices, epsilon: float | None, stream: str
    ) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Attack these rows; returns which were broken, and at what distance."""
        attack, x, labels = self.attack, self.x[rows], self.labels[rows]
        random = SampleRandom.of(self.seed, f"{self.purpose}/{stream}", [int(index) for index in self.indices[rows]])
        y = torch.from_numpy(labels.astype(np.int64)).to(self.model.device)
        targets = None if self.targets is None else self.targets[rows]
        culprit = f"attack '{attack.name}'"
        with Untouched(self.model, culprit), Untouched(self.seen, culprit):
            moved, stopped = struck(
                attack, self.asked, self.passes, rows, x, y, epsilon, random,
                targets, self.budget, partial(self.joint.run, rows=rows),
            )  # fmt: skip
        self.stopped[rows] |= stopped
        verification = seed_of(self.seed, "verify", self.purpose, stream, *map(int, self.indices[rows[:1]]))
        inside, far, found, share = verified(
            self.model, attack.norm, x, moved, epsilon, labels, self.judging, verification
        )
        self.escaped[rows] |= ~inside
        if attack.tokens:
            self.gains[rows] = np.where(inside, gain(self.model, x, moved), self.gains[rows])
        reached = inside[:, None] & (far[:, None] <= np.asarray(self.epsilons) + TOLERANCE)
        self.kept[rows] = np.where(reached, np.minimum(self.kept[rows], share[:, None]), self.kept[rows])
        lost = inside & (found != labels) & (found != REFUSED)
        if targets is not None:
            lost &= found == targets.cpu().numpy()
        self.final[rows[lost]] = found[lost]
        self.joint.judge(moved, labels, rows, lost, inside, self.judging, verification)
        self.keeper.take(rows[lost], moved[torch.from_numpy(lost)])
        return lost, far

    def columns(self) -> dict[str, Any]:
        """What stands in the records, by column."""
        n = len(self.indices)
        return {
            "broken": list(self.broken),
            "distance": pa.array(self.distance, mask=~np.isfinite(self.distance)),
            "adversarial_prediction": self.final,
            "escaped": self.escaped,
            "gain": pa.array(self.gains, mask=np.isnan(self.gains)),
            "stopped": [None] * n if self.budget is None else list(self.stopped),
            "forwards": self.passes.forwards,
            "backwards": self.passes.backwards,
            "kept": list(self.kept) if self.model.stochastic else [None] * n,
            **self.joint.columns(),
        }
