"""What stands behind each figure, sample by sample, so that two models can be compared on the same samples."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import reduce

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bench import names
from bench.metrics import paired
from bench.metrics.paired import Difference
from bench.metrics.proofs import proofs
from bench.metrics.robustness import Attacked
from bench.records import Cell, Kind, Metric, Row, judged

Array = NDArray[np.float64]


class Statistic(StrEnum):
    """How a figure is made of its samples."""

    SHARE = "share"
    RATIO = "ratio"
    MEDIAN = "median"
    AUROC = "auroc"


@dataclass(frozen=True)
class Evidence:
    """samples: (n,) int64, unique, ascending. values: (n,), what is counted, averaged or ranked. below: (n,), what a
    RATIO divides by; for an AUROC whether the sample is an outlier. Outliers are numbered -1, -2, … so that
    they are no inlier's twin."""

    statistic: Statistic
    samples: NDArray[np.int64]
    values: Array
    below: Array


def evidence(cells: Iterable[Cell]) -> dict[str, Evidence]:
    """What stands behind the figures of one row, by the metric's name as in bench.metrics.rows.

    Figures that no test here is made for (costs, average precision, FPR95) have none.
    """
    found: dict[str, Evidence] = {}
    attacked: dict[str, list[Attacked]] = {}
    asked: dict[str, set[float]] = {}
    for cell in cells:
        if not cell.table.num_rows or cell.kind is Kind.PROBE:
            continue
        if cell.kind is Kind.CLEAN:
            right = cell.table["prediction"].to_numpy() == cell.table["label"].to_numpy()
            found[names.CLEAN_ACCURACY] = _share(cell.table["sample"].to_numpy(), right)
        elif cell.kind is Kind.DETECTOR:
            found[names.auroc(cell.evaluation)] = _scores(cell.table)
        elif cell.kind is Kind.CERTIFICATE:
            found |= _certified(cell)
        elif cell.norm is not None:
            one = Attacked.of(cell)
            attacked.setdefault(cell.norm, []).append(one)
            asked.setdefault(cell.norm, set()).update(() if one.targeted else cell.epsilons)
            found |= _attack(cell, one)
    for norm, attacks in attacked.items():
        for epsilon in sorted(asked[norm]):
            found[names.worst_case(norm, epsilon)] = _worst(attacks, epsilon)
    return found


def difference(
    name: str, first: Row, second: Row, ours: Mapping[str, Evidence], theirs: Mapping[str, Evidence]
) -> Difference | None:
    """How a figure of two rows differs, second minus first: paired where both have records of the same samples, else
    from the two intervals; None where one has no value."""
    a, b = first.metrics.get(name), second.metrics.get(name)
    if a is None or b is None or a.value is None or b.value is None:
        return None
    if name in ours and name in theirs:
        tested = paired_difference(ours[name], theirs[name])
        if tested is not None:
            return tested
    return unpaired_difference(name, a, b)


def paired_difference(first: Evidence, second: Evidence) -> Difference | None:
    """The test that fits the statistic, over the samples that both have; None where they share too few."""
    _, mine, yours = np.intersect1d(first.samples, second.samples, assume_unique=True, return_indices=True)
    a, b = first.values[mine], second.values[yours]
    try:
        match first.statistic if len(a) else None:
            case Statistic.SHARE:
                return paired.shares(a.astype(bool), b.astype(bool))
            case Statistic.RATIO:
                return paired.ratios((a, first.below[mine]), (b, second.below[yours]))
            case Statistic.MEDIAN:
                return paired.medians(a, b)
            case Statistic.AUROC:
                return paired.aurocs(a, b, first.below[mine].astype(bool))
    except ValueError:  # nothing to divide by, an infinite median, one side without samples: no such difference
        return None
    return None


def unpaired_difference(name: str, first: Metric, second: Metric) -> Difference | None:
    """From values and intervals alone. A count without observations is exact; what has chance in it and no interval is
    not tested. None without values."""
    if first.value is None or second.value is None:
        return None
    ends = [end for metric in (first, second) for end in (metric.low, metric.high)]
    if all(end is None for end in ends):
        counted = first.n is None and second.n is None and not name.startswith(names.TIMES)
        return (paired.exact if counted else paired.untested)(first.value, second.value)
    return paired.independent(_ends(first), _ends(second))


def _ends(metric: Metric) -> tuple[float, float, float]:
    """Value and interval; an end that is not there lies as far as the other one."""
    value = metric.value
    assert value is not None
    reach = max(0.0 if end is None else abs(end - value) for end in (metric.low, metric.high))
    low = value - reach if metric.low is None else metric.low
    return value, low, value + reach if metric.high is None else metric.high


def _share(samples: NDArray[np.int64], hits: NDArray[np.bool_]) -> Evidence:
    order = np.argsort(samples, kind="stable")
    return Evidence(Statistic.SHARE, samples[order], hits[order].astype(np.float64), np.ones(len(samples)))


def _certified(cell: Cell) -> dict[str, Evidence]:
    assert cell.norm is not None
    samples = cell.table["sample"].to_numpy()
    return {
        names.certified_accuracy(cell.norm, cell.evaluation, epsilon): _share(samples, proved)
        for epsilon, proved in zip(cell.epsilons, proofs(cell).T, strict=True)
    }


def _attack(cell: Cell, one: Attacked) -> dict[str, Evidence]:
    assert cell.norm is not None
    found, right = {}, ~one.wrong
    for epsilon in cell.epsilons:
        name = names.robust_accuracy(cell.norm, cell.evaluation, epsilon)
        broken = one.broken_at(epsilon)
        found[name] = _share(one.samples, ~broken)
        found[name.replace("robust_accuracy", "attack_success", 1)] = Evidence(
            Statistic.RATIO, one.samples, (broken & right).astype(np.float64), right.astype(np.float64)
        )
    if cell.minimal or not cell.epsilons:
        name = names.median_distance(cell.norm, cell.evaluation)
        found[name] = Evidence(Statistic.MEDIAN, one.samples, one.distance, np.ones(len(one.samples)))
    order = np.argsort(cell.table["sample"].to_numpy(), kind="stable")
    for column in ("forwards", "backwards"):
        spent = cell.table[column].combine_chunks()
        counted = right & np.asarray(spent.is_valid().to_numpy(zero_copy_only=False))[order]
        if counted.any():
            values = np.where(counted, spent.fill_null(0.0).to_numpy(zero_copy_only=False)[order], 0.0)
            name = f"{column}/{cell.norm}/{cell.evaluation}"
            found[name] = Evidence(Statistic.RATIO, one.samples, values, counted.astype(np.float64))
    return found


def _worst(attacks: Sequence[Attacked], epsilon: float) -> Evidence:
    common = reduce(np.intersect1d, [one.samples for one in attacks if one.reaches(epsilon)])
    broken = np.zeros(len(common), dtype=bool)
    for one in attacks:
        broken |= np.isin(common, one.samples[one.broken_at(epsilon)])
    return _share(common, ~broken)


def _scores(table: pa.Table) -> Evidence:
    table = judged(table)
    outlying = np.asarray(table["outlier"].combine_chunks().to_numpy(zero_copy_only=False), dtype=bool)
    samples = np.where(outlying, -1 - table["sample"].to_numpy(), table["sample"].to_numpy())
    order = np.argsort(samples, kind="stable")
    scores = table["score"].to_numpy().astype(np.float64)
    return Evidence(Statistic.AUROC, samples[order], scores[order], outlying[order].astype(np.float64))
