"""95 % intervals: what the number of samples allows to say."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CONFIDENCE = 0.95
Z = float(stats.norm.ppf((1 + CONFIDENCE) / 2))


def wilson(k: int, n: int) -> tuple[float, float]:
    """Wilson's score interval for a share of k among n, in [0, 1]; (0, 1) for n = 0, where nothing is known.

    Raises ValueError unless 0 <= k <= n. Source: Wilson 1927; recommended for shares by Brown, Cai and DasGupta 2001,
    since it holds its level near 0 and 1, where robust accuracies often lie.
    """
    if not 0 <= k <= n:
        raise ValueError(f"a share needs 0 <= k <= n, got k={k}, n={n}")
    if n == 0:
        return 0.0, 1.0
    share = k / n
    centre = share + Z**2 / (2 * n)
    spread = Z * np.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    scale = 1 + Z**2 / n
    low = 0.0 if k == 0 else float(centre - spread) / scale  # exact at the ends, where rounding would leave 1e-17
    high = 1.0 if k == n else float(centre + spread) / scale
    return low, high


def median(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """The median and its order-statistic interval: (median, low, high); any of them may be inf, or NaN where unknown.

    values: (n,), may hold inf, no NaN. The interval assumes no distribution (exact binomial test of the quantile);
    NaN where too few values allow none. Raises ValueError for no values.
    """
    if not len(values):
        raise ValueError("no median of no values")
    interval = stats.quantile_test(values, q=0.0, p=0.5).confidence_interval(CONFIDENCE)
    return float(np.median(values)), float(interval.low), float(interval.high)


def mean(values: NDArray[np.float64]) -> tuple[float, float | None, float | None]:
    """The mean of (n,) values, n > 0, and its Student interval; no interval for a single value or no spread."""
    centre = float(values.mean())
    error = float(stats.sem(values)) if len(values) > 1 else 0.0
    if error == 0:
        return centre, None, None
    spread = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error
    return centre, centre - spread, centre + spread


def bootstrap(
    figures: Callable[[NDArray[np.int64]], Sequence[float]], n: int, repeats: int = 200, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The percentile intervals of k figures of n samples (Efron 1979): lows and highs, (k,) each.

    figures: takes the indices (n,) of a draw with replacement, returns the k figures of those. The draws are the same
    in each call: two figures of the same samples can be compared.
    """
    random = np.random.default_rng(seed)
    drawn = np.array([figures(random.integers(0, n, n)) for _ in range(repeats)])
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    return low, high
