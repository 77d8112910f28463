"""How well a score tells outliers from inliers: pure functions of two samples of scores.

Everywhere: a score is larger for what is more outlying, and outliers are the positive class. The inputs are
inliers (n,) and outliers (m,), float64. Raises ValueError for NaN, and for an empty side, where nothing is defined.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bench.metrics.intervals import Z

Scores = NDArray[np.float64]


def auroc(inliers: Scores, outliers: Scores) -> tuple[float, float | None, float | None]:
    """P(outlier scores above inlier) + ½ P(equal), and its interval: (value, low, high) in [0, 1].

    Mann and Whitney 1947, by mid-ranks; the interval is DeLong's (DeLong et al. 1988, by the ranks of Sun and Xu 2014).
    There is none where the scores separate perfectly or one side has a single score: its variance would be 0.
    """
    _check(inliers, outliers)
    n, m = len(inliers), len(outliers)
    ranks = stats.rankdata(np.concatenate([inliers, outliers]))
    above = (ranks[n:] - stats.rankdata(outliers)) / n  # per outlier: share of the inliers below it
    below = 1 - (ranks[:n] - stats.rankdata(inliers)) / m  # per inlier: share of the outliers above it
    value = float(above.mean())
    variance = float(above.var(ddof=1) / m + below.var(ddof=1) / n) if min(n, m) > 1 else 0.0
    if variance == 0:
        return value, None, None
    spread = Z * variance**0.5
    return value, max(0.0, value - spread), min(1.0, value + spread)


def ap_out(inliers: Scores, outliers: Scores) -> float:
    """Average precision Σ (R_i − R_{i−1}) P_i over falling thresholds, outliers positive; depends on the base rate."""
    _check(inliers, outliers)
    taken_in, taken_out = _counts(inliers, outliers)
    precision = taken_out / (taken_in + taken_out)
    return float((np.diff(taken_out, prepend=0) * precision).sum() / len(outliers))


def ap_in(inliers: Scores, outliers: Scores) -> float:
    """Average precision with inliers positive: of the negated scores."""
    return ap_out(-outliers, -inliers)


def fpr95(inliers: Scores, outliers: Scores) -> float:
    """Share of inliers flagged at the highest threshold that flags at least 95 % of outliers (score >= threshold)."""
    _check(inliers, outliers)
    taken_in, taken_out = _counts(inliers, outliers)
    first = int(np.argmax(taken_out * 100 >= 95 * len(outliers)))  # in whole numbers: .95 is no binary fraction
    return float(taken_in[first] / len(inliers))


def fpr95_id_positive(inliers: Scores, outliers: Scores) -> float:
    """Share of outliers accepted at the lowest threshold that keeps at least 95 % of inliers (score <= threshold)."""
    return fpr95(-outliers, -inliers)


def detection_error(inliers: Scores, outliers: Scores) -> float:
    """Least mean of the two error rates over thresholds: min over δ of ½(P(inlier > δ) + P(outlier <= δ)), in [0, ½].

    Liang et al. 2018, section 4.2. The threshold is chosen on the outliers themselves: no threshold does better.
    """
    _check(inliers, outliers)
    taken_in, taken_out = (np.append(0, taken) for taken in _counts(inliers, outliers))
    return float((taken_in / len(inliers) + 1 - taken_out / len(outliers)).min() / 2)


def at_threshold(inliers: NDArray[np.bool_], outliers: NDArray[np.bool_]) -> dict[str, float | None]:
    """precision, recall, f1 of the flags (outliers positive), and `flagged`: the share of inliers flagged.

    inliers (n,), outliers (m,): which were flagged, at a threshold that no outlier has taken part in. The precision is
    None where nothing is flagged; it depends on the base rate, as F1 does.
    """
    wrongly, rightly = int(inliers.sum()), int(outliers.sum())
    return {
        "precision": rightly / (wrongly + rightly) if wrongly + rightly else None,
        "recall": rightly / len(outliers),
        "f1": 2 * rightly / (len(outliers) + wrongly + rightly),
        "flagged": wrongly / len(inliers),
    }


def _counts(inliers: Scores, outliers: Scores) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many of each side score at or above each distinct score, highest first: two (t,) int64."""
    thresholds = np.unique(np.concatenate([inliers, outliers]))[::-1]
    ours, theirs = (len(side) - np.searchsorted(np.sort(side), thresholds, side="left") for side in (inliers, outliers))
    return ours, theirs


def _check(inliers: Scores, outliers: Scores) -> None:
    if not len(inliers) or not len(outliers):
        raise ValueError(f"needs scores of both sides, got {len(inliers)} inliers and {len(outliers)} outliers")
    if np.isnan(inliers).any() or np.isnan(outliers).any():
        raise ValueError("a score is NaN: the detector breaks its contract (bench.contracts.Detector)")
