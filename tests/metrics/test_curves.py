import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_curve

from bench.metrics import curves, outliers
from tests.metrics import cells


def test_a_roc_curve_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    inliers, other = random.integers(0, 8, 40).astype(float), random.integers(3, 11, 25).astype(float)
    x, y, _ = roc_curve([0] * 40 + [1] * 25, np.concatenate([inliers, other]), drop_intermediate=False)
    found = curves.roc(inliers, other)
    assert found.x == pytest.approx(x)
    assert found.y == pytest.approx(y)


def test_a_thinned_curve_keeps_its_ends_and_its_area() -> None:
    random = np.random.default_rng(1)
    inliers, other = random.normal(0, 1, 5000), random.normal(1, 1, 5000)
    found = curves.roc(inliers, other)
    assert len(found.x) == curves.POINTS
    assert (found.x[0], found.y[0], found.x[-1], found.y[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(found.y, found.x) == pytest.approx(outliers.auroc(inliers, other)[0], abs=0.001)


def test_risk_is_the_error_among_the_most_confident() -> None:
    found = curves.risk_coverage(np.array([0.9, 0.5, 0.7, 0.7]), np.array([True, False, False, True]))
    assert found.x == (0.25, 0.75, 1.0)
    assert found.y == (0.0, pytest.approx(1 / 3), 0.5)


def test_reliability_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(2)
    confidence = random.random(500)
    right = random.random(500) < confidence
    accuracy, mean = calibration_curve(right, confidence, n_bins=curves.BINS)
    found = curves.reliability(confidence, right)
    assert found.accuracy == pytest.approx(accuracy)
    assert found.confidence == pytest.approx(mean)
    assert sum(found.n) == 500


def test_a_row_without_confidences_or_outliers_has_no_such_curve() -> None:
    found = curves.curves([cells.clean([True, False]), cells.detector("msp", [0.1, 0.2], [])])
    assert found == curves.Curves()
