import numpy as np
import pyarrow as pa
import pytest
from scipy import special
from sklearn import metrics

from bench.metrics import calibration, confidence, intervals, selective

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(0, 3, (1000, 4))
LABELS = np.array([RANDOM.choice(4, p=p) for p in special.softmax(LOGITS / 2, axis=1)])  # twice too sure
SURE = special.softmax(LOGITS, axis=1).max(axis=1)
RIGHT = LOGITS.argmax(axis=1) == LABELS


def bins_by_loop(edges_of) -> list[tuple[int, float]]:
    return [(int(inside.sum()), RIGHT[inside].mean() - SURE[inside].mean()) for inside in edges_of if inside.any()]


def test_ece_is_its_definition_with_fifteen_bins() -> None:
    edges = np.linspace(0, 1, 16)
    inside = [(edges[i] <= SURE) & ((edges[i + 1] > SURE) | (i == 14)) for i in range(15)]
    assert calibration.ece(SURE, RIGHT) == pytest.approx(sum(n * abs(gap) for n, gap in bins_by_loop(inside)) / 1000)


def test_a_confidence_of_one_belongs_to_the_last_bin() -> None:
    confidence, right = np.array([1.0, 1.0, 0.95, 0.95]), np.array([True, False, False, False])
    assert calibration.ece(confidence, right) == pytest.approx(0.725)  # one bin: |1/4 - 0.975|, not two


def test_the_errors_over_equal_masses_count_the_last_bin_too() -> None:
    sure, right = np.append(SURE, np.full(50, 2.0)), np.append(RIGHT, np.zeros(50, dtype=bool))
    order = np.argsort(sure)
    gaps = [(len(part), right[part].mean() - sure[part].mean()) for part in np.split(order, range(100, 1050, 100))]
    assert gaps[-1] == (50, -2.0)
    assert calibration.rms_calibration_error(sure, right) == pytest.approx(
        np.sqrt(sum(n * gap**2 for n, gap in gaps) / 1050)
    )
    assert calibration.mad_calibration_error(sure, right) == pytest.approx(sum(n * abs(gap) for n, gap in gaps) / 1050)


def test_nll_and_brier_are_scikit_learns() -> None:
    p = special.softmax(LOGITS, axis=1)
    assert calibration.nll(LOGITS, LABELS) == pytest.approx(metrics.log_loss(LABELS, p))
    assert calibration.brier(LOGITS, LABELS) == pytest.approx(((p - np.eye(4)[LABELS]) ** 2).sum(axis=1).mean())


def test_soft_f1_of_certain_answers_is_f1_of_the_errors() -> None:
    wrong, doubted = RIGHT[:100], RIGHT[100:200]
    assert calibration.soft_f1((~doubted).astype(float), ~wrong) == pytest.approx(metrics.f1_score(wrong, doubted))
    assert calibration.soft_f1(np.ones(3), np.ones(3, dtype=bool)) == 0.0


def test_the_temperature_is_the_one_that_the_labels_were_drawn_at() -> None:
    found = calibration.temperature(LOGITS, LABELS)
    assert found == pytest.approx(2, abs=0.2)
    here = calibration.nll(LOGITS, LABELS, found)
    assert here <= min(calibration.nll(LOGITS, LABELS, found * factor) for factor in (0.99, 1.01))


def test_a_half_is_scaled_by_the_temperature_of_the_other() -> None:
    samples = np.arange(1000)
    scaled = calibration.scaled_apart(LOGITS, LABELS, samples)
    of_odd = calibration.temperature(LOGITS[1::2], LABELS[1::2])
    assert scaled[::2] == pytest.approx(LOGITS[::2] / of_odd)
    assert calibration.nll(scaled, LABELS) < calibration.nll(LOGITS, LABELS)
    changed = LABELS.copy()
    changed[::2] = 0  # labels of one half do not touch that half
    assert calibration.scaled_apart(LOGITS, changed, samples)[::2] == pytest.approx(scaled[::2])


def test_a_guess_rescales_to_no_confidence() -> None:
    assert calibration.rescaled(np.array([0.25, 1.0, 0.625]), 4) == pytest.approx([0, 1, 0.5])


def test_nan_and_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        calibration.ece(np.array([np.nan]), np.array([True]))
    with pytest.raises(ValueError, match="a logit is NaN"):
        calibration.nll(np.array([[np.nan, 0.0]]), np.array([0]))
    with pytest.raises(ValueError, match="needs one confidence"):
        calibration.ece(np.array([]), np.array([], dtype=bool))


def test_figures_that_share_their_draws_have_the_intervals_that_each_has_alone() -> None:
    random = np.random.default_rng(3)
    labels = random.integers(0, 4, 300)
    logits = random.normal(size=(300, 4)).round(1)
    logits[np.arange(300), labels] += 1
    table = pa.table({"label": labels, "logits": list(logits), "sample": np.arange(300)})
    found = confidence.figures(table)
    sure = special.softmax(logits, axis=1).max(axis=1)
    right = logits.argmax(axis=1) == labels
    alone = {
        "rms_calibration": lambda rows: calibration.rms_calibration_error(sure[rows], right[rows]),
        "brier": lambda rows: calibration.brier(logits[rows], labels[rows]),
        "nll": lambda rows: calibration.nll(logits[rows], labels[rows]),
        "e_aurc": lambda rows: selective.e_aurc(-sure[rows], ~right[rows]),
    }
    for name, figure in alone.items():
        [low], [high] = intervals.bootstrap(lambda rows, figure=figure: [figure(rows)], 300)
        metric = found[name]
        assert (metric.value, metric.low, metric.high) == (figure(np.arange(300)), low, high), name
