import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import provenance, results, verbs
from bench.metrics.curves import Curves
from bench.runs import Run
from reports import pictures
from reports.card import Card, card_page
from reports.ranking import View, sections
from reports.series import front, robustness
from tests.reports.boards import board, row
from tests.reports.lab import MODELS, made_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return made_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def folder(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return verbs.write_reports(run, results.analysis(run), tmp_path_factory.mktemp("book")).parent


def test_a_book_holds_the_page_a_card_for_every_row_and_the_pictures(folder: Path) -> None:
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    cards = {f"cards/digits/{model}.html" for model in MODELS}
    names = ("robust_accuracy.linf", "pareto.macs", "pareto.latency_ms")
    drawn = {f"pictures/digits.{name}.{form}" for name in names for form in ("svg", "png")}
    assert found == {"leaderboard.html", *cards, *drawn}


def test_the_page_links_every_card_and_nothing_else(folder: Path) -> None:
    page = (folder / "leaderboard.html").read_text()
    assert all(page.count(f'href="cards/digits/{model}.html"') == 1 for model in MODELS)
    assert page.count('href="') - page.count('href="#') == len(MODELS)


def test_a_card_says_what_decided_the_figures_and_how_to_have_them_again(folder: Path) -> None:
    card = (folder / "cards" / "digits" / "weak.html").read_text()
    for text in ("small_cnn_pruned", "a0.05", "a processor", "--only &#39;weak/digits/*&#39;", "ε 0.05, 0.1, 0.2"):
        assert text in card
    assert "Rank 3 of 3" in card


def test_every_figure_of_a_row_is_on_its_card(folder: Path, run: Run) -> None:
    weak = next(row for row in results.rows(run) if row.model == "weak")
    card = (folder / "cards" / "digits" / "weak.html").read_text()
    assert all(f'value="{metric.value}" data-metric="{name}"' in card for name, metric in weak.metrics.items())


def test_a_model_of_which_nothing_was_measured_has_a_card_all_the_same(tmp_path: Path) -> None:
    run = made_run(tmp_path, {"there": 0.3, "gone": 0.2})
    for plan in run.resolved.cells("gone/*"):
        for task in plan.tasks():
            next((tmp_path / "store").rglob(f"{task.key}.parquet")).unlink()
    page = verbs.write_reports(run, results.analysis(run), tmp_path / "book")
    assert "Not ranked" in (page.parent / "cards" / "digits" / "gone.html").read_text()
    assert "incomplete" in page.read_text()


def test_what_mlflow_gets_leads_nowhere_and_loads_nothing(run: Run) -> None:
    found = results.analysis(run)
    everywhere, own = verbs.artifacts(run, found, verbs.view(run, found))
    pages = [everywhere["leaderboard.html"], *(files["card.html"] for files in own.values())]
    assert set(own) == {(model, "digits") for model in MODELS}
    for page in pages:
        assert isinstance(page, str)
        assert page.count('href="') == page.count('href="#')


def test_what_a_card_holds_is_escaped() -> None:
    page = card_page(Card(row("<b>x</b>"), "gauntlet run '<i>'", {"<u>": {"<a>": "<s>"}}), View("<q>"))
    assert not any(tag in page for tag in ("<b>x", "<i>", "<u>", "<a>", "<s>", "<q>"))


def test_the_command_of_a_card_is_the_one_that_was_given_for_its_row_only(run: Run) -> None:
    facts = {**run.manifest, "command": ["/bin/gauntlet", "run", "my suite.yaml", "--only", "x/*", "--workers", "2"]}
    run.write("manifest.json", json.dumps(facts))
    again = provenance.rerun(run, "weak", "digits")
    assert again == "gauntlet run 'my suite.yaml' --workers 2 --only 'weak/digits/*'"


def test_a_card_says_who_registered_its_model(run: Run, tmp_path: Path) -> None:
    before = run.read("manifest.json")
    run.write(
        "manifest.json", json.dumps({**run.manifest, "origins": {"weak": "net/2, registered by ada on 2026-01-02"}})
    )
    folder = verbs.write_reports(run, results.analysis(run), tmp_path).parent
    run.write("manifest.json", before)
    assert "net/2, registered by ada on 2026-01-02" in (folder / "cards" / "digits" / "weak.html").read_text()
    assert "registered by" not in (folder / "cards" / "digits" / "strong.html").read_text()


def test_a_picture_names_its_models_in_text_and_is_the_same_every_time() -> None:
    section, _ = sections(board(), View("s", rank_by="robust_accuracy/linf/worst/0.1"))
    first, second = (pictures.svg(pictures.board(section, View("s"))["robust_accuracy.linf"]) for _ in range(2))
    assert first == second
    texts = {
        "".join(node.itertext()).strip() for node in ElementTree.fromstring(first).iter() if node.tag.endswith("text")
    }
    assert {"small_cnn", "binary", "pruned", "robust accuracy"} <= texts


def test_a_simulated_latency_is_on_no_pareto_front() -> None:
    section, _ = sections(board(), View("s"))
    drawn = pictures.board(section, View("s"))["pareto.latency_ms"].axes[0]
    assert "binary" not in {text.get_text() for text in drawn.texts}
    assert "pruned" in {text.get_text() for text in drawn.texts}


def test_a_row_without_curves_has_no_picture() -> None:
    bare = row("a").model_copy(update={"metrics": {}})
    assert pictures.card(bare, Curves()) is None


def test_a_curve_of_robustness_starts_at_the_clean_accuracy() -> None:
    points = robustness(row("a"))["linf", "worst"]
    assert [(epsilon, metric.value) for epsilon, metric in points.items()] == [(0.0, 350 / 360), (0.1, 200 / 360)]


def test_the_front_holds_exactly_what_nothing_beats() -> None:
    points = [(1.0, 5.0), (2.0, 6.0), (2.0, 5.0), (3.0, 6.0), (4.0, 9.0), (1.0, 5.0)]
    assert front(points, higher_x=False, higher_y=True) == [0, 5, 1, 4]
    assert front(points, higher_x=True, higher_y=True) == [4]
