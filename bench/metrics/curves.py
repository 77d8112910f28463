"""Curves behind single figures: pure functions of per-sample arrays, thinned to what a picture can show."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bench.records import Cell, Kind, judged

Array = NDArray[np.float64]
POINTS = 101  # of a curve: more are not to be seen
BINS = 10


@dataclass(frozen=True)
class Curve:
    """x and y: (k,), k <= POINTS + 1."""

    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Reliability:
    """Per bin of confidence that holds samples: mean confidence, accuracy, number of samples."""

    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]
    n: tuple[int, ...]


@dataclass(frozen=True)
class Curves:
    """Of one model on one data set. roc: by detector."""

    roc: dict[str, Curve] = field(default_factory=dict)
    risk_coverage: Curve | None = None
    reliability: Reliability | None = None


def curves(cells: Iterable[Cell]) -> Curves:
    """What the records of one row allow to draw."""
    rocs: dict[str, Curve] = {}
    risk = bins = None
    for cell in cells:
        table = judged(cell.table) if cell.kind is Kind.DETECTOR else cell.table
        if cell.kind is Kind.CLEAN and table.num_rows and not table["confidence"].null_count:
            confidence = table["confidence"].to_numpy().astype(np.float64)
            right = table["prediction"].to_numpy() == table["label"].to_numpy()
            if not np.isnan(confidence).any():
                risk, bins = risk_coverage(confidence, right), reliability(confidence, right)
        elif cell.kind is Kind.DETECTOR and table.num_rows:
            outlying = np.asarray(table["outlier"].combine_chunks().to_numpy(zero_copy_only=False), dtype=bool)
            scores = table["score"].to_numpy().astype(np.float64)
            if 0 < outlying.sum() < len(outlying):
                rocs[cell.evaluation] = roc(scores[~outlying], scores[outlying])
    return Curves(rocs, risk, bins)


def roc(inliers: Array, outliers: Array) -> Curve:
    """Share of inliers flagged (x) against share of outliers flagged (y), from (0, 0) to (1, 1), over falling
    thresholds; equal scores fall together. inliers (n,), outliers (m,): larger is more outlying."""
    thresholds = np.unique(np.concatenate([inliers, outliers]))[::-1]
    x, y = (
        np.concatenate([[0.0], 1 - np.searchsorted(np.sort(side), thresholds, side="left") / len(side)])
        for side in (inliers, outliers)
    )
    return _thinned(x, y)


def risk_coverage(confidence: Array, right: NDArray[np.bool_]) -> Curve:
    """Share answered, the most confident first (x), against the error among them (y); equal confidences are answered
    together. Both (n,), n > 0. El-Yaniv and Wiener 2010."""
    order = np.argsort(-confidence, kind="stable")
    answered = np.arange(1, len(order) + 1)
    risk = np.cumsum(~right[order]) / answered
    last = np.append(np.diff(confidence[order]) != 0, True)  # the last of equal ones
    return _thinned(answered[last] / len(order), risk[last])


def reliability(confidence: Array, right: NDArray[np.bool_]) -> Reliability:
    """Accuracy against confidence in BINS bins of equal width, lower edges excluded. Guo et al. 2017, section 2."""
    place = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    held = [place == index for index in range(BINS) if (place == index).any()]
    return Reliability(
        tuple(float(confidence[mask].mean()) for mask in held),
        tuple(float(right[mask].mean()) for mask in held),
        tuple(int(mask.sum()) for mask in held),
    )


def _thinned(x: Array, y: Array) -> Curve:
    """At most POINTS points, both ends among them."""
    kept = np.unique(np.linspace(0, len(x) - 1, min(POINTS, len(x))).round().astype(int))
    return Curve(tuple(map(float, x[kept])), tuple(map(float, y[kept])))
