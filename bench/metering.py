"""The classifier as an attack gets it: the same scores, with every pass charged to the samples that caused it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.contracts import Classifier, Judging, Wrapped
from bench.errors import PluginError
from bench.records import REFUSED


@dataclass
class Passes:
    """Forward and backward passes per sample of a batch, (n,) float64.

    Fractions occur only where an attack feeds a number of inputs that is no multiple of its rows: they are then
    shared evenly.
    """

    forwards: NDArray[np.float64]
    backwards: NDArray[np.float64]

    @classmethod
    def zero(cls, n: int) -> Passes:
        return cls(np.zeros(n), np.zeros(n))


class Metered(Wrapped):
    """Charges the passes of `model` to `rows` (positions in the batch that `passes` counts)."""

    def __init__(self, model: Classifier, passes: Passes, rows: NDArray[np.int64]) -> None:
        super().__init__(model)
        self._passes = passes
        self._rows = rows

    def around(self, model: Classifier) -> Metered:
        return Metered(model, self._passes, self._rows)

    def rows(self, rows: Tensor) -> Metered:
        return Metered(self._model, self._passes, self._rows[rows.cpu().numpy()])

    def logits(self, x: Tensor) -> Tensor:
        share = len(x) / len(self._rows) if len(self._rows) else 0.0
        self._passes.forwards[self._rows] += share
        scores = self._model.logits(x)
        if scores.requires_grad:
            scores.register_hook(partial(self._charge_backward, share))
        return scores

    def features(self, x: Tensor, layer: str) -> Tensor:
        self._passes.forwards[self._rows] += len(x) / max(1, len(self._rows))
        return self._model.features(x, layer)

    def suspicion(self, x: Tensor) -> Tensor | None:
        found = self._model.suspicion(x)
        if found is not None:
            share = len(x) / max(1, len(self._rows))
            self._passes.forwards[self._rows] += share
            if found.requires_grad:
                found.register_hook(partial(self._charge_backward, share))
        return found

    def _charge_backward(self, share: float, gradient: Tensor) -> None:
        """To the rows that asked, where there is a gradient for each; else to all of them."""
        rows = self._rows[asking(gradient)] if len(gradient) == len(self._rows) else self._rows
        self._passes.backwards[rows] += share


def asking(gradient: Tensor) -> NDArray[np.bool_]:
    """Which samples (n,) a backward pass is for: one whose scores, (n, ...), get no gradient has asked for none.

    So what a sample is charged does not depend on whether its neighbours still stand.
    """
    rows = gradient.flatten(1) if gradient.ndim > 1 else gradient[:, None]
    found: NDArray[np.bool_] = rows.any(1).cpu().numpy()
    return found


class Untouched:
    """Asserts that nobody changed a model: compares version counters, storage and modes before and after.

    Cheap enough for every task: nothing is read from the tensors.
    """

    def __init__(self, model: Classifier, culprit: str) -> None:
        self._module = model.module
        self._culprit = culprit

    def __enter__(self) -> None:
        self._before = self._state()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and (after := self._state()) != self._before:
            changed = sorted({name for name, *_ in self._before ^ after})
            raise PluginError(
                f"{self._culprit} changed the model while it ran: {', '.join(changed[:5])}",
                "parameters, buffers and modes have to stay as they are: work on a copy. Or is it the model that "
                "changes itself, as BatchNorm in training mode does? `gauntlet check-adapter` tells",
            )

    def _state(self) -> frozenset[tuple[str, int, int, bool]]:
        if self._module is None:
            return frozenset()
        tensors = [*self._module.named_parameters(), *self._module.named_buffers()]
        # version counters of inference tensors cannot be read; they cannot be changed outside inference mode either
        found = {(name, t.data_ptr(), 0 if t.is_inference() else t._version, t.requires_grad) for name, t in tensors}
        found |= {(f"{name or 'model'}.training", 0, 0, part.training) for name, part in self._module.named_modules()}
        return frozenset(found)


def judged(
    model: Classifier, x: Tensor, labels: NDArray[np.int32], judging: Judging, seed: int
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """The answer to each input, and the share of the passes that gave its label, (n,) each.

    One pass for a deterministic model. For a stochastic one the label is the answer where `judging.majority` of its
    passes gave it, else what most of the others gave. seed: of the noise that the model draws from torch's generator.
    """
    torch.manual_seed(seed)
    with torch.no_grad():
        passes = judging.passes if model.stochastic else 1
        found = np.stack([answers(model, x, model.logits(x).float()) for _ in range(passes)])
    kept = np.asarray((found == labels).mean(axis=0), dtype=np.float64)
    answer = labels.astype(np.int32)
    for row in np.flatnonzero(kept < judging.majority):
        others, counts = np.unique(found[found[:, row] != labels[row], row], return_counts=True)
        answer[row] = others[counts.argmax()]
    return answer, kept


def answers(model: Classifier, x: Tensor, scores: Tensor) -> NDArray[np.int32]:
    """`predictions`, or REFUSED where the model declines to answer. scores: its logits for x."""
    found = predictions(scores)
    if model.can_refuse:
        found[model.refuses(x).cpu().numpy()] = REFUSED
    return found


def predictions(scores: Tensor) -> NDArray[np.int32]:
    """Class of the largest score, (n,) int32; -1 where a row holds a NaN: a model that says nothing is never right."""
    found = scores.argmax(dim=1)
    found[torch.isnan(scores).any(dim=1)] = -1
    return found.cpu().numpy().astype(np.int32)
