"""Pointwise early stopping: Geifman, Uziel and El-Yaniv 2019, Bias-Reduced Uncertainty Estimation, section 5.1."""

from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from bench.contracts import Classifier, Samples, detector
from bench.detectors._features import Rows, blocks
from bench.detectors._fitted import Arrays, Fitted
from bench.detectors._members import confidences
from bench.errors import PluginError

Floats = NDArray[np.float64]


@detector("pes")
class PointwiseEarlyStopping(Fitted):
    """Minus the confidence of that snapshot of a training which orders inputs as sure as this one best.

    The fitted samples are peeled off in layers of `q`, the least confident (by the final model) first. Each layer gets
    the snapshot whose confidences have the least excess AURC on it. An input belongs to the first layer whose most
    confident sample is not less confident than it; its confidence is the number of its layer and, within it,
    that of the layer's snapshot for the class that the final model predicts. So layers never mix.

    Fit it on labelled samples that the model was not trained on. Too many snapshots for few samples overfit them.
    """

    q: Annotated[int, Field(ge=2, description="samples of a layer")] = 200

    def learn(self, model: Classifier, samples: Samples, rows: Rows) -> Arrays:
        found, wrong = [], []
        labels = np.split(samples.labels[rows], range(self.fit_batch, len(rows), self.fit_batch))
        with torch.no_grad():
            for x, label in zip(blocks(model, samples, rows, self.fit_batch), labels, strict=True):
                found.append(confidences(model, x, self.name).cpu().numpy())
                wrong.append(model.logits(x).argmax(dim=1).cpu().numpy() != label)
        sure, errors = np.concatenate(found), np.concatenate(wrong)
        if len(sure) < self.q:
            raise PluginError(f"detector 'pes': {len(sure)} samples are less than one layer of {self.q}", "lower `q`")
        order = np.argsort(sure[:, -1], kind="stable")
        layers = np.array_split(order, len(order) // self.q)
        count = range(sure.shape[1])
        best = [int(np.argmin([aurc(-sure[layer, k], errors[layer]) for k in count])) for layer in layers]
        ends = [sure[layer, -1].max() for layer in layers]
        return {"snapshots": np.array(best, dtype=np.float64), "ends": np.array(ends, dtype=np.float64)}

    def distances(self, model: Classifier, x: Tensor) -> Floats:
        with torch.no_grad():
            sure = confidences(model, x, self.name).cpu().numpy()
        ends, snapshots = self.known("ends"), self.known("snapshots").astype(int)
        layer = np.minimum(np.searchsorted(ends, sure[:, -1], side="left"), len(ends) - 1)
        chosen = sure[np.arange(len(sure)), snapshots[layer]]
        return np.asarray(-(layer + chosen))[:, np.newaxis]


def aurc(doubt: Floats, wrong: NDArray[np.bool_]) -> float:
    """Area under the risk-coverage curve, ties by expectation. The excess over the optimum differs by a constant of the
    layer, since all snapshots are asked about the same answers."""
    _, group, sizes = np.unique(doubt, return_inverse=True, return_counts=True)
    expected = np.repeat(np.bincount(group, weights=wrong) / sizes, sizes)
    return float((np.cumsum(expected) / np.arange(1, len(doubt) + 1)).mean())
