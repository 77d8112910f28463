"""Whether two models differ, judged on the same samples: pure functions of paired observations.

Every p is two-sided, in [0, 1]; the null hypothesis is that both models have the same figure.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bench.metrics.intervals import Z

Array = NDArray[np.float64]
DRAWS = 2000  # of the bootstrap
BATCH = 100_000  # samples of draws that are held at once


@dataclass(frozen=True)
class Difference:
    """Second minus first, in units of the figure, with its 95 % interval, and p.

    n: samples that both have, or None where the two were not paired. test: "mcnemar", "bootstrap", "delong",
    "intervals" (two independent figures), "exact" (figures without chance: p is 0 or 1) or "untested" (p is 1).
    """

    value: float
    low: float | None
    high: float | None
    p: float
    test: str
    n: int | None = None


def mcnemar(only_first: NDArray[np.int64], only_second: NDArray[np.int64]) -> Array:
    """Two-sided mid-p of McNemar's test, from how many samples only the first, or only the second, has right.

    Any equal shapes, whole numbers >= 0; 1 where the two never disagree. mid-p = 2 P(X < k) + P(X = k) for the smaller
    count k and X ~ Bin(b + c, 1/2). Fagerland, Lydersen and Laake 2013, section "McNemar mid-p test": it keeps its
    level where the exact test is needlessly shy.
    """
    fewer, both = np.minimum(only_first, only_second), only_first + only_second
    mid_p = 2 * stats.binom.cdf(fewer - 1, both, 0.5) + stats.binom.pmf(fewer, both, 0.5)
    return np.minimum(np.where(both == 0, 1.0, mid_p), 1.0)


def shares(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Difference:
    """Difference of two shares over the same (n,) samples; n > 0.

    p is McNemar's mid-p. The interval is that of Agresti and Min 2005 (½ added to each cell of the table).
    """
    n = len(first)
    b, c = int((first & ~second).sum()), int((~first & second).sum())
    centre = (c - b) / (n + 2)
    spread = Z * float(np.sqrt(max(0.0, b + c + 1 - (c - b) ** 2 / (n + 2)))) / (n + 2)
    p = float(mcnemar(np.array(b), np.array(c)))
    return Difference((c - b) / n, max(-1.0, centre - spread), min(1.0, centre + spread), p, "mcnemar", n)


def ratios(first: tuple[Array, Array], second: tuple[Array, Array], seed: int = 0) -> Difference:
    """Difference of two ratios of sums, sum(top) / sum(below), over the same (n,) samples: paired bootstrap.

    Each draw takes n samples with replacement, the same ones for both models (Efron and Tibshirani 1993, chapter 8).
    Raises ValueError where a sum below is 0.
    """
    n = len(first[0])
    if not first[1].sum() or not second[1].sum():
        raise ValueError("a ratio over nothing: no sample counts for one of the two")
    columns = np.stack([*first, *second], axis=1)
    random = np.random.default_rng(seed)
    sums = np.stack([columns[random.integers(0, n, n)].sum(axis=0) for _ in range(DRAWS)])
    sums = sums[(sums[:, 1] > 0) & (sums[:, 3] > 0)]
    value = second[0].sum() / second[1].sum() - first[0].sum() / first[1].sum()
    return _bootstrapped(float(value), sums[:, 2] / sums[:, 3] - sums[:, 0] / sums[:, 1], n)


def medians(first: Array, second: Array, seed: int = 0) -> Difference:
    """Difference of two medians over the same (n,) samples: paired bootstrap. Values may be inf, the medians not.

    Raises ValueError for an infinite median.
    """
    value = float(np.median(second)) - float(np.median(first))
    if not np.isfinite(value):
        raise ValueError("a median is infinite")
    random, n = np.random.default_rng(seed), len(first)
    draws, rows = np.empty(DRAWS), max(1, BATCH // n)
    with np.errstate(invalid="ignore"):  # inf - inf: neither is larger
        for start in range(0, DRAWS, rows):
            taken = random.integers(0, n, (min(rows, DRAWS - start), n))
            draws[start : start + rows] = np.median(second[taken], axis=1) - np.median(first[taken], axis=1)
    return _bootstrapped(value, np.nan_to_num(draws, nan=0.0, posinf=np.inf, neginf=-np.inf), n)


def _bootstrapped(value: float, draws: Array, n: int) -> Difference:
    """Percentile interval; p from the standard error of the draws, or from their signs where that is not finite.

    The standard error gives p below 1 / DRAWS, which a correction for many comparisons needs.
    """
    low, high = (float(end) for end in np.quantile(draws, [0.025, 0.975], method="inverted_cdf"))
    error = float(draws.std(ddof=1)) if np.isfinite(draws).all() else np.inf
    if 0 < error < np.inf:
        p = 2 * float(stats.norm.sf(abs(value) / error))
    else:
        tail = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
        p = min(1.0, 2 * (tail + 1) / (len(draws) + 1))
    ends = [end if np.isfinite(end) else None for end in (low, high)]
    return Difference(value, ends[0], ends[1], p, "bootstrap", n)


def aurocs(first: Array, second: Array, outlying: NDArray[np.bool_]) -> Difference:
    """Difference of two AUROCs over the same (n,) samples. DeLong et al. 1988, by the mid-ranks of Sun and Xu 2014.

    Raises ValueError unless each side has two samples.
    """
    n, m = int((~outlying).sum()), int(outlying.sum())
    if min(n, m) < 2:
        raise ValueError(f"needs two samples of each side, got {n} inliers and {m} outliers")
    above, below = np.empty((2, m)), np.empty((2, n))
    for row, scores in enumerate((first, second)):
        ranks = stats.rankdata(np.concatenate([scores[~outlying], scores[outlying]]))
        above[row] = (ranks[n:] - stats.rankdata(scores[outlying])) / n
        below[row] = 1 - (ranks[:n] - stats.rankdata(scores[~outlying])) / m
    value = float(above[1].mean() - above[0].mean())
    variance = float((above[1] - above[0]).var(ddof=1) / m + (below[1] - below[0]).var(ddof=1) / n)
    return _normal(value, variance**0.5, "delong", n + m)


def independent(first: tuple[float, float, float], second: tuple[float, float, float]) -> Difference:
    """Difference of two figures (value, low, high) that were not measured on the same samples, from their intervals.

    The standard errors are read off the 95 % intervals as if normal: an approximation, the only one without records.
    """
    error = float(np.hypot(first[2] - first[1], second[2] - second[1])) / (2 * Z)
    return _normal(second[0] - first[0], error, "intervals", None)


def exact(first: float, second: float) -> Difference:
    """Difference of two figures without chance, such as counts of parameters: they differ, or they do not."""
    return Difference(second - first, second - first, second - first, float(first == second), "exact")


def untested(first: float, second: float) -> Difference:
    """Difference of two figures with chance in them that nobody knows the size of: never told apart."""
    return Difference(second - first, None, None, 1.0, "untested")


def _normal(value: float, error: float, test: str, n: int | None) -> Difference:
    if error == 0:
        return Difference(value, value, value, float(value == 0), test, n)
    p = 2 * float(stats.norm.sf(abs(value) / error))
    return Difference(value, value - Z * error, value + Z * error, p, test, n)


def holm(p: Sequence[float] | Array) -> Array:
    """p corrected for their number, (k,), in the order given: at a threshold of 5 % the chance that even one of the
    true null hypotheses is rejected is at most 5 %. Holm 1979, step-down."""
    given = np.asarray(p, dtype=np.float64)
    order = np.argsort(given, kind="stable")
    stepped = np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1))
    adjusted = np.empty_like(given)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
