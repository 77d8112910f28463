"""Whether confidence can be believed: pure functions of confidences and correctness, or of logits and labels.

confidence: (n,) float64 in [0, 1]; right: (n,) bool; logits: (n, k) float64; labels: (n,) integers in [0, k). All raise
ValueError for no samples and for NaN.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

Floats = NDArray[np.float64]
Rights = NDArray[np.bool_]

BINS = 15  # of equal width
BIN_SIZE = 100  # samples in a bin of equal mass


def ece(confidence: Floats, right: Rights) -> float:
    """Expected calibration error Σ (n_b/n)·|accuracy_b − confidence_b| over 15 equal-width bins, the last one closed.

    Guo et al. 2017, equation 3; bins are [i/15, (i+1)/15).
    """
    _check(confidence, right)
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    gaps = np.bincount(bins, weights=right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def rms_calibration_error(confidence: Floats, right: Rights) -> float:
    """sqrt(Σ (n_b/n)·(accuracy_b − confidence_b)²) over bins of 100 by sorted confidence; the last holds what is left.

    Hendrycks et al. 2019 (Outlier Exposure), section 4.4; their code leaves the last bin out, this does not.
    """
    return rms_and_mad(confidence, right)[0]


def mad_calibration_error(confidence: Floats, right: Rights) -> float:
    """Σ (n_b/n)·|accuracy_b − confidence_b| over the bins of `rms_calibration_error`."""
    return rms_and_mad(confidence, right)[1]


def rms_and_mad(confidence: Floats, right: Rights) -> tuple[float, float]:
    """`rms_calibration_error` and `mad_calibration_error`, whose samples are sorted once."""
    sizes, gaps = _mass(confidence, right)
    total = sizes.sum()
    return float(np.sqrt((sizes * gaps**2).sum() / total)), float((sizes * np.abs(gaps)).sum() / total)


def soft_f1(confidence: Floats, right: Rights) -> float:
    """Σ c·m / (½ Σ (c + m)) with c = 1 − confidence and m = 1 where wrong: F1 of the errors, doubt being the detector.

    Hendrycks et al. 2019 (Outlier Exposure), appendix. In [0, 1], larger is better; 0 where nothing is wrong.
    """
    _check(confidence, right)
    doubt, wrong = 1 - confidence, (~right).astype(np.float64)
    total = (doubt + wrong).sum() / 2
    return float((doubt * wrong).sum() / total) if total else 0.0


def brier(logits: Floats, labels: NDArray[np.int64]) -> float:
    """Mean of Σ_c (p_c − [c = label])², in [0, 2]. Brier 1950."""
    return float(squared_errors(logits, labels).mean())


def squared_errors(logits: Floats, labels: NDArray[np.int64]) -> Floats:
    """Σ_c (p_c − [c = label])² of each sample, (n,)."""
    _check_logits(logits, labels)
    off = special.softmax(logits, axis=1)
    off[np.arange(len(labels)), labels] -= 1
    return np.asarray((off**2).sum(axis=1))


def nll(logits: Floats, labels: NDArray[np.int64], temperature: float = 1.0) -> float:
    """Mean negative log likelihood of the labels in nats, of softmax(logits / temperature)."""
    return float(surprise(logits, labels, temperature).mean())


def surprise(logits: Floats, labels: NDArray[np.int64], temperature: float = 1.0) -> Floats:
    """Negative log likelihood of each label in nats, (n,)."""
    _check_logits(logits, labels)
    log_p = special.log_softmax(logits / temperature, axis=1)
    return np.asarray(-log_p[np.arange(len(labels)), labels])


def temperature(logits: Floats, labels: NDArray[np.int64]) -> float:
    """The temperature in [0.01, 100] that makes these labels likeliest. Guo et al. 2017, section 4.2.

    The likelihood has one maximum in 1/T, which is what is searched; the ends are met where all labels are right, or
    no better than chance.
    """
    _check_logits(logits, labels)
    found = optimize.minimize_scalar(
        lambda log_t: nll(logits, labels, float(np.exp(log_t))),
        bounds=(np.log(0.01), np.log(100)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(found.x))


def scaled_apart(logits: Floats, labels: NDArray[np.int64], samples: NDArray[np.int64]) -> Floats:
    """Logits over temperatures that were fitted without them: those of one half on the other, and the reverse.

    samples: (n,), their indices in the data set; even ones are one half. Raises ValueError where a half is empty.
    """
    _check_logits(logits, labels)
    even = samples % 2 == 0
    scaled = logits.copy()
    for half in (even, ~even):
        scaled[half] /= temperature(logits[~half], labels[~half])
    return scaled


def rescaled(confidence: Floats, classes: int) -> Floats:
    """(p − 1/k)/(1 − 1/k): 0 for the confidence of a guess. Hendrycks et al. 2019, posterior rescaling.

    Outliers, which no answer is right for, are calibrated with it.
    """
    return (confidence - 1 / classes) / (1 - 1 / classes)


def _mass(confidence: Floats, right: Rights) -> tuple[Floats, Floats]:
    """Sizes, and mean gaps between accuracy and confidence, of bins of 100 by confidence: two (b,)."""
    _check(confidence, right)
    order = np.argsort(confidence, kind="stable")
    gap = (right - confidence)[order]
    starts = np.arange(0, len(gap), BIN_SIZE)
    sizes = np.diff(np.append(starts, len(gap))).astype(np.float64)
    return sizes, np.add.reduceat(gap, starts) / sizes


def _check(confidence: Floats, right: Rights) -> None:
    if not len(confidence) or len(confidence) != len(right):
        raise ValueError(f"needs one confidence per verdict, got {len(confidence)} and {len(right)}")
    if np.isnan(confidence).any():
        raise ValueError("a confidence is NaN")


def _check_logits(logits: Floats, labels: NDArray[np.int64]) -> None:
    if not len(logits) or len(logits) != len(labels):
        raise ValueError(f"needs logits for each label, got {len(logits)} and {len(labels)}")
    if np.isnan(logits).any():
        raise ValueError("a logit is NaN")
