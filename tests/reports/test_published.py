import csv
import io
import json
from pathlib import Path

import jsonschema
import pytest

from bench.records import Metric
from bench.suite_board import Published, Recomputed
from reports.leaderboard import View, render
from reports.published import Beside, compared
from reports.ranking import sections
from tests.reports.boards import board, row

METRIC = "robust_accuracy/linf/worst/0.1"
PAPER = Published(
    metric=METRIC,
    model="small_*",
    dataset="digits",
    value=0.61,
    source="Somebody 2019, table 2",
    recomputed=Recomputed(model="binary", source="their weights"),
)
VIEW = View("s", columns=("clean_accuracy", METRIC), rank_by=METRIC, published=(PAPER,))


def test_published_and_recomputed_stand_before_the_measured_column_of_the_same_figure() -> None:
    section, other = sections(board(), VIEW)
    assert section.columns == ("clean_accuracy", f"published/{METRIC}", f"recomputed/{METRIC}", METRIC)
    assert other.columns == ("clean_accuracy", METRIC)
    metrics = next(line.row.metrics for line in section.lines if line.row.model == "small_cnn")
    assert metrics[f"published/{METRIC}"].value == 0.61
    assert metrics[f"recomputed/{METRIC}"] == board()[1].metrics[METRIC], "what is measured of the published weights"
    assert all(f"published/{METRIC}" not in line.row.metrics for line in section.lines if line.row.model != "small_cnn")


def test_no_published_figure_changes_a_rank() -> None:
    bare = View("s", columns=VIEW.columns, rank_by=METRIC)
    ranks = [[(line.row.model, line.rank) for line in table.lines] for table in sections(board(), bare)]
    assert [[(line.row.model, line.rank) for line in table.lines] for table in sections(board(), VIEW)] == ranks


@pytest.mark.parametrize("form", ["table", "md", "tex", "html"])
def test_every_format_shows_all_three_and_their_sources(form: str) -> None:
    text = " ".join(render(board(), VIEW, form, width=200).split())
    for part in ("61.0", "69.4", "55.6", "published", "recomputed", "Somebody 2019, table 2", "their weights"):
        assert part in text, part


def test_csv_has_columns_for_each_origin() -> None:
    lines = list(csv.DictReader(io.StringIO(render(board(), VIEW, "csv"))))
    mine = next(line for line in lines if (line["model"], line["dataset"]) == ("small_cnn", "digits"))
    assert float(mine[f"published/{METRIC}"]) == 0.61
    assert float(mine[f"recomputed/{METRIC}"]) == 250 / 360
    assert float(mine[METRIC]) == 200 / 360


def test_json_keeps_measured_figures_apart_from_those_of_others() -> None:
    found = json.loads(render(board(), VIEW, "json"))
    schema = json.loads((Path(__file__).parents[2] / "docs" / "leaderboard.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(found, schema)
    assert not any(name.startswith("published") for one in found["rows"] for name in one["metrics"])
    [reference] = [one for line in found["rows"] for one in line["published"]]
    assert reference["published"]["value"] == 0.61
    assert reference["recomputed"]["value"] == 250 / 360
    assert reference["source"] == "Somebody 2019, table 2"


def test_a_published_figure_is_on_no_picture_and_never_the_best() -> None:
    text = render(board(), VIEW, "html")
    options = text.split('class="pareto"')[1].split("</figure>")[0]
    assert "published" not in options
    assert f'class="best"\n data-metric="published/{METRIC}"' not in text
    assert f'data-metric="published/{METRIC}"' in text


@pytest.mark.parametrize(
    ("published", "measured", "verdict"),
    [
        (Metric(value=0.6), Metric(value=0.55, low=0.5, high=0.61), "within the intervals"),
        (Metric(value=0.6), Metric(value=0.55, low=0.5, high=0.59), "beyond the intervals"),
        (Metric(value=0.6, low=0.58, high=0.62), Metric(value=0.55, low=0.5, high=0.59), "within the intervals"),
        (Metric(value=5.0), Metric(value=5.0), "equal"),
        (Metric(value=5.0), Metric(value=6.0), "differs; the measured figure has no interval"),
        (Metric(value=5.0), Metric(value=None), "not measured"),
    ],
)
def test_the_verdict_is_whether_the_intervals_meet(published: Metric, measured: Metric, verdict: str) -> None:
    assert Beside("m", published, "s", None, "", measured).verdict == verdict


def test_a_recomputed_model_that_was_not_run_leaves_the_figure_empty() -> None:
    gone = PAPER.model_copy(update={"recomputed": Recomputed(model="other", source="x")})
    [one] = compared(row("small_cnn"), [row("small_cnn")], [gone])
    assert one.recomputed == Metric(value=None)
    assert one.difference == pytest.approx(200 / 360 - 0.61)
