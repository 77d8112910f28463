import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from bench.metrics.groups import with_groups, without_column
from bench.metrics.rows import rows
from bench.records import Cell, Row, decode, encode
from tests.metrics import cells

LANDS = ["FR", "FR", "FR", "FR", "S.T.", "S.T.", "S.T./2", "S.T./2"]


def grouped(cell: Cell, lands: list[str] = LANDS) -> Cell:
    column = pa.array([[f"land={land}", "age=3"] for land in lands], pa.list_(pa.string()))
    place = cell.table.schema.get_field_index("groups")
    return replace(cell, table=decode(encode(cell.table.set_column(place, cell.table.schema.field(place), column))))


def row(made: list[Cell], **asked: tuple[str, ...]) -> Row:
    [plain] = rows(made)
    return with_groups(plain, made, asked)


def test_the_worst_group_the_disparity_and_the_spread_are_those_of_the_groups_accuracies() -> None:
    clean = grouped(cells.clean([True, True, True, False, True, False, True, True]))
    found = row([clean], land=("clean_accuracy",)).metrics
    assert found["group/land/FR/clean_accuracy"].value == 0.75
    assert found["group/land/S.T._2/clean_accuracy"].value == 1.0
    worst = found["worst_group/land/clean_accuracy"]
    assert (worst.value, worst.n) == (0.5, 2)
    assert worst == found["group/land/S.T./clean_accuracy"]
    assert found["disparity/land/clean_accuracy"].value == pytest.approx(math.log(2))
    assert found["group_sd/land/clean_accuracy"].value == pytest.approx(0.25)  # of .75, .5, 1: ddof = 1
    assert found["clean_accuracy"].value == 0.75


def test_every_data_set_can_be_told_apart_by_class() -> None:
    made = cells.clean([True, False, True, True])
    table = made.table.set_column(1, "label", pa.array([1, 1, 0, 0], pa.int32()))
    found = row([replace(made, table=table)], **{"class": ("clean_accuracy",)}).metrics
    assert found["group/class/1/clean_accuracy"].value == 0.5
    assert found["group/class/0/clean_accuracy"].value == 0.0
    assert found["worst_group/class/clean_accuracy"].value == 0.0


def test_robust_accuracy_by_group_takes_the_worst_case_over_attacks() -> None:
    first = grouped(cells.attack("pgd", [[i == 0] for i in range(8)], [0.1]))
    second = grouped(cells.attack("fgsm", [[i in (1, 4)] for i in range(8)], [0.1]))
    name = "robust_accuracy/linf/worst/0.1"
    found = row([first, second], land=(name,)).metrics
    assert found[f"group/land/FR/{name}"].value == 0.5
    assert found[f"worst_group/land/{name}"].value == 0.5
    assert found[f"group/land/S.T._2/{name}"].value == 1.0


def test_a_detectors_figures_are_of_the_groups_inliers_against_all_outliers() -> None:
    scores = cells.detector("knn", [0.1, 0.9, 0.2, 0.2], [0.5, 0.6])
    made = grouped(scores, ["FR", "DE", "FR", "DE", "none", "none"])
    found = row([made], land=("auroc/knn", "fpr95/knn")).metrics
    assert found["group/land/FR/auroc/knn"].value == 1.0
    assert found["worst_group/land/auroc/knn"].value == 0.5
    assert found["worst_group/land/fpr95/knn"].value == found["group/land/DE/fpr95/knn"].value == 0.5  # most is worst
    assert "group/land/none/auroc/knn" not in found


def test_what_cannot_be_had_is_flagged_never_made_up() -> None:
    plain = cells.clean([True, False, True, True, True, True, True, True])
    found = row([plain], land=("clean_accuracy",))
    assert not [name for name in found.metrics if "group" in name]
    asked = {"land": ("clean_accuracy",)}
    told = "worst_group/land/clean_accuracy: undefined: no data have the column 'land'"
    assert without_column([found], asked)[0].flags == (*found.flags, told)
    having = row([grouped(plain)], land=("clean_accuracy",))
    assert without_column([found, having], asked) == [found, having]
    none_right = grouped(cells.clean([True] * 4 + [False] * 4))
    found = row([none_right], land=("clean_accuracy",), age=("clean_accuracy",))
    assert found.metrics["disparity/land/clean_accuracy"].value is None
    told = [flag for flag in found.flags if flag.startswith("disparity/land")]
    assert told == ["disparity/land/clean_accuracy: undefined: the least value is 0, which has no logarithm"]
    assert "group_sd/age/clean_accuracy: undefined: there is only one group" in found.flags


def test_refusals_count_as_errors_and_apart_are_left_out() -> None:
    clean = grouped(cells.clean([True] * 8))
    prediction = np.array([1, 1, -2, -2, 1, 0, 1, 1], dtype=np.int32)
    table = clean.table.set_column(2, "prediction", pa.array(prediction))
    found = row([replace(clean, table=table)], land=("clean_accuracy", "answered_accuracy", "coverage")).metrics
    assert found["group/land/FR/clean_accuracy"].value == 0.5
    assert found["group/land/FR/answered_accuracy"].value == 1.0
    assert found["group/land/S.T./answered_accuracy"].value == 0.5  # refused nothing: as its clean accuracy
    assert found["worst_group/land/coverage"].value == 0.5
    assert found["group/land/S.T./coverage"].value == 1.0
