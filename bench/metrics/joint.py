"""Figures of attacks over several domains: where all of them are fooled, and which is hardest.

Wang et al. 2021, arXiv:1906.03563: the success rates over all models or transformations, and over groups of images that
share one perturbation; the final weights tell the domains apart, and the hardest has the largest.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from bench import names
from bench.metrics import intervals
from bench.metrics.robustness import Mask, share
from bench.records import Cell, Metric


def figures(cell: Cell) -> Mapping[str, Metric]:
    """Of the records of an attack; empty where it has no domains, or attacked nothing.

    `attack_success_all`: share of the attacked samples (right untouched) whose label is lost in every domain;
    `attack_success_in`, the same of one; `domain_weight`, its mean final weight. Where samples share a perturbation:
    `attack_success_group`, the share of the groups of which every attacked sample is broken.
    """
    table = cell.table.filter(cell.table["domains"].is_valid())
    if not table.num_rows or cell.norm is None or len(cell.epsilons) != 1:
        return {}
    [epsilon] = cell.epsilons
    where = cell.norm, cell.evaluation, epsilon
    domains = table["domains"].to_pylist()
    lost = np.array([[domain["lost"] for domain in each] for each in domains], dtype=bool)
    if not table["shared_from"].null_count:
        return {names.joint_success("group", *where): share(_groups(table, lost[:, 0]))}
    weights = np.array([[domain["weight"] for domain in each] for each in domains], dtype=np.float64)
    found = {names.joint_success("all", *where): share(np.asarray(lost.all(axis=1)))}
    for number, domain in enumerate(domains[0]):
        found[names.success_in(cell.norm, cell.evaluation, domain["name"], epsilon)] = share(lost[:, number])
        value, low, high = intervals.mean(weights[:, number])
        weight = Metric(value=value, low=low, high=high, n=len(weights))
        found[names.domain_weight(cell.norm, cell.evaluation, domain["name"])] = weight
    return found


def _groups(table: pa.Table, lost: Mask) -> Mask:
    """(g,) bool: whether every attacked sample of a group is broken. lost: (n,) of the rows."""
    first = table["shared_from"].to_numpy()
    _, which = np.unique(first, return_inverse=True)
    standing = np.bincount(which, weights=~lost)
    return np.asarray(standing == 0, dtype=bool)
