"""What a model gains by answering only where it is sure: risk against coverage. Pure functions.

doubt: (n,) float64, larger is less sure (a detector's score, or minus the confidence); wrong: (n,) bool. Ties are
resolved by expectation: every order of equally sure samples is as likely. Raise ValueError for no samples and for NaN.
"""

import numpy as np
from numpy.typing import NDArray

Doubts = NDArray[np.float64]
Wrongs = NDArray[np.bool_]


def risk_coverage(doubt: Doubts, wrong: Wrongs) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The curve: coverages i/n and the expected share of errors among the i surest, i = 1…n; both (n,) float64.

    El-Yaniv and Wiener 2010; Geifman and El-Yaniv 2017.
    """
    if not len(doubt) or len(doubt) != len(wrong):
        raise ValueError(f"needs one doubt per verdict, got {len(doubt)} and {len(wrong)}")
    if np.isnan(doubt).any():
        raise ValueError("a doubt is NaN")
    _, group, sizes = np.unique(doubt, return_inverse=True, return_counts=True)
    expected = np.bincount(group, weights=wrong) / sizes  # of errors, per sample of a tie
    taken = np.arange(1, len(doubt) + 1, dtype=np.float64)
    return taken / len(doubt), np.cumsum(np.repeat(expected, sizes)) / taken


def aurc(doubt: Doubts, wrong: Wrongs) -> float:
    """Area under the risk-coverage curve: the mean over i of (errors among the i surest)/i. In [0, 1], 0 is best."""
    return float(risk_coverage(doubt, wrong)[1].mean())


def optimum(n: int, errors: int) -> float:
    """The least AURC that n samples with so many errors allow: all errors last, (1/n) Σ_{j=1..m} j/(n−m+j)."""
    j = np.arange(1, errors + 1)
    return float((j / (n - errors + j)).sum() / n)


def e_aurc(doubt: Doubts, wrong: Wrongs) -> float:
    """Excess AURC: what the order of doubts costs beyond the best one. Geifman, Uziel and El-Yaniv 2019, section 3."""
    return aurc(doubt, wrong) - optimum(len(doubt), int(wrong.sum()))


def coverage_at_risk(doubt: Doubts, wrong: Wrongs, risk: float) -> float:
    """The largest coverage whose expected risk is at most `risk`, stopping only between ties; 0 where there is none."""
    coverage, risks = risk_coverage(doubt, wrong)
    ordered = np.sort(doubt)
    ends = np.append(ordered[1:] != ordered[:-1], True)  # a threshold cannot part equals
    allowed = coverage[ends & (risks <= risk)]
    return float(allowed.max()) if len(allowed) else 0.0
