"""Accuracy, untouched and attacked: pure functions of records.

The two rules of every number here: a sample that is wrong untouched is broken at distance 0, and a sample is broken at
an epsilon when a verified adversarial input stands within it: found when asked at that epsilon, or at a smaller one of
the same norm, or by a search for the smallest distance that ended inside.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bench.contracts import Goal
from bench.metrics import intervals
from bench.records import REFUSED, Cell, Metric

TOLERANCE = 1e-6  # of a distance against an epsilon, in input units: that of the engine's verification

Mask = NDArray[np.bool_]


def share(hits: Mask) -> Metric:
    """The share of True in (n,) with its Wilson interval; no value for n = 0."""
    k, n = int(hits.sum()), len(hits)
    if n == 0:
        return Metric(value=None, n=0)
    low, high = intervals.wilson(k, n)
    return Metric(value=k / n, low=low, high=high, n=n)


def clean_accuracy(table: pa.Table) -> Metric:
    """Share of samples (schema SAMPLES) whose untouched input is classified right; NaN and refusals count as wrong."""
    return share(_column(table, "prediction") == _column(table, "label"))


def refusals(table: pa.Table) -> dict[str, Metric]:
    """`coverage`, the share of untouched inputs that got an answer, and `answered_accuracy`, the share right of those.

    Empty where nothing was refused.
    """
    prediction = _column(table, "prediction")
    answered = prediction != REFUSED
    if answered.all():
        return {}
    right = (prediction == _column(table, "label"))[answered]
    return {"coverage": share(answered), "answered_accuracy": share(right)}


@dataclass(frozen=True)
class Attacked:
    """One attack's records as arrays, sorted by sample.

    samples: (n,) int64, unique. wrong: (n,) bool, misclassified untouched. broken: (n, k) bool, asked at k ascending
    epsilons; k = 0 for an attack that only searched the distance. distance: (n,) float64, of the verified adversarial
    input; 0 where wrong untouched, inf where none was found. targeted: only a certain class counts as broken.
    """

    label: str
    epsilons: tuple[float, ...]
    samples: NDArray[np.int64]
    wrong: Mask
    broken: Mask
    distance: NDArray[np.float64]
    targeted: bool = False

    @classmethod
    def of(cls, cell: Cell) -> "Attacked":
        """Raises ValueError where a row has not one verdict per epsilon."""
        samples = _column(cell.table, "sample")
        order = np.argsort(samples, kind="stable")
        table = cell.table.take(pa.array(order))
        wrong = _column(table, "prediction") != _column(table, "label")
        distance = np.asarray(table["distance"].combine_chunks().fill_null(np.inf).to_numpy(zero_copy_only=False))
        distance = np.where(np.isnan(distance), np.inf, distance)
        epsilons, broken = _verdicts(cell, table)
        found, distance = broken & ~wrong[:, None], np.where(wrong, 0.0, distance)
        targeted = cell.threat is not None and cell.threat.goal is not Goal.UNTARGETED
        return cls(cell.evaluation, epsilons, samples[order], wrong, found, distance, targeted)

    def broken_at(self, epsilon: float) -> Mask:
        """(n,) whether a verified adversarial input stands within epsilon. Grows with epsilon."""
        asked = np.asarray(self.epsilons) <= epsilon
        found: Mask = self.distance <= epsilon + TOLERANCE
        return self.wrong | self.broken[:, asked].any(axis=1) | found

    def reaches(self, epsilon: float) -> bool:
        """Whether the attack was made at this epsilon or below, so that its survivors say something."""
        return not self.targeted and (not self.epsilons or min(self.epsilons) <= epsilon)


def robust_accuracy(attacked: Attacked, epsilon: float) -> Metric:
    """Share of samples that are right untouched and stand at this epsilon; Wilson interval."""
    return share(~attacked.broken_at(epsilon))


def quantised_accuracy(cell: Cell, epsilon: float) -> Metric:
    """`robust_accuracy` where what the attack crafted counts only if it still loses the label once rounded to 8 bits,
    which moves each value by at most half a level (1/510 of the bounds' width); Wilson interval."""
    answer = _column(cell.table, "quantised_prediction")
    held = (answer == _column(cell.table, "label")) | (answer == REFUSED)
    order = np.argsort(_column(cell.table, "sample"), kind="stable")
    attacked = Attacked.of(cell)
    return share(~attacked.wrong & (~attacked.broken_at(epsilon) | held[order]))


def success_rate(attacked: Attacked, epsilon: float) -> Metric:
    """Share of the samples which are right untouched that the attack breaks: 1 - robust/clean; Wilson interval."""
    return share(attacked.broken_at(epsilon)[~attacked.wrong])


def worst_case(attacks: Sequence[Attacked], epsilon: float) -> Metric:
    """Share of samples that survive every attack of one norm at this epsilon; Wilson interval.

    Taken over the samples that every attack made at this epsilon or below has records of; its n says how many. What
    any other attack of the norm found inside the epsilon counts as well. Raises ValueError where none was made.
    """
    made = [attacked.samples for attacked in attacks if attacked.reaches(epsilon)]
    if not made:
        raise ValueError(f"no attack was made at epsilon {epsilon:g} or below")
    common = reduce(np.intersect1d, made)
    broken = np.zeros(len(common), dtype=bool)
    for attacked in attacks:
        broken |= np.isin(common, attacked.samples[attacked.broken_at(epsilon)])
    return share(~broken)


def median_distance(attacked: Attacked) -> Metric:
    """Median smallest distance over all samples, in input units of the norm; misclassified ones count as 0.

    A sample that was never broken counts as inf: the value is None where at least half of them stand, and the upper
    end of the interval is None where it lies among them. No value for no samples.
    """
    if not len(attacked.samples):
        return Metric(value=None, n=0)
    ends = [end if np.isfinite(end) else None for end in intervals.median(attacked.distance)]
    return Metric(value=ends[0], low=ends[1], high=ends[2], n=len(attacked.samples))


def of_passes(cell: Cell) -> dict[str, Metric]:
    """Accuracy under attack over the repeated passes of each input; empty where the model is not stochastic.

    `mean_accuracy`: the mean share of passes that kept the label; `unanimous_accuracy`: the share of samples of which
    all passes did, the worst of them.
    """
    column = cell.table["kept"].combine_chunks()
    if column.null_count or not len(column):
        return {}
    kept = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
    found: dict[str, Metric] = {}
    for epsilon, shares in zip(cell.epsilons, kept.T, strict=True):
        value, low, high = intervals.mean(shares)
        where = f"{cell.norm}/{cell.evaluation}/{epsilon:g}"
        found[f"mean_accuracy/{where}"] = Metric(value=value, low=low, high=high, n=len(shares))
        found[f"unanimous_accuracy/{where}"] = share(shares == 1)
    return found


def passes(table: pa.Table) -> dict[str, Metric]:
    """names.PASSES: the mean passes that the attack spent per attacked sample over all epsilons, and the most on one.

    Attacked are the samples that are right untouched: the others cost an attack nothing. Empty where none was counted.
    """
    right = table.filter(pa.array(_column(table, "prediction") == _column(table, "label")))
    found = {}
    for column in ("forwards", "backwards"):
        spent = right[column].drop_null().to_numpy()
        if len(spent):
            value, low, high = intervals.mean(spent)
            found[column] = Metric(value=value, low=low, high=high, n=len(spent))
            found[f"most_{column}"] = Metric(value=float(spent.max()), n=len(spent))
    return found


def stopped(table: pa.Table) -> int:
    """At how many samples the attack's budget was used up."""
    return int(table["stopped"].combine_chunks().fill_null(False).to_numpy(zero_copy_only=False).sum())


def deceived(table: pa.Table) -> dict[str, Metric]:
    """names.ADVERSARIAL of a detector's records whose outliers an attack made; empty for others.

    Shares of the attacked samples (right untouched): `broken`, whose label was lost; `evaded`, those of them that
    the detector did not flag.
    """
    made = table.filter(pc.and_(table["broken"].is_valid(), pc.fill_null(table["outlier"], False)))
    if not made.num_rows:
        return {}
    made = made.filter(pa.array(_column(made, "prediction") == _column(made, "label")))
    broken = pc.list_element(made["broken"].combine_chunks(), 0).to_numpy(zero_copy_only=False).astype(bool)
    found = {"broken": share(broken)}
    if not made["flagged"].null_count:
        flagged = made["flagged"].combine_chunks().to_numpy(zero_copy_only=False).astype(bool)
        found["evaded"] = share(broken & ~flagged)
    return found


def adversarial_gain(table: pa.Table) -> Metric | None:
    """Mean gain of the texts that were attacked, with its bootstrap interval; None where no text was."""
    gains = table["gain"].drop_null().to_numpy()
    if not len(gains):
        return None
    [low], [high] = intervals.bootstrap(lambda rows: [float(gains[rows].mean())], len(gains))
    return Metric(value=float(gains.mean()), low=float(low), high=float(high), n=len(gains))


def escaped(table: pa.Table) -> int:
    """How many results left the bounds or the ball, and did not count."""
    return int(table["escaped"].combine_chunks().fill_null(False).to_numpy(zero_copy_only=False).sum())


def _verdicts(cell: Cell, table: pa.Table) -> tuple[tuple[float, ...], Mask]:
    """The epsilons it was asked at and its (n, k) verdicts; neither where it only searched the distance."""
    n, k = table.num_rows, len(cell.epsilons)
    verdicts = table["broken"].combine_chunks()
    if cell.minimal or not k:
        return (), np.zeros((n, 0), dtype=bool)
    flat = verdicts.flatten()
    if verdicts.null_count or len(flat) != n * k or set(verdicts.value_lengths().to_pylist()) - {k}:
        raise ValueError(f"evaluation '{cell.evaluation}': the records hold not one verdict for each of {k} epsilons")
    return tuple(cell.epsilons), flat.to_numpy(zero_copy_only=False).reshape(n, k)


def _column(table: pa.Table, name: str) -> NDArray[np.int64]:
    column: NDArray[np.int64] = table[name].to_numpy()
    return column
