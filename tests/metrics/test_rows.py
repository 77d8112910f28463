import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bench import names
from bench.contracts import Figure
from bench.metrics.rows import KINDS, rows
from bench.records import Cell, Kind, Row, decode, encode, samples_table
from tests.metrics import cells


def row(*made: Cell) -> Row:
    (only,) = rows(made)
    return only


def test_a_row_holds_every_metric_under_its_name() -> None:
    line = row(
        cells.clean([True, True, True, False]),
        cells.attack("pgd", [[False, True], [True, True], [False, False], [True, True]], [0.1, 8 / 255]),
        cells.search("cw", [1.0, 2.0, 3.0, 4.0], [2.0]),
        cells.probe(Figure(name="macs", value=5.0)),
    )
    assert list(line.metrics) == [
        "clean_accuracy",
        "robust_accuracy/linf/pgd/0.1",
        "attack_success/linf/pgd/0.1",
        "robust_accuracy/linf/pgd/0.0313725",
        "attack_success/linf/pgd/0.0313725",
        "forwards/linf/pgd",
        "most_forwards/linf/pgd",
        "backwards/linf/pgd",
        "most_backwards/linf/pgd",
        "robust_accuracy/l2/cw/2",
        "attack_success/l2/cw/2",
        "median_distance/l2/cw",
        "forwards/l2/cw",
        "most_forwards/l2/cw",
        "backwards/l2/cw",
        "most_backwards/l2/cw",
        "macs",
        "robust_accuracy/linf/worst/0.0313725",
        "robust_accuracy/linf/worst/0.1",
        "robust_accuracy/l2/worst/2",
    ]
    assert line.metrics["clean_accuracy"].value == 0.75
    assert line.metrics["robust_accuracy/l2/cw/2"].value == 0.5
    assert line.metrics["median_distance/l2/cw"].value == 2.5


def test_records_in_pieces_from_the_store_give_the_same_row() -> None:
    made = [
        cells.clean([True, False, True]),
        cells.attack("pgd", [[False, True], [True, True], [False, False]], [0.1, 0.2], distance=[0.2, 0.0, None]),
    ]
    pieces = [
        dataclasses.replace(cell, table=pa.concat_tables([decode(encode(cell.table.slice(at, 1))) for at in (2, 0, 1)]))
        for cell in made
    ]
    assert rows(pieces)[0] == rows(made)[0]
    empty = [dataclasses.replace(cell, table=pa.concat_tables([cell.table]).schema.empty_table()) for cell in made]
    assert all(metric.value is None for metric in rows(empty)[0].metrics.values())


def test_rows_keep_the_order_given_and_read_one_row_at_a_time() -> None:
    read = []

    def stream():
        for model in ("b", "a"):
            for dataset in ("x", "y"):
                read.append((model, dataset))
                yield cells.clean([True], model=model, dataset=dataset)

    assert [(line.model, line.dataset) for line in rows(stream())] == read


def test_cells_of_a_row_that_do_not_follow_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="'cnn' on data set 'digits' do not follow"):
        rows([cells.clean([True]), cells.clean([True], model="other"), cells.probe()])


def test_missing_samples_make_the_figure_and_the_worst_case_incomplete() -> None:
    lost = cells.failure("fgsm", 2, 4)
    line = row(
        cells.attack("pgd", [[True], [False], [False], [False]], [0.1]),
        cells.attack("fgsm", [[False], [True]], [0.1], failures=[lost]),
    )
    assert line.metrics["robust_accuracy/linf/worst/0.1"].n == 2
    assert line.flags == (
        "robust_accuracy/linf/fgsm: incomplete: 2 of 4 samples have records",
        "robust_accuracy/linf/worst/0.1: incomplete: over 2 of 4 samples (records missing from fgsm)",
        "robust_accuracy/linf/worst/0.1: floor: none of 2 samples survives",
    )
    assert line.failures == (lost,)


def test_an_evaluation_that_failed_altogether_has_no_value_and_says_so() -> None:
    line = row(cells.attack("pgd", [], [0.1], failures=[cells.failure("pgd", 0, 4)]))
    assert line.metrics["robust_accuracy/linf/pgd/0.1"].value is None
    assert line.metrics["robust_accuracy/linf/worst/0.1"].value is None
    assert "robust_accuracy/linf/pgd: incomplete: 0 of 4 samples have records" in line.flags


def test_a_probes_flags_name_their_figure() -> None:
    figure = Figure(name="latency_ms/p50", value=1.5, low=1.4, high=1.7, n=64, flags=("contended: load 3.1",))
    line = row(cells.probe(figure))
    assert line.metrics["latency_ms/p50"].model_dump() == {"value": 1.5, "low": 1.4, "high": 1.7, "n": 64}
    assert line.flags == ("latency_ms/p50: contended: load 3.1",)


def test_the_same_figure_of_two_evaluations_is_kept_twice() -> None:
    line = row(
        cells.probe(Figure(name="latency_ms/p50", value=1.0), label="one"),
        cells.probe(Figure(name="latency_ms/p50", value=8.0, flags=("simulated",)), label="eight"),
    )
    assert {name: metric.value for name, metric in line.metrics.items()} == {
        "latency_ms/p50": 1.0,
        "latency_ms/p50.eight": 8.0,
    }
    assert line.flags == ("latency_ms/p50.eight: simulated",)


