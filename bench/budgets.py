"""An attack's budget, sample by sample: batch, order and neighbours change neither what it may spend nor what it finds.

A sample whose budget is used up gets the answer of its last pass again, without a gradient and without a pass. What the
attack makes of that does not count: for such a sample the best input that it has really asked about does.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.contracts import Budget, Classifier
from bench.errors import PluginError
from bench.metering import Metered, Passes, asking

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


class BudgetSpent(Exception):
    """No sample of the batch has anything left: the attack is stopped where it stands."""


class Purse:
    """What the samples of a batch may still spend, and the best input that each was asked about.

    x: (n, ...), the untouched inputs. lost: of scores (k, classes) and rows (k,), whether (k,) the attacker has won.
    within: of inputs (k, ...) and rows (k,), whether (k,) they are inside the threat model, and how far (k,) they are.
    minimal: the nearest win is the best, else the first. stochastic: a single pass says little, the last input counts.
    """

    def __init__(
        self,
        budget: Budget,
        x: Tensor,
        lost: Callable[[Tensor, Rows], Tensor],
        within: Callable[[Tensor, Rows], tuple[Mask, NDArray[np.float64]]],
        *,
        minimal: bool,
        stochastic: bool,
    ) -> None:
        n = len(x)
        self.budget, self._lost, self._within = budget, lost, within
        self._nearest, self._latest = minimal, stochastic and not minimal
        self._forwards, self._backwards = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        self._ends = None if budget.seconds is None else time.monotonic() + budget.seconds
        self._answers: Tensor | None = None  # (n, classes), of the last pass of each
        self._far = np.full(n, np.inf)
        self.best = x.clone()
        self.stopped: Mask = np.zeros(n, dtype=bool)

    def pay(self, owners: Rows) -> Mask:
        """Which of these inputs (k,) are paid for; a sample that cannot pay is stopped. owners: whose each is."""
        self._watch_the_clock()
        paid = ~self.stopped[owners]
        if self.budget.queries is not None:
            before = np.arange(len(owners)) if len(owners) and (owners == owners[0]).all() else np.zeros(len(owners))
            covered = self._forwards[owners] + before < self.budget.queries
            self.stopped[owners[~covered]] = True
            paid &= covered
        np.add.at(self._forwards, owners[paid], 1)
        return paid

    def pay_gradients(self, owners: Rows) -> Mask:
        """The same for the gradients at these inputs."""
        self._watch_the_clock()
        paid = ~self.stopped[owners]
        if self.budget.gradients is not None:
            covered = self._backwards[owners] < self.budget.gradients
            self.stopped[owners[~covered]] = True
            paid &= covered
        np.add.at(self._backwards, owners[paid], 1)
        return paid

    def check(self) -> None:
        """Raises BudgetSpent where every sample is stopped."""
        if self.stopped.all():
            raise BudgetSpent

    def answers(self, owners: Rows, like: Tensor, classes: int) -> Tensor:
        """(k, classes): what these samples were last told; zeros where that is nothing."""
        if self._answers is None:
            self._answers = torch.zeros(len(self.stopped), classes, device=like.device)
        return self._answers[torch.from_numpy(owners)]

    def learn(self, x: Tensor, scores: Tensor, owners: Rows) -> None:
        """Note what inputs (k, ...) were answered: scores (k, classes)."""
        self.answers(owners[:0], scores, scores.shape[1])
        assert self._answers is not None
        self._answers[torch.from_numpy(owners)] = scores.float()
        won = np.ones(len(owners), dtype=bool) if self._latest else self._lost(scores, owners).cpu().numpy()
        inputs = np.flatnonzero(won)
        if not len(inputs):
            return
        inside, far = self._within(x[torch.from_numpy(inputs)], owners[inputs])
        inputs, far = inputs[inside], far[inside]
        if not self._nearest:
            far = np.zeros_like(far)  # the first is as good as any
        for place, distance in zip(inputs, far, strict=True):
            if self._latest or distance < self._far[owners[place]]:
                self._far[owners[place]] = distance
                self.best[int(owners[place])] = x[int(place)].detach()

    def _watch_the_clock(self) -> None:
        if self._ends is not None and time.monotonic() > self._ends:
            self.stopped[:] = True


class Limited(Metered):
    """A metered classifier that answers as long as the purse pays. places: of its rows in the purse's batch.

    judges: whether it is the very model that the attack has to fool, so that its answers tell who has won.
    """

    def __init__(
        self, model: Classifier, passes: Passes, rows: Rows, purse: Purse, places: Rows, judges: bool = True
    ) -> None:
        super().__init__(model, passes, rows)
        self._purse, self._places, self._judges = purse, places, judges

    def rows(self, rows: Tensor) -> "Limited":
        chosen = rows.cpu().numpy()
        return Limited(self._model, self._passes, self._rows[chosen], self._purse, self._places[chosen], self._judges)

    def logits(self, x: Tensor) -> Tensor:
        owners, rows = self._whose(len(x))
        paid = self._purse.pay(owners)
        np.add.at(self._passes.forwards, rows[paid], 1)
        if not paid.any():
            self._purse.check()
        scores = self._model.logits(x) if paid.all() else self._partly(x, owners, paid)
        if self._judges:
            asked = torch.from_numpy(paid)
            self._purse.learn(x.detach()[asked], scores.detach()[asked], owners[paid])
        if scores.requires_grad:
            scores.register_hook(partial(self._charge, owners, rows, paid))
        return scores

    def suspicion(self, x: Tensor) -> Tensor | None:
        found = self._model.suspicion(x)
        if found is None:
            return None
        owners, rows = self._whose(len(x))
        paid = self._purse.pay(owners)
        np.add.at(self._passes.forwards, rows[paid], 1)
        found = torch.where(torch.from_numpy(paid).to(found.device), found, 0.0)
        if found.requires_grad:
            found.register_hook(partial(self._charge, owners, rows, paid))
        return found

    def features(self, x: Tensor, layer: str) -> Tensor:
        raise PluginError(
            "the attack reads features of the model, which no budget counts",
            "remove `budget:`, or take another attack",
        )

    def around(self, model: Classifier) -> "Limited":
        return Limited(model, self._passes, self._rows, self._purse, self._places, self._judges)

    def members(self) -> Sequence[Classifier]:
        return [
            Limited(member, self._passes, self._rows, self._purse, self._places, judges=False)
            for member in self._model.members()
        ]

    def _whose(self, count: int) -> tuple[Rows, Rows]:
        """Of each input the sample that it belongs to: its place in the purse, its row in the records."""
        if count == len(self._places):
            return self._places, self._rows
        if len(self._places) == 1:
            return self._places.repeat(count), self._rows.repeat(count)
        raise PluginError(
            f"the attack asks about {count} inputs of {len(self._places)} samples at once: whose budget pays?",
            "remove `budget:`, or take another attack",
        )

    def _partly(self, x: Tensor, owners: Rows, paid: Mask) -> Tensor:
        """Scores of what is paid; for the rest what was last said."""
        scores = self._purse.answers(owners, x, self.classes)
        if x.requires_grad:
            scores = scores + 0 * x.flatten(1).sum(1, keepdim=True)
        if paid.any():
            asked = torch.from_numpy(np.flatnonzero(paid)).to(x.device)
            scores = scores.index_put((asked,), self._model.logits(x[asked]).float())
        return scores

    def _charge(self, owners: Rows, rows: Rows, paid: Mask, gradient: Tensor) -> Tensor:
        asked = paid & asking(gradient)
        covered = np.zeros_like(paid)
        covered[asked] = self._purse.pay_gradients(owners[asked])
        np.add.at(self._passes.backwards, rows[covered], 1)
        self._purse.check()
        kept = torch.from_numpy(covered).to(gradient.device)
        return gradient * (kept[:, None] if gradient.ndim > 1 else kept)
