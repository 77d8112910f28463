"""ODIN, Outlier Detection In Neural networks: distances to a linear model of a hidden layer's activations."""

from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from bench.contracts import Classifier, Samples, detector
from bench.detectors._features import Rows, activations, blocks, features, moments
from bench.detectors._fitted import Arrays, Fitted
from bench.detectors._neighbours import densities, outlier_factor
from bench.errors import PluginError

Score = Literal["rss", "mahalanobis", "lof"]
Floats = NDArray[np.float64]


@detector("odin_pca")
class OdinPca(Fitted):
    """Distances in, and to, the principal subspace of a layer's activations.

    The subspace: the fewest principal components whose explained variance exceeds `r2`. Scores: `rss`, the squared
    distance to it, ‖(a−μ) − PPᵀ(a−μ)‖²; `mahalanobis` within it, sqrt(Σ tⱼ²/λⱼ); `lof`, the local outlier factor of t
    among the fitted samples. Several scores are combined by their flags: `or` flags what any of them flags, `and` what
    all do. The combined score is then the largest (smallest) of the scores in units of their own thresholds.

    Not the ODIN of Liang et al., which is `odin_liang`. The covariance is streamed, so that the activations need not
    fit in memory; `lof` keeps the projections of all fitted samples.
    """

    scores: Annotated[tuple[Score, ...], Field(min_length=1, max_length=3)] = ("rss",)
    combine: Literal["or", "and"] = "or"
    r2: Annotated[float, Field(gt=0, lt=1)] = 0.99
    layer: str | None = None  # None: what enters the last linear layer
    pool: bool = False
    neighbours: Annotated[int, Field(gt=0)] = 20

    def learn(self, model: Classifier, samples: Samples, rows: Rows) -> Arrays:
        found = moments(model, samples, rows, self.fit_batch, self.layer, self.pool)
        assert found.scatter is not None
        assert found.mean is not None
        values, vectors = torch.linalg.eigh(found.scatter / (found.count - 1))
        values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
        k = rank(values.numpy(), self.r2)
        arrays = {
            "mean": found.mean.numpy(),
            "components": vectors[:, :k].T.contiguous().numpy(),
            "variances": values[:k].numpy(),
        }
        if "rss" in self.scores and len(values) - k < 2 * k:  # fewer directions outside the subspace: a shorter sum
            arrays["outside"] = vectors[:, k:].T.contiguous().numpy()
        if "lof" in self.scores:
            ready = self._knowing(arrays)
            inside = [ready.project(self._of(model, x))[1] for x in blocks(model, samples, rows, self.fit_batch)]
            points = np.concatenate(inside).astype(np.float32).astype(np.float64)
            reach, density = densities(points, self.neighbours)
            arrays |= {"points": points.astype(np.float32), "reach": reach, "density": density}
        return arrays

    def project(self, activations: Floats) -> tuple[Floats, Floats]:
        """Centred activations (n, m), and their coordinates in the subspace (n, k)."""
        centred = activations - self.known("mean")
        return centred, centred @ self.known("components").T

    def distances(self, model: Classifier, x: Tensor) -> Floats:
        return self._distances(self._of(model, x), themselves=False)

    def differentiable(self, model: Classifier, x: Tensor) -> Tensor | None:
        """None with `lof`, whose neighbours change from point to point."""
        if "lof" in self.scores:
            return None
        found = activations(model, x, self.layer, self.pool)
        centred = found - self.tensor("mean", found)
        t = centred @ self.tensor("components", found).T
        made = {
            "rss": lambda: (centred - t @ self.tensor("components", found)).square().sum(dim=1),
            "mahalanobis": lambda: (t.square() / self.tensor("variances", found)).sum(dim=1).sqrt(),
        }
        parts = torch.stack([made[score]() for score in self.scores], dim=1)
        if len(self.scores) == 1:
            return parts[:, 0]
        ratios = parts / self.tensor("thresholds", found)
        return ratios.amax(dim=1) if self.combine == "or" else ratios.amin(dim=1)

    def own_distances(self, model: Classifier, samples: Samples, rows: Rows) -> Floats:
        every = [self._of(model, x) for x in blocks(model, samples, rows, self.fit_batch)]
        if "lof" in self.scores:
            return self._distances(np.concatenate(every), themselves=True)
        return np.concatenate([self._distances(block, themselves=True) for block in every])

    def combined(self, distances: Floats) -> Floats:
        if len(self.scores) == 1:
            return distances[:, 0]
        ratios = distances / self.known("thresholds")
        return np.asarray(ratios.max(axis=1) if self.combine == "or" else ratios.min(axis=1))

    @property
    def threshold(self) -> float | None:
        return super().threshold if len(self.scores) == 1 or "thresholds" not in self._arrays else 1.0

    def _of(self, model: Classifier, x: Tensor) -> Floats:
        return features(model, x, self.layer, self.pool).numpy()

    def _residual(self, centred: Floats, t: Floats) -> Floats:
        """What the subspace leaves of each row, in the activations' own coordinates or in those outside it."""
        if "outside" in self._arrays:
            return centred @ self.known("outside").T
        return centred - t @ self.known("components")

    def _distances(self, activations: Floats, *, themselves: bool) -> Floats:
        centred, t = self.project(activations)
        columns = []
        for score in self.scores:
            if score == "rss":
                columns.append((self._residual(centred, t) ** 2).sum(axis=1))
            elif score == "mahalanobis":
                columns.append(np.sqrt((t**2 / self.known("variances")).sum(axis=1)))
            else:
                points = self.known("points").astype(np.float64)
                queries = None if themselves else t.astype(np.float32).astype(np.float64)
                factor = outlier_factor(points, self.known("reach"), self.known("density"), queries, self.neighbours)
                columns.append(factor)
        return np.stack(columns, axis=1)


def rank(variances: Floats, r2: float) -> int:
    """The smallest k whose explained variance exceeds r2, among components that have any variance to speak of.

    variances: (m,), descending. Raises PluginError where none has.
    """
    real = int((variances > 1e-12 * variances[0]).sum()) if variances[0] > 0 else 0
    if not real:
        raise PluginError("the activations do not vary", "choose another layer")
    share = np.cumsum(variances) / variances.sum()
    return min(int(np.searchsorted(share, r2, side="right")) + 1, real)
