"""Nearest neighbours and the local outlier factor, from arrays that can be stored."""

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from bench.errors import PluginError

Floats = NDArray[np.float64]
_TINY = 1e-10  # scikit-learn's: duplicates have no distance at all


def nearest(points: Floats, queries: Floats | None, k: int) -> tuple[Floats, NDArray[np.int64]]:
    """Euclidean distances, ascending, and indices of the k nearest points: two (n, k).

    points: (m, d); queries: (n, d), or None for the points themselves, none its own neighbour. Raises PluginError for
    fewer than k points.
    """
    room = len(points) - (queries is None)
    if room < k:
        raise PluginError(f"{k} neighbours were asked for, among {room} samples", "fit on more data, or ask for fewer")
    search = NearestNeighbors(n_neighbors=k, algorithm="brute", n_jobs=1).fit(points)
    distances, indices = search.kneighbors(queries)
    return distances.astype(np.float64), indices


def densities(points: Floats, k: int) -> tuple[Floats, Floats]:
    """Of each point its k-distance and its local reachability density, two (m,). Breunig et al. 2000, definition 6."""
    distances, indices = nearest(points, None, k)
    reach = distances[:, -1]
    return reach, _density(distances, reach[indices])


def outlier_factor(points: Floats, reach: Floats, density: Floats, queries: Floats | None, k: int) -> Floats:
    """Local outlier factor (n,): about 1 inside, larger outside. Breunig et al. 2000, definition 7.

    reach, density: of `densities`. Equal to -score_samples of scikit-learn's LocalOutlierFactor(novelty=True), and for
    queries None to its -negative_outlier_factor_.
    """
    distances, indices = nearest(points, queries, k)
    own = _density(distances, reach[indices])
    return np.asarray(density[indices].mean(axis=1) / own)


def _density(distances: Floats, reach: Floats) -> Floats:
    return np.asarray(1 / (np.maximum(distances, reach).mean(axis=1) + _TINY))
