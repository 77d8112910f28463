"""Combined scores, where a suite defines some: weighted means of figures, each on the scale that the suite gives it."""

import math
from collections import Counter
from collections.abc import Sequence

from bench import names
from bench.records import Metric, Row
from bench.suite_board import Score, ScorePart

SPREADS = ("contended", "simulated", "mixed", "invalid", "incomplete")  # flags of a part that are the score's as well


def with_scores(rows: Sequence[Row], scores: Sequence[Score]) -> list[Row]:
    """The rows with `score/NAME` added, in [0, 1].

    The interval is the weighted mean of the parts' own: at least as wide as the true one whatever their correlation,
    since the standard deviation of a sum is at most the sum of the standard deviations. A score that lacks a part is
    empty, one with a flagged part is flagged as well, and one of timings is not ranked across machines.
    """
    return [_scored(row, scores, rows) for row in rows] if scores else list(rows)


def scaled(part: ScorePart, value: float) -> float:
    """Where a value lies between the part's worst (0) and best (1); beyond them it is 0 or 1."""
    worst, best = part.ends
    if part.scale == "log":
        value = max(value, min(worst, best))  # at or below 0 there is no logarithm, and it is beyond the end anyway
        value, worst, best = math.log(value), math.log(worst), math.log(best)
    return min(1.0, max(0.0, (value - worst) / (best - worst)))


def _scored(row: Row, scores: Sequence[Score], rows: Sequence[Row]) -> Row:
    metrics, flags = dict(row.metrics), list(row.flags)
    for score in scores:
        missing = [part.metric for part in score.of if _value(row, part.metric) is None]
        if missing:
            metrics[score.metric] = Metric(value=None)
            flags.append(f"{score.metric}: undefined: there is no value of {', '.join(missing)}")
            continue
        metrics[score.metric] = _mean(row, score)
        flags += _inherited(row, score)
        machine = _machine(rows, row.dataset)
        if any(part.metric.startswith(names.TIMES) for part in score.of) and row.hardware != machine:
            flags.append(f"{score.metric}: mixed: its timings are of another machine than those of most rows")
    return row.model_copy(update={"metrics": metrics, "flags": tuple(dict.fromkeys(flags))})


def _value(row: Row, name: str) -> float | None:
    return row.metrics[name].value if name in row.metrics else None


def _mean(row: Row, score: Score) -> Metric:
    total = sum(part.weight for part in score.of)
    sums = [0.0, 0.0, 0.0]
    for part in score.of:
        metric = row.metrics[part.metric]
        assert metric.value is not None
        value = scaled(part, metric.value)
        ends = [value if end is None else scaled(part, end) for end in (metric.low, metric.high)]
        for index, one in enumerate((value, min(ends), max(ends))):
            sums[index] += part.weight / total * one
    value, low, high = sums
    if all(row.metrics[part.metric].low is row.metrics[part.metric].high is None for part in score.of):
        return Metric(value=value)  # of counts: there is no chance in it
    n = min((metric.n for part in score.of if (metric := row.metrics[part.metric]).n is not None), default=None)
    return Metric(value=value, low=low, high=high, n=n)


def _inherited(row: Row, score: Score) -> list[str]:
    found = []
    for text in row.flags:
        subject, _, rest = text.partition(": ")
        kind, _, detail = rest.partition(": ")
        for part in score.of:
            if kind in SPREADS and (part.metric == subject or part.metric.startswith(f"{subject}/")):
                found.append(f"{score.metric}: {kind}: {part.metric}{f': {detail}' if detail else ''}")
    return found


def _machine(rows: Sequence[Row], dataset: str) -> str | None:
    counted = Counter(row.hardware for row in rows if row.dataset == dataset and row.hardware)
    return counted.most_common(1)[0][0] if counted else None
