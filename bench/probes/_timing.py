"""Statistics of repeated timings: percentiles, their intervals, and how many queries they need."""

from collections.abc import Callable, Sequence
from math import ceil
from statistics import median
from time import perf_counter

from scipy.stats import binom

CONFIDENCE = 0.99  # of early stopping, as in the MLPerf inference rules
SETTLED = 0.02  # two windows agree when their medians differ by no more than this share
WINDOW = 25  # queries


def percentile(ordered: Sequence[float], q: float) -> float:
    """The nearest-rank percentile, q in (0, 1], of values in ascending order: always one that was observed."""
    return ordered[max(ceil(q * len(ordered)), 1) - 1]


def interval(ordered: Sequence[float], q: float) -> tuple[float | None, float | None]:
    """95 % order-statistic interval of the percentile q of values in ascending order; None where they are too few.

    The number of values below the true percentile is binomial (n, q), whatever the distribution: so the interval lies
    between two of the values (Conover 1999, Practical Nonparametric Statistics, section 3.2).
    """
    n = len(ordered)
    low, high = int(binom.ppf(0.025, n, q)), int(binom.ppf(0.975, n, q)) + 1  # ranks from 1
    return ordered[low - 1] if low >= 1 else None, ordered[high - 1] if high <= n else None


def queries_needed(q: float) -> int:
    """Fewest queries from which the percentile q in (0, 1) is printed, one of them being allowed to overrun it.

    The smallest n for which a process that overruns more often than 1 - q shows at most one overrun with probability
    at most 1 - CONFIDENCE (early stopping of the MLPerf inference rules): 11 for p50, 64 for p90, 662 for p99.
    """
    n = 2
    while q**n + n * (1 - q) * q ** (n - 1) > 1 - CONFIDENCE:
        n += 1
    return n


def warm_up(query: Callable[[], float], runs: int, seconds: float, cap: float) -> float | None:
    """Run `query` (it returns its time) until it has settled, at least `runs` times and for `seconds`.

    Settled: the medians of the last two windows agree. Returns None, or, when `cap` seconds have passed before, the
    share by which those medians differed (infinity where there were no two).
    """
    start, times = perf_counter(), list[float]()
    drift = float("inf")
    while (elapsed := perf_counter() - start) < cap:
        times.append(query())
        if len(times) % WINDOW == 0 and len(times) >= 2 * WINDOW:
            drift = abs(median(times[-WINDOW:]) / median(times[-2 * WINDOW : -WINDOW]) - 1)
            if drift <= SETTLED and len(times) >= runs and elapsed >= seconds:
                return None
    return drift
