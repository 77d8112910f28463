import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.__main__ import main
from bench.errors import SuiteError
from bench.metrics.changes import Change
from bench.records import Metric
from bench.runs import Run
from reports.comparison import Comparison, render
from tests.reports.lab import MODELS, made_run


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def before(output: Path) -> Run:
    return made_run(output)


@pytest.fixture(scope="module")
def after(output: Path) -> Run:
    """The strong model has become a little weaker, and there is a new one."""
    return made_run(output, {"strong": 0.2, "middling": 0.15, "new": 0.1}, weights="b")


def say(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str]:
    code = main([str(word) for word in words])
    return code, capsys.readouterr().out


def test_a_run_compared_with_itself_has_not_changed(before: Run, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = say(
        capsys, "compare", before.folder, before.folder, "--format", "json", "--fail-if", "clean_accuracy changes"
    )
    found = json.loads(text)
    assert code == 0
    assert {one["difference"]["value"] for one in found["changes"] if not one["why_not"]} == {0.0}
    assert not any(one["significant"] for one in found["changes"])


def test_a_comparison_names_what_changed_by_how_much_and_whether_by_chance(
    before: Run, after: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    _, text = say(capsys, "compare", before.folder, after.folder, "--format", "json")
    found = json.loads(text)
    by_key = {(one["model"], one["metric"]): one for one in found["changes"]}
    worst = by_key["strong", "robust_accuracy/linf/worst/0.2"]
    assert worst["difference"]["value"] == pytest.approx(worst["second"]["value"] - worst["first"]["value"])
    assert worst["difference"]["test"] == "mcnemar"
    assert worst["significant"]
    assert by_key["middling", "clean_accuracy"]["difference"]["value"] == 0
    assert by_key["new", "clean_accuracy"]["why_not"] == "the row is only in the second"
    assert by_key["weak", "clean_accuracy"]["why_not"] == "the row is only in the first"
    assert "model strong: other weights" in found["notes"]


def test_a_gate_that_fails_ends_with_1_and_stands_in_the_junit_file(
    before: Run, after: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    junit = tmp_path / "deep" / "gates.xml"
    words = ["compare", before.folder, after.folder, "--only", "strong/*", "--junit", junit]
    gates = ["--fail-if", "robust_accuracy/linf/worst drops > 1pt", "--fail-if", "clean_accuracy drops"]
    code, text = say(capsys, *words, *gates)
    assert code == 1
    assert "FAILED: robust_accuracy/linf/worst drops > 1pt" in text
    assert "passed: clean_accuracy drops" in text
    first, second = ElementTree.parse(junit).getroot()
    assert (first.get("tests"), int(first.get("failures", 0)) >= 1) == ("3", True)
    assert (second.get("tests"), second.get("failures")) == ("1", "0")
    failed = [case for case in first if case.find("failure") is not None]
    assert {case.get("classname") for case in failed} == {"digits.strong"}


def test_models_of_different_names_are_compared_where_asked(
    before: Run, after: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", before.folder, after.folder, "--match", "weak=new", "--format", "json"]
    _, text = say(capsys, *words)
    (one,) = [one for one in json.loads(text)["changes"] if (one["model"], one["metric"]) == ("new", "clean_accuracy")]
    assert one["difference"]["n"] == 120


def test_a_timing_that_is_not_real_is_not_compared(before: Run, after: Run, capsys: pytest.CaptureFixture[str]) -> None:
    _, text = say(capsys, "compare", before.folder, after.folder, "--format", "json")
    by_key = {(one["model"], one["metric"]): one for one in json.loads(text)["changes"]}
    assert by_key["middling", "latency_ms/p50"]["why_not"] == "simulated: float arithmetic stands in"
    assert by_key["strong", "latency_ms/p50"]["difference"]["test"] == "intervals"


def test_the_reason_why_figures_are_not_compared_stands_once_below_the_table() -> None:
    why = "contended: its thread had the core for 56% of the time; 442 involuntary context switches per second"
    changes = [
        Change("cnn", "digits", f"latency_ms/{name}", Metric(value=1.0), Metric(value=2.0), None, why_not=why)
        for name in ("p50", "p90", "p99")
    ]
    text = render(Comparison("a", "b", changes), width=200)
    assert text.count(why) == 1
    assert text.count("contended") == 4
    assert " p50 " in text


def test_two_models_of_one_run_are_compared_by_matching_them(before: Run, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", before.folder, before.folder, "--match", "strong=weak", "--format", "json"]
    _, text = say(capsys, *words)
    metric = "robust_accuracy/linf/worst/0.1"
    (one,) = [one for one in json.loads(text)["changes"] if (one["model"], one["metric"]) == ("weak", metric)]
    assert one["first"]["value"] > 0.9 > one["second"]["value"]
    assert one["significant"]


def test_a_match_of_no_model_is_told_its_neighbour(before: Run, after: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(before.folder), str(after.folder), "--match", "weka=new"]) == 2
    assert "the first has no model 'weka' - did you mean 'weak'?" in capsys.readouterr().err


def test_other_samples_are_never_paired(before: Run, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = made_run(output, MODELS, digest="another")
    _, text = say(capsys, "compare", before.folder, other.folder, "--format", "json")
    found = json.loads(text)
    assert found["notes"][0].startswith("data set digits: the samples differ")
    assert {one["difference"]["test"] for one in found["changes"] if not one["why_not"]} == {"intervals", "exact"}


@pytest.mark.parametrize("form", ["table", "md"])
def test_people_read_the_same_change_in_every_format(
    before: Run, after: Run, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, text = say(capsys, "compare", before.folder, after.folder, "--format", form)
    assert "Worst case L∞ ≤ 0.2" in text
    assert "strong on digits" in text
    assert "Holm" in text


def test_two_exports_differ_as_their_runs_do(
    before: Run, after: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = []
    for name, run in (("a.json", before), ("b.json", after)):
        _, text = say(capsys, "leaderboard", run.folder, "--format", "json")
        (tmp_path / name).write_text(text)
        files.append(tmp_path / name)
    code, text = say(capsys, "diff", *files, "--format", "json", "--fail-if", "robust_accuracy/linf/worst/0.2 drops")
    change = next(one for one in json.loads(text)["changes"] if one["metric"] == "robust_accuracy/linf/worst/0.2")
    assert code == 1
    assert change["difference"]["value"] < 0
    assert change["difference"]["test"] == "intervals"


def test_a_file_that_is_no_export_is_refused_with_the_command_that_makes_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.json").write_text("[1]")
    assert main(["diff", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 4
    assert "`gauntlet leaderboard RUN --format json` writes one" in capsys.readouterr().err


def test_a_comparison_has_no_csv(before: Run, capsys: pytest.CaptureFixture[str]) -> None:
    from reports.comparison import Comparison, render

    with pytest.raises(SuiteError, match="no format 'csv'"):
        render(Comparison("a", "b", []), "csv")


@pytest.mark.parametrize("verb", [["leaderboard"], ["records", "--to", "none.parquet"]])
def test_a_part_that_is_not_there_is_a_mistake(
    verb: list[str], before: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*verb, str(before.folder), "--only", "stron/digits/clean"]) == 2
    assert "did you mean 'strong/" in capsys.readouterr().err
    assert not Path("none.parquet").exists()
