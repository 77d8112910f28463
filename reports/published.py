"""Figures that others published beside those that were measured: `published/NAME` and `recomputed/NAME` beside `NAME`.

`recomputed` is the published figure computed anew from what was published with it (outputs per item, weights): where it
differs from the published one, the paper's own arithmetic does; where `measured` differs from both, the measurement.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.records import Metric, Row
from bench.suite_board import Published, Recomputed, Score
from reports import formats


@dataclass(frozen=True)
class Beside:
    """One figure of a row from each of its origins."""

    metric: str
    published: Metric
    source: str
    recomputed: Metric | None
    recomputed_source: str
    measured: Metric

    @property
    def difference(self) -> float | None:
        """measured - published."""
        value, other = self.measured.value, self.published.value
        return None if value is None or other is None else value - other

    @property
    def verdict(self) -> str:
        """Whether chance alone may explain the difference: whether the two 95 % intervals meet, a published figure
        without one being a point."""
        if self.difference is None:
            return "not measured"
        if self.measured.low is None and self.measured.high is None:
            return "equal" if self.difference == 0 else "differs; the measured figure has no interval"
        low, high = _ends(self.published)
        mine, theirs = _ends(self.measured)
        return "within the intervals" if mine <= high and low <= theirs else "beyond the intervals"


def _ends(metric: Metric) -> tuple[float, float]:
    assert metric.value is not None
    bare = metric.low is metric.high is None
    low = metric.value if bare else -float("inf") if metric.low is None else metric.low
    return low, metric.value if bare else float("inf") if metric.high is None else metric.high


def beside(rows: Iterable[Row], entries: Sequence[Published]) -> list[Row]:
    """The rows with the published and recomputed figures among their metrics."""
    every = list(rows)
    return [_with(row, every, entries) for row in every] if entries else every


def with_origins(columns: Sequence[str], rows: Sequence[Row]) -> tuple[str, ...]:
    """The columns, and before each those of the same figure from elsewhere that some row has."""
    there = {name for row in rows for name in row.metrics}
    return tuple(
        name
        for column in columns
        for name in (*(f"{origin}/{column}" for origin in formats.ORIGINS if f"{origin}/{column}" in there), column)
    )


def compared(row: Row, rows: Sequence[Row], entries: Sequence[Published]) -> list[Beside]:
    """What stands beside each other on the card of a row, in the order of the suite."""
    return [
        Beside(
            entry.metric,
            _published(entry),
            entry.source,
            None if entry.recomputed is None else _recomputed(entry.recomputed, entry.metric, row.dataset, rows),
            "" if entry.recomputed is None else entry.recomputed.source,
            row.metrics.get(entry.metric, Metric(value=None)),
        )
        for entry in entries
        if entry.concerns(row.model, row.dataset)
    ]


def _with(row: Row, rows: Sequence[Row], entries: Sequence[Published]) -> Row:
    metrics = dict(row.metrics)
    for one in compared(row, rows, entries):
        metrics[f"published/{one.metric}"] = one.published
        if one.recomputed is not None:
            metrics[f"recomputed/{one.metric}"] = one.recomputed
    return row.model_copy(update={"metrics": metrics})


def _published(entry: Published) -> Metric:
    return Metric(value=entry.value, low=entry.low, high=entry.high)


def _recomputed(entry: Recomputed, metric: str, dataset: str, rows: Sequence[Row]) -> Metric:
    if entry.model is None:
        return Metric(value=entry.value, low=entry.low, high=entry.high)
    found = (row.metrics.get(metric) for row in rows if (row.model, row.dataset) == (entry.model, dataset))
    return next(filter(None, found), Metric(value=None))


def footnotes(entries: Sequence[Published], scores: Sequence[Score]) -> list[str]:
    """What has to be said of columns that are not simply measured: their sources, and what scores are made of."""
    told: dict[str, list[str]] = {}
    for entry in entries:
        told.setdefault(f"published: {entry.source}", []).append(entry.metric)
        if entry.recomputed is not None:
            told.setdefault(f"recomputed: {entry.recomputed.source}", []).append(entry.metric)
    sources = [f"{source} ({', '.join(dict.fromkeys(metrics))})" for source, metrics in told.items()]
    return [*(score.text for score in scores), *sources]
