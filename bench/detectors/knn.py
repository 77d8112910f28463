"""Deep nearest neighbours: Sun et al. 2022, Out-of-Distribution Detection with Deep Nearest Neighbors, section 3."""

from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from bench.contracts import Classifier, Samples, detector
from bench.detectors._features import Rows, activations, blocks, features
from bench.detectors._fitted import Arrays, Fitted
from bench.detectors._neighbours import nearest


@detector("knn")
class NearestNeighbours(Fitted):
    """Euclidean distance to the k-th nearest training sample, of features scaled to length 1."""

    k: Annotated[int, Field(gt=0)] = 50
    layer: str | None = None  # None: what enters the last linear layer
    pool: bool = False

    def learn(self, model: Classifier, samples: Samples, rows: Rows) -> Arrays:
        points = np.concatenate([self._of(model, x) for x in blocks(model, samples, rows, self.fit_batch)])
        return {"points": points.astype(np.float32)}

    def distances(self, model: Classifier, x: Tensor) -> NDArray[np.float64]:
        return self._kth(self._of(model, x))

    def own_distances(self, model: Classifier, samples: Samples, rows: Rows) -> NDArray[np.float64]:
        return self._kth(None)

    def differentiable(self, model: Classifier, x: Tensor) -> Tensor:
        found = activations(model, x, self.layer, self.pool)
        scaled = found / found.norm(dim=1, keepdim=True).clamp(min=1e-12)
        return torch.cdist(scaled, self.tensor("points", found)).kthvalue(self.k, dim=1).values

    def _kth(self, queries: NDArray[np.float64] | None) -> NDArray[np.float64]:
        found, _ = nearest(self.known("points").astype(np.float64), queries, self.k)
        return found[:, -1:]

    def _of(self, model: Classifier, x: Tensor) -> NDArray[np.float64]:
        found = features(model, x, self.layer, self.pool).numpy()
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        return np.asarray(found / np.maximum(lengths, 1e-12))
