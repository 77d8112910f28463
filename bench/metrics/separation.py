"""Which models of a table one figure tells apart: every pair tested, corrected for how many pairs there are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from bench.metrics import paired
from bench.metrics.evidence import Evidence, Statistic, paired_difference, unpaired_difference
from bench.records import Row

LEVEL = 0.05
BOOTSTRAPPED_PAIRS = 300  # above, pairs that need a test of seconds each are judged by their intervals


@dataclass(frozen=True)
class Separation:
    """The pairs of models that a figure tells apart at LEVEL, with the tests that were used."""

    metric: str
    apart: frozenset[frozenset[str]]
    tests: tuple[str, ...]
    pairs: int

    def separates(self, first: str, second: str) -> bool:
        return frozenset((first, second)) in self.apart


def separation(metric: str, rows: Sequence[Row], found: Mapping[str, Evidence]) -> Separation:
    """Test every pair of rows of one data set that have a value. found: what stands behind the metric, by model.

    Holm's correction over all pairs: the chance that any two equal models of the table are told apart is at most LEVEL.
    """
    able = [row for row in rows if metric in row.metrics and row.metrics[metric].value is not None]
    pairs = list(combinations(able, 2))
    if _all_shares(able, found):
        p, tests = _mcnemar([found[row.model] for row in able]), {"mcnemar"} if pairs else set()
    else:
        p, tests = np.ones(len(pairs)), set()
        for index, (first, second) in enumerate(pairs):
            tested = None
            if first.model in found and second.model in found and len(pairs) <= BOOTSTRAPPED_PAIRS:
                tested = paired_difference(found[first.model], found[second.model])
            tested = tested or unpaired_difference(metric, first.metrics[metric], second.metrics[metric])
            if tested is not None:
                p[index] = tested.p
                tests.add(tested.test)
    apart = [
        frozenset((first.model, second.model))
        for (first, second), corrected in zip(pairs, paired.holm(p), strict=True)
        if corrected <= LEVEL
    ]
    return Separation(metric, frozenset(apart), tuple(sorted(tests)), len(pairs))


def _all_shares(rows: Sequence[Row], found: Mapping[str, Evidence]) -> bool:
    return all(row.model in found and found[row.model].statistic is Statistic.SHARE for row in rows)


def _mcnemar(shares: Sequence[Evidence]) -> paired.Array:
    """p of every pair, in the order of combinations(); each pair over the samples that both have."""
    if len(shares) < 2:
        return np.ones(0)
    every = np.unique(np.concatenate([one.samples for one in shares]))
    right, wrong = (np.zeros((len(shares), len(every)), dtype=np.float32) for _ in range(2))
    for index, one in enumerate(shares):
        places = np.searchsorted(every, one.samples)
        right[index, places] = one.values
        wrong[index, places] = 1 - one.values
    only_first = (right @ wrong.T).astype(np.int64)  # whole numbers below 2^24 are exact in float32
    first, second = np.triu_indices(len(shares), k=1)
    return paired.mcnemar(only_first[first, second], only_first[second, first])
