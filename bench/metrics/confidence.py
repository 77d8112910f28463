"""What a model's confidence on untouched inputs is worth: calibration and selective prediction, from its records."""

from collections.abc import Callable, Sequence

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
Rows = NDArray[np.int64]

RISKS = (0.01, 0.05)

_CALIBRATION = ("ece", "rms_calibration", "mad_calibration", "soft_f1", "brier", "nll")


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

    def of(rows: Rows) -> tuple[float, ...]:
        area = curve.aurc(doubt[rows], wrong[rows])
        return area, area - curve.optimum(n, int(wrong[rows].sum()))

    found = _metrics(("aurc", "e_aurc"), of, n)
    for risk in RISKS:
        found[f"coverage_at_risk_{risk:g}"] = Metric(value=curve.coverage_at_risk(doubt, wrong, risk), n=n)
    return found


def joint(sure: Floats, right: Bools, classes: int) -> dict[str, Metric]:
    """Every figure of names.JOINT: calibration of the rescaled confidence on inliers and outliers together.

    sure: (n,) confidences; right: (n,), False for every outlier.
    """
    rescaled = calibration.rescaled(sure, classes)

    def of(rows: Rows) -> tuple[float, ...]:
        a, b = rescaled[rows], right[rows]
        return calibration.rms_calibration_error(a, b), calibration.soft_f1(a, b)

    return _metrics(("joint_rms_calibration", "joint_soft_f1"), of, len(sure))


def _calibration(logits: Floats, labels: NDArray[np.int64], *, intervals: bool = True) -> dict[str, Metric]:
    sure, right = _answers(logits, labels)
    squares, surprise = calibration.squared_errors(logits, labels), calibration.surprise(logits, labels)

    def of(rows: Rows) -> tuple[float, ...]:
        a, b = sure[rows], right[rows]
        means = float(squares[rows].mean()), float(surprise[rows].mean())
        return calibration.ece(a, b), *calibration.rms_and_mad(a, b), calibration.soft_f1(a, b), *means

    return _metrics(_CALIBRATION, of, len(labels), intervals)


def _answers(logits: Floats, labels: NDArray[np.int64]) -> tuple[Floats, Bools]:
    """Confidence in the answer, and whether it is right."""
    return special.softmax(logits, axis=1).max(axis=1), np.asarray(logits.argmax(axis=1) == labels)


def _metrics(
    names: Sequence[str], of: Callable[[Rows], Sequence[float]], n: int, intervals: bool = True
) -> dict[str, Metric]:
    """Figures by name, with bootstrap intervals. of: the figures of some rows, (k,) indices; of all together, so that
    what several need of a draw is computed once."""
    values = of(np.arange(n))
    if not intervals:
        return {name: Metric(value=value, n=n) for name, value in zip(names, values, strict=True)}
    ends = zip(names, values, *bootstrap(of, n), strict=True)
    return {name: Metric(value=value, low=float(low), high=float(high), n=n) for name, value, low, high in ends}
