"""Any metric by the groups of a column: the worst group, and how far the groups lie apart.

Whom a model serves worse: accuracies by class, country or subgroup. A detector's figures are those of the group's
inliers against all outliers. Sources: Sagawa et al. 2020 for the worst group; the disparity is the largest log ratio of
two groups, as differential fairness has it (Foulds et al. 2020).
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from bench import names
from bench.metrics.rows import rows
from bench.records import Cell, Kind, Metric, Row, group_values

_KINDS = {  # the cells that a metric is made of; others need not be looked at
    **dict.fromkeys((names.CLEAN_ACCURACY, *names.CONFIDENCE, *names.REFUSAL), (Kind.CLEAN,)),
    "robust_accuracy": (Kind.ATTACK,),
    "attack_success": (Kind.ATTACK,),
    "median_distance": (Kind.ATTACK,),
    "certified_accuracy": (Kind.CERTIFICATE,),
}


def with_groups(row: Row, cells: Iterable[Cell], asked: Mapping[str, Sequence[str]]) -> Row:
    """The row with, for each column and metric asked, `group/COLUMN/VALUE/METRIC` and names.GROUPED.

    cells: those of the row. asked: column -> metrics. worst_group is the worst value, with the interval and n of that
    group alone; disparity is max log(v_i/v_j); group_sd the standard deviation over groups, ddof=1. What cannot be had
    is flagged as undefined: a group without the metric, the logarithm of 0. Data without the column have none of these.
    """
    found, flags = dict(row.metrics), list(row.flags)
    held = [cell for cell in cells if not cell.kind.figures and cell.table.num_rows]
    for by, metrics in asked.items():
        wanted = {kind for metric in metrics for kind in _KINDS.get(re.split("[/.]", metric)[0], tuple(Kind))}
        apart = _apart([cell for cell in held if cell.kind in wanted], by)
        for metric in metrics if apart else ():
            made = {value: _figure(mine, metric) for value, mine in apart.items()}
            found |= {names.of_group(by, value, metric): figure for value, figure in made.items()}
            figures, told = _over_groups(list(made.values()), metric)
            found |= {names.grouped(what, by, metric): figure for what, figure in figures.items()}
            flags += [f"{names.grouped(what, by, metric)}: undefined: {why}" for what, why in told.items()]
    return row.model_copy(update={"metrics": found, "flags": tuple(dict.fromkeys(flags))})


def without_column(rows: Sequence[Row], asked: Mapping[str, Sequence[str]]) -> list[Row]:
    """The rows, all of them flagged for a column that none of the data sets has: its name may be a mistake."""
    flags = []
    for by, metrics in asked.items():
        if not any(name.startswith(f"group/{by}/") for row in rows for name in row.metrics):
            flags += [
                f"{names.grouped('worst_group', by, m)}: undefined: no data have the column '{by}'" for m in metrics
            ]
    return [row.model_copy(update={"flags": (*row.flags, *flags)}) for row in rows] if flags else list(rows)


def _apart(cells: Sequence[Cell], by: str) -> dict[str, list[Cell]]:
    """The cells of each value; outliers belong to every group."""
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        outlying = np.asarray(cell.table["outlier"].combine_chunks().fill_null(False).to_numpy(zero_copy_only=False))
        inside = cell.table.filter(pa.array(~outlying))
        values = group_values(inside, by)
        if values is None:
            continue
        for value in np.unique(values):
            mine = inside.filter(pa.array(values == value))
            table = pa.concat_tables([mine, cell.table.filter(pa.array(outlying))])
            told = re.sub(r"[^\w. -]", "_", str(value), flags=re.ASCII)  # what MLflow admits in a name
            found.setdefault(told, []).append(replace(cell, table=table, failures=(), planned=table.num_rows))
    return found


def _figure(cells: Sequence[Cell], metric: str) -> Metric:
    """A group that refuses nothing has no `answered_accuracy` of its own: it is its clean accuracy."""
    n = sum(cell.table.num_rows for cell in cells)
    [row] = rows(cells)
    made = row.metrics
    if metric in names.REFUSAL and metric not in made and names.CLEAN_ACCURACY in made:
        return made[names.CLEAN_ACCURACY] if metric == "answered_accuracy" else Metric(value=1.0, n=n)
    return made.get(metric, Metric(value=None, n=n))


def _over_groups(figures: Sequence[Metric], metric: str) -> tuple[dict[str, Metric], dict[str, str]]:
    """names.GROUPED of the groups' figures, and why one of them has no value."""
    empty = dict.fromkeys(names.GROUPED, Metric(value=None, n=len(figures)))
    values = [figure.value for figure in figures if figure.value is not None]
    if len(values) < len(figures):
        why = f"{len(figures) - len(values)} of {len(figures)} groups have no {metric}"
        return empty, dict.fromkeys(names.GROUPED, why)
    pick = min if names.higher_is_better(metric) else max
    found = {**empty, "worst_group": pick(figures, key=lambda figure: figure.value or 0.0)}
    if len(values) < 2:
        return found, dict.fromkeys(names.GROUPED[1:], "there is only one group")
    found["group_sd"] = Metric(value=float(np.std(values, ddof=1)), n=len(values))
    if min(values) <= 0:
        return found, {"disparity": f"the least value is {min(values):g}, which has no logarithm"}
    found["disparity"] = Metric(value=math.log(max(values) / min(values)), n=len(values))
    return found, {}
