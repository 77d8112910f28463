"""Errors under common corruptions: Hendrycks and Dietterich 2019, section 4. From records with their group columns."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from bench import names
from bench.records import Metric, Row, group_values

UNTOUCHED = "untouched"  # the value of the column `corruption` where there is none


def errors(table: pa.Table) -> dict[str, Metric]:
    """Of records with the group columns `corruption` and `severity`; empty for others.

    `corruption_error/NAME`, the mean over its severities of the share classified wrong; `mean_corruption_error`, their
    mean; `untouched_error`, where untouched inputs are among the samples. n: samples.
    """
    kinds, severities = (group_values(table, by) for by in ("corruption", "severity"))
    if kinds is None or severities is None:
        return {}
    wrong = np.asarray(table["prediction"].to_numpy() != table["label"].to_numpy())
    found = {}
    for kind in dict.fromkeys(kinds.tolist()):
        mine = kinds == kind
        shares = [wrong[mine & (severities == severity)].mean() for severity in np.unique(severities[mine])]
        name = "untouched_error" if kind == UNTOUCHED else names.corruption_error(kind)
        found[name] = Metric(value=float(np.mean(shares)), n=int(mine.sum()))
    each = [metric.value for name, metric in found.items() if name != "untouched_error" and metric.value is not None]
    if each:
        found["mean_corruption_error"] = Metric(value=float(np.mean(each)), n=len(kinds))
    return found


def with_baselines(rows: Sequence[Row], baselines: Mapping[str, str]) -> list[Row]:
    """The rows with names.RELATIVE_CORRUPTION added: errors in units of the baseline's, on the same data set.

    mce: mean over corruptions of E_c / E_c(baseline). relative_mce: of (E_c − E) / (E_c − E)(baseline), E on untouched
    inputs. In units of 1, where the paper prints percent. No value where the baseline's part is 0.
    """
    found = {(row.model, row.dataset): row for row in rows}
    made = []
    for row in rows:
        baseline = found.get((baselines.get(row.model, ""), row.dataset))
        kinds = [name for name in row.metrics if name.startswith("corruption_error/")]
        if baseline is None or not kinds or any(name not in baseline.metrics for name in kinds):
            made.append(row)
            continue
        metrics, flags = dict(row.metrics), list(row.flags)
        for name, origin in (("mce", None), ("relative_mce", "untouched_error")):
            if origin is not None and (origin not in row.metrics or origin not in baseline.metrics):
                continue
            own, other = ([_value(one, kind, origin) for kind in kinds] for one in (row, baseline))
            if any(value == 0 for value in other):
                metrics[name] = Metric(value=None)
                zero = kinds[other.index(0)]
                flags.append(f"{name}: undefined: '{baseline.model}' loses nothing by {zero.partition('/')[2]}")
            else:
                metrics[name] = Metric(value=float(np.mean(np.divide(own, other))))
        made.append(row.model_copy(update={"metrics": metrics, "flags": tuple(flags)}))
    return made


def _value(row: Row, kind: str, origin: str | None) -> float:
    whole, part = row.metrics[kind].value, 0.0 if origin is None else row.metrics[origin].value
    assert whole is not None
    assert part is not None
    return whole - part
