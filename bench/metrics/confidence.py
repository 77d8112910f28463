"""What a model's confidence on untouched inputs is worth: calibration and selective prediction, from its records."""

from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import special

from bench.metrics import calibration
from bench.metrics import selective as curve
from bench.metrics.intervals import bootstrap
from bench.records import Metric

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

RISKS = (0.01, 0.05)

_OF_CONFIDENCE: Mapping[str, Callable[[Floats, Bools], float]] = {
    "ece": calibration.ece,
    "rms_calibration": calibration.rms_calibration_error,
    "mad_calibration": calibration.mad_calibration_error,
    "soft_f1": calibration.soft_f1,
}
_OF_LOGITS: Mapping[str, Callable[[Floats, NDArray[np.int64]], float]] = {
    "brier": calibration.brier,
    "nll": calibration.nll,
}


def figures(table: pa.Table) -> dict[str, Metric]:
    """Every figure of names.CONFIDENCE. table: schema SAMPLES, with logits, none of them NaN.

    The figures after scaling have no interval, and no value where one half of the samples (even, odd) is empty.
    """
    labels = table["label"].to_numpy().astype(np.int64)
    logits = table["logits"].combine_chunks().flatten().to_numpy().astype(np.float64).reshape(len(labels), -1)
    found = _calibration(logits, labels)
    sure, right = _answers(logits, labels)
    samples = table["sample"].to_numpy()
    halves = len(np.unique(samples % 2)) == 2
    scaled = _calibration(calibration.scaled_apart(logits, labels, samples), labels, intervals=False) if halves else {}
    for name in found:
        if name != "soft_f1":
            found = {**found, f"{name}_scaled": scaled.get(name, Metric(value=None, n=len(labels)))}
    return {**found, **selective(-sure, ~right)}


def selective(doubt: Floats, wrong: Bools) -> dict[str, Metric]:
    """Every figure of names.SELECTIVE. doubt: (n,), larger is less sure; wrong: (n,)."""
    n = len(doubt)
    of: dict[str, Callable[[Floats, Bools], float]] = {"aurc": curve.aurc, "e_aurc": curve.e_aurc}
    found = {name: _metric(figure, doubt, wrong) for name, figure in of.items()}
    for risk in RISKS:
        found[f"coverage_at_risk_{risk:g}"] = Metric(value=curve.coverage_at_risk(doubt, wrong, risk), n=n)
    return found


def joint(sure: Floats, right: Bools, classes: int) -> dict[str, Metric]:
    """Every figure of names.JOINT: calibration of the rescaled confidence on inliers and outliers together.

    sure: (n,) confidences; right: (n,), False for every outlier.
    """
    rescaled = calibration.rescaled(sure, classes)
    of = {"joint_rms_calibration": calibration.rms_calibration_error, "joint_soft_f1": calibration.soft_f1}
    return {name: _metric(figure, rescaled, right) for name, figure in of.items()}


def _calibration(logits: Floats, labels: NDArray[np.int64], *, intervals: bool = True) -> dict[str, Metric]:
    sure, right = _answers(logits, labels)
    found = {name: _metric(figure, sure, right, intervals) for name, figure in _OF_CONFIDENCE.items()}
    return found | {name: _metric(figure, logits, labels, intervals) for name, figure in _OF_LOGITS.items()}


def _answers(logits: Floats, labels: NDArray[np.int64]) -> tuple[Floats, Bools]:
    """Confidence in the answer, and whether it is right."""
    return special.softmax(logits, axis=1).max(axis=1), np.asarray(logits.argmax(axis=1) == labels)


def _metric(figure: Callable[..., float], first: Floats, second: NDArray[np.generic], intervals: bool = True) -> Metric:
    n = len(first)
    value = figure(first, second)
    if not intervals:
        return Metric(value=value, n=n)
    low, high = bootstrap(lambda rows: figure(first[rows], second[rows]), n)
    return Metric(value=value, low=low, high=high, n=n)
