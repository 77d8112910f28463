"""Costs of a model against its baseline's, and figures of several processes made one."""

from collections.abc import Mapping, Sequence
from math import isnan
from statistics import median
from typing import Any

import numpy as np

from bench import names
from bench.metrics import intervals
from bench.records import Metric, Row


def with_ratios(rows: Sequence[Row], baselines: Mapping[str, str]) -> list[Row]:
    """The rows with names.RATIOS added: the baseline's cost / the model's own, on the same data set.

    baselines: label of a model -> label of its baseline. A ratio that lacks one of its two figures is empty, and one of
    figures that are themselves flagged as incomplete is flagged as well.
    """
    found = {(row.model, row.dataset): row for row in rows}
    made = []
    for row in rows:
        baseline = found.get((baselines.get(row.model, ""), row.dataset))
        made.append(row if baseline is None else _compared(row, baseline))
    return made


def _compared(row: Row, baseline: Row) -> Row:
    metrics, flags = dict(row.metrics), list(row.flags)
    for ratio, cost in names.RATIOS.items():
        if cost not in row.metrics or cost not in baseline.metrics:
            continue
        own, other = row.metrics[cost].value, baseline.metrics[cost].value
        metrics[ratio] = Metric(value=other / own if own and other is not None else None)
        if metrics[ratio].value is None:
            flags.append(f"{ratio}: undefined: {cost} of the model is {own}, of '{baseline.model}' {other}")
        for one in (row, baseline):
            flags += [
                f"{ratio}: incomplete: {cost} of '{one.model}' is"
                for flag in one.flags
                if flag.startswith(f"{cost}: incomplete")
            ]
    return row.model_copy(update={"metrics": metrics, "flags": tuple(dict.fromkeys(flags))})


def merged(figures: Sequence[Mapping[str, Any]]) -> tuple[Metric, list[str]]:
    """One figure of several processes, and what they flagged.

    figures: rows of bench.records.FIGURES with one name. A single one stays as it is. Of several: the median of their
    values, its 95 % order-statistic interval (from six processes on: fewer allow none), and the number of processes.
    """
    if len(figures) == 1:
        [one] = figures
        return Metric(value=one["value"], low=one["low"], high=one["high"], n=one["n"]), list(one["flags"])
    flags: dict[str, list[str]] = {}
    for figure in figures:
        for flag in figure["flags"]:
            kind, _, detail = flag.partition(": ")
            flags.setdefault(kind, []).append(detail)
    told = [f"{kind}: in {len(said)} of {len(figures)} processes: {said[0]}" for kind, said in flags.items()]
    values = [figure["value"] for figure in figures if figure["value"] is not None]
    if not values:
        return Metric(value=None, n=0), told
    _, low, high = intervals.median(np.asarray(values, np.float64))
    bounds = {"low": None if isnan(low) else low, "high": None if isnan(high) else high}
    return Metric(value=median(values), n=len(values), **bounds), told
