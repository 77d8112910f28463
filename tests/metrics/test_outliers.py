import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from bench.metrics import outliers

# few distinct values: ties everywhere
scores = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=40).map(np.array)


def joined(inliers: np.ndarray, outlying: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.r_[np.zeros(len(inliers)), np.ones(len(outlying))], np.r_[inliers, outlying]


@given(scores, scores)
def test_auroc_is_scikit_learns(inliers: np.ndarray, outlying: np.ndarray) -> None:
    truth, all_scores = joined(inliers, outlying)
    assert outliers.auroc(inliers, outlying)[0] == pytest.approx(metrics.roc_auc_score(truth, all_scores))


@given(scores, scores)
def test_average_precision_is_scikit_learns_for_either_positive_class(
    inliers: np.ndarray, outlying: np.ndarray
) -> None:
    truth, all_scores = joined(inliers, outlying)
    assert outliers.ap_out(inliers, outlying) == pytest.approx(metrics.average_precision_score(truth, all_scores))
    assert outliers.ap_in(inliers, outlying) == pytest.approx(metrics.average_precision_score(1 - truth, -all_scores))


@given(scores, scores)
def test_fpr95_is_the_first_point_of_the_curve_with_enough_outliers(inliers: np.ndarray, outlying: np.ndarray) -> None:
    truth, all_scores = joined(inliers, outlying)
    fpr, tpr, _ = metrics.roc_curve(truth, all_scores, drop_intermediate=False)
    assert outliers.fpr95(inliers, outlying) == pytest.approx(fpr[np.argmax(tpr >= 0.95 - 1e-12)])


def test_the_two_fpr95_answer_different_questions() -> None:
    inliers, outlying = np.arange(100.0), np.arange(50.0, 150.0)
    assert outliers.fpr95(inliers, outlying) == 0.45  # flags from 55 up, the inliers 55..99
    assert outliers.fpr95_id_positive(inliers, outlying) == 0.45  # keeps up to 94, the outliers 50..94
    skewed = np.r_[outlying, np.full(100, 1000.0)]
    assert outliers.fpr95(inliers, skewed) == 0.4
    assert outliers.fpr95_id_positive(inliers, skewed) == 0.225


def test_aurocs_interval_is_delongs() -> None:
    generator = np.random.default_rng(1)
    inliers, outlying = generator.normal(0, 1, 80), generator.normal(1, 1.5, 60)
    value, low, high = outliers.auroc(inliers, outlying)
    wins = (outlying[:, None] > inliers).astype(float)
    variance = wins.mean(axis=1).var(ddof=1) / 60 + wins.mean(axis=0).var(ddof=1) / 80
    assert (low, high) == pytest.approx((value - 1.959964 * variance**0.5, value + 1.959964 * variance**0.5), abs=1e-6)


def test_a_perfect_separation_has_no_interval() -> None:
    assert outliers.auroc(np.array([0.0, 1.0]), np.array([2.0, 3.0])) == (1.0, None, None)


def test_a_score_that_is_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        outliers.auroc(np.array([0.0, np.nan]), np.array([1.0]))


def test_a_missing_side_is_refused() -> None:
    with pytest.raises(ValueError, match="1 inliers and 0 outliers"):
        outliers.fpr95(np.array([0.0]), np.array([]))


@given(scores, scores)
def test_the_detection_error_is_the_least_over_all_thresholds(inliers: np.ndarray, outlying: np.ndarray) -> None:
    deltas = np.r_[-10.0, inliers, outlying]
    expected = min(((inliers > delta).mean() + (outlying <= delta).mean()) / 2 for delta in deltas)
    assert outliers.detection_error(inliers, outlying) == pytest.approx(expected)


@given(st.lists(st.booleans(), min_size=1, max_size=20), st.lists(st.booleans(), min_size=1, max_size=20))
def test_precision_recall_and_f1_are_scikit_learns(inliers: list[bool], outlying: list[bool]) -> None:
    truth, flags = joined(np.array(inliers), np.array(outlying))
    found = outliers.at_threshold(np.array(inliers), np.array(outlying))
    assert found["recall"] == pytest.approx(metrics.recall_score(truth, flags))
    assert found["f1"] == pytest.approx(metrics.f1_score(truth, flags, zero_division=0))
    assert found["flagged"] == pytest.approx(np.mean(inliers))
    if any(flags):
        assert found["precision"] == pytest.approx(metrics.precision_score(truth, flags))
    else:
        assert found["precision"] is None
