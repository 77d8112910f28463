from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from bench.metrics.corruption import with_baselines
from bench.metrics.rows import rows
from bench.records import Row
from tests.metrics import cells

BLOCKS = [("untouched", 0), ("fog", 1), ("fog", 2), ("snow", 1), ("snow", 2)]


def row(model: str, wrong: list[int]) -> Row:
    """wrong: of ten samples in each block, how many are classified wrong."""
    made = cells.clean([sample >= count for count in wrong for sample in range(10)], model=model)
    groups = [[f"corruption={kind}", f"severity={severity}"] for kind, severity in BLOCKS for _ in range(10)]
    place = made.table.schema.get_field_index("groups")
    table = made.table.set_column(place, made.table.schema.field(place), pa.array(groups, pa.list_(pa.string())))
    [found] = rows([replace(made, table=table)])
    return found


def test_errors_are_means_over_severities_and_then_over_corruptions() -> None:
    found = row("net", [1, 2, 4, 5, 9]).metrics
    assert found["untouched_error"].value == pytest.approx(0.1)
    assert found["corruption_error/fog"].value == pytest.approx(0.3)
    assert found["corruption_error/snow"].value == pytest.approx(0.7)
    assert found["mean_corruption_error"].value == pytest.approx(0.5)


def test_mce_and_relative_mce_are_the_papers_formulas() -> None:
    own, base = np.array([1, 2, 4, 5, 9]) / 10, np.array([2, 3, 5, 8, 10]) / 10
    found, plain = with_baselines([row("net", [1, 2, 4, 5, 9]), row("alex", [2, 3, 5, 8, 10])], {"net": "alex"})
    ce = [own[1:3].sum() / base[1:3].sum(), own[3:].sum() / base[3:].sum()]
    assert found.metrics["mce"].value == pytest.approx(np.mean(ce))
    relative = [
        (own[1:3] - own[0]).sum() / (base[1:3] - base[0]).sum(),
        (own[3:] - own[0]).sum() / (base[3:] - base[0]).sum(),
    ]
    assert found.metrics["relative_mce"].value == pytest.approx(np.mean(relative))
    assert "mce" not in plain.metrics


def test_a_baseline_that_loses_nothing_gives_no_ratio_and_says_so() -> None:
    found, _ = with_baselines([row("net", [0, 1, 1, 1, 1]), row("base", [0, 0, 0, 1, 1])], {"net": "base"})
    assert found.metrics["mce"].value is None
    assert "mce: undefined: 'base' loses nothing by fog" in found.flags


def test_other_records_have_no_such_figures() -> None:
    [found] = rows([cells.clean([True, False])])
    assert not [name for name in found.metrics if "corruption" in name]
