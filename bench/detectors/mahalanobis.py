"""Mahalanobis distance to the nearest class: Lee et al. 2018, equations 1 and 2."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.contracts import Classifier, Samples, detector
from bench.detectors._features import Moments, Rows, activations, blocks, features
from bench.detectors._fitted import Arrays, Fitted
from bench.errors import PluginError


@detector("mahalanobis")
class Mahalanobis(Fitted):
    """Squared distance to the nearest class mean, in the covariance within classes.

    The variant: one layer, the covariance tied over classes (divided by n) and pseudo-inverted; without the authors'
    input perturbation and without their regression over layers, which is tuned on outliers.
    """

    layer: str | None = None  # None: what enters the last linear layer
    pool: bool = False

    def learn(self, model: Classifier, samples: Samples, rows: Rows) -> Arrays:
        by_class: list[Moments] = []
        labels = samples.labels[rows]
        for label in np.unique(labels):
            found = Moments()
            for x in blocks(model, samples, rows[labels == label], self.fit_batch):
                found.add(features(model, x, self.layer, self.pool))
            by_class.append(found)
        scatters = [found.scatter for found in by_class if found.scatter is not None]
        within = torch.stack(scatters).sum(dim=0) / len(rows)
        if not float(within.diagonal().sum()) > 0:
            raise PluginError("the features do not vary within classes", "fit on more data, or choose another layer")
        means = torch.stack([found.mean for found in by_class if found.mean is not None])
        return {"means": means.numpy(), "precision": torch.linalg.pinv(within, hermitian=True).numpy()}

    def differentiable(self, model: Classifier, x: Tensor) -> Tensor:
        found = activations(model, x, self.layer, self.pool)
        gaps = found[:, None] - self.tensor("means", found)
        return ((gaps @ self.tensor("precision", found)) * gaps).sum(dim=2).amin(dim=1)

    def distances(self, model: Classifier, x: Tensor) -> NDArray[np.float64]:
        found = features(model, x, self.layer, self.pool).numpy()
        off = [found - mean for mean in self.known("means")]
        squares = np.stack([((gap @ self.known("precision")) * gap).sum(axis=1) for gap in off], axis=1)
        return np.asarray(squares.min(axis=1, keepdims=True))
