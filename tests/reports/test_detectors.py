from bench import names
from bench.records import Metric, Row
from reports.detectors import boards, pivoted
from reports.leaderboard import View, render
from tests.reports import boards as models

VIEW = View(suite="s")


def row(model: str = "cnn", **auroc: float) -> Row:
    metrics = {"clean_accuracy": Metric(value=0.9)}
    for name, value in auroc.items():
        metrics |= {f"auroc/{name}": Metric(value=value), f"overhead/{name}": Metric(value=2.0)}
    flags = ("auroc/knn: incomplete: 3 of 4 samples have records", "auroc/knn2: undefined: nothing")
    return Row(model=model, dataset="digits", metrics=metrics, flags=flags)


def test_each_detector_is_a_line_ranked_by_its_auroc_with_its_cost() -> None:
    _, detectors = boards([row(knn=0.7, vim=0.8)], VIEW)
    assert [(line.rank, line.row.model) for line in detectors.lines] == [(1, "vim"), (2, "knn")]
    assert detectors.dataset == "digits · detectors"
    assert detectors.columns == ("auroc", "overhead")


def test_a_flag_follows_its_detector_and_no_other() -> None:
    knn, vim = pivoted([row(knn=0.7, vim=0.8)])
    assert knn.flags == ("auroc: incomplete: 3 of 4 samples have records",)
    assert vim.flags == ()


def test_of_several_models_a_line_says_which() -> None:
    found = pivoted([row("a", knn=0.7), row("b", knn=0.6)])
    assert [line.model for line in found] == ["knn on a", "knn on b"]


def test_without_detectors_there_is_no_table_of_them() -> None:
    assert len(boards(models.board(), VIEW)) == 2  # two data sets


def test_the_models_keep_only_the_auroc_among_their_usual_columns() -> None:
    full = row(knn=0.7)
    full.metrics.update({f"{name}/knn": Metric(value=0.5) for name in (*names.DETECTION, *names.FITTED)})
    full.metrics.update({name: Metric(value=0.5) for name in names.CONFIDENCE})
    assert boards([full], VIEW)[0].columns == ("clean_accuracy", "auroc/knn")


def test_every_format_shows_them_and_json_names_them_as_metrics() -> None:
    for form in ("table", "md", "html"):
        text = render([row(knn=0.7)], VIEW, form)
        assert "detectors" in text
        assert "2.00 ×" in text
    assert "· detectors" not in render([row(knn=0.7)], VIEW, "json")