def test_results_that_escaped_and_scores_that_are_nan_are_flagged() -> None:
    untouched = cells.clean([True, False, True])
    prediction = untouched.table.schema.get_field_index("prediction")
    table = untouched.table.set_column(
        prediction, untouched.table.schema.field(prediction), [np.array([1, -1, 1], dtype=np.int32)]
    )
    line = row(
        Cell("cnn", "digits", "clean", untouched.kind, table),
        cells.attack("pgd", [[True], [False], [False]], [0.1], escaped=[False, True, True]),
    )
    assert "clean_accuracy: nan: 1 of 3 samples have NaN scores and count as wrong" in line.flags
    assert "robust_accuracy/linf/pgd: escaped: of 2 of 3 samples a result did not count" in line.flags


def test_a_search_that_finds_nothing_is_flagged_rather_than_praised() -> None:
    line = row(cells.search("cw", [1.0, None, None]))
    assert line.metrics["median_distance/l2/cw"].value is None
    assert line.flags == (
        "median_distance/l2/cw: not found: 2 of 3 samples were never broken; the median lies among them",
    )


def test_a_detector_yields_its_metrics() -> None:
    line = row(cells.detector("msp", [0.0, 1.0], [1.0, 2.0]))
    assert {name: metric.value for name, metric in line.metrics.items()} == {
        "auroc/msp": 0.875,
        "detection_error/msp": 0.25,
        "ap_out/msp": pytest.approx(5 / 6),
        "ap_in/msp": pytest.approx(5 / 6),
        "fpr95/msp": 0.5,
        "fpr95_id_positive/msp": 0.5,
        "aurc/msp": 0.0,
        "e_aurc/msp": 0.0,
        "coverage_at_risk_0.01/msp": 1.0,
        "coverage_at_risk_0.05/msp": 1.0,
    }


def test_a_fitted_detector_yields_what_its_threshold_flags_and_what_its_fit_cost() -> None:
    cell = cells.detector("knn", [0.0, 1.0, 2.0, 3.0], [2.5, 3.5])
    flagged = pa.array([score > 2.25 for score in cell.table["score"].to_pylist()])
    place = cell.table.schema.get_field_index("flagged")
    table = cell.table.set_column(place, cell.table.schema.field("flagged"), flagged)
    line = row(dataclasses.replace(cell, table=table, fit_seconds=1.5, state_bytes=80))
    found = {name.removesuffix("/knn"): metric.value for name, metric in line.metrics.items()}
    assert set(found) == {*names.DETECTION, *names.FITTED}
    assert [found[name] for name in names.FITTED] == [pytest.approx(2 / 3), 1.0, 0.8, 0.25, 1.5, 80.0]


def test_records_with_scores_yield_calibration_and_selection_under_the_names_that_suites_may_ask_for() -> None:
    logits = np.random.default_rng(0).normal(0, 9, size=(300, 3))  # far too sure
    labels = logits.argmax(axis=1)
    labels[::7] = (labels[::7] + 1) % 3
    columns = {"sample": range(300), "label": labels, "prediction": logits.argmax(axis=1), "logits": list(logits)}
    line = row(Cell("cnn", "digits", "clean", Kind.CLEAN, samples_table(columns)))
    assert set(line.metrics) == {names.CLEAN_ACCURACY, *names.CONFIDENCE}
    assert all(metric.value is not None for metric in line.metrics.values())
    assert line.metrics["ece"].low <= line.metrics["ece"].value * 1.5
    assert line.metrics["nll_scaled"].value < line.metrics["nll"].value


def test_a_detector_without_outliers_is_flagged() -> None:
    assert row(cells.detector("msp", [0.0], [])).flags == (
        "auroc/msp: undefined: 1 inliers and 0 outliers have scores; both are needed",
    )


def test_every_kind_of_flag_raised_here_is_explained() -> None:
    line = row(
        cells.attack("pgd", [[True]], [0.1], failures=[cells.failure("pgd", 1, 2)], escaped=[True]),
        cells.search("cw", [None]),
        cells.detector("msp", [], [1.0]),
    )
    assert {flag.split(": ")[1] for flag in line.flags} <= set(KINDS)
    assert len(line.flags) == 6


def test_every_kind_of_flag_is_in_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert [kind for kind in KINDS if f"| `{kind}` |" not in text] == []


def test_outliers_count_as_wrong_in_the_joint_calibration_with_rescaled_confidence() -> None:
    logits = [[0.0, 0.0], [9.0, 0.0]]
    known = {"sample": [0, 1], "label": [0, 0], "prediction": [0, 0], "logits": logits}
    told = cells.detector("msp", [0.0, 1.0], [2.0])
    place = told.table.schema.get_field_index("confidence")
    table = told.table.set_column(
        place, told.table.schema.field("confidence"), pa.array([0.5, 1.0, 0.75], pa.float32())
    )
    line = row(Cell("cnn", "digits", "clean", Kind.CLEAN, samples_table(known)), dataclasses.replace(told, table=table))
    # rescaled 0, 1, 0.5; right, right, wrong: one bin, accuracy 2/3, confidence 1/2
    assert line.metrics["joint_rms_calibration/msp"].value == pytest.approx(2 / 3 - 1 / 2)
    assert line.metrics["joint_soft_f1/msp"].value == pytest.approx(0.5 / (0.5 * (1 + 0 + 0.5 + 1)))


def test_a_table_whose_records_come_of_several_devices_says_so_on_each_row_and_of_one_it_does_not() -> None:
    def on(model: str, *devices: str) -> Cell:
        return dataclasses.replace(cells.clean([True, False], model=model), devices=devices)

    assert not any("devices" in flag for line in rows([on("a", "X"), on("b", "X"), on("c")]) for flag in line.flags)
    first, second, third = rows([on("a", "X"), on("b", "X", "Y"), on("c")])
    assert "clean_accuracy: devices: computed on X; others here on Y" in first.flags
    assert "clean_accuracy: devices: computed on X and Y" in second.flags
    assert third.flags == (), "records of before do not say"
