"""What a card and a page draw of budgets, of families, of layers and of adversarial examples."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import provenance, results, verbs
from bench.records import Metric
from bench.runs import Run
from reports import pictures
from reports.gallery import SHOWN, Gallery, draw
from reports.layers import COLUMNS, layers
from reports.ranking import View, sections
from reports.series import Sweep, members
from tests.reports.boards import board, row
from tests.reports.lab import EPSILONS, EVALUATIONS, LAYERS, MODELS, SWEEP, made_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    curves = {"all": "*"}
    return made_run(tmp_path_factory.mktemp("run"), evaluations=(*EVALUATIONS, *SWEEP, LAYERS), curves=curves)


@pytest.fixture(scope="module")
def book(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return verbs.write_reports(run, results.analysis(run), tmp_path_factory.mktemp("book")).parent


def test_an_attack_at_several_budgets_is_one_curve_and_others_are_none(run: Run) -> None:
    found = [Sweep(**what) for what in provenance.sweeps(run)]
    assert [(one.attack, one.norm, one.epsilon, one.budget) for one in found] == [
        ("pgd", "linf", epsilon, "steps") for epsilon in EPSILONS
    ]
    assert found[1].points == tuple((n, f"robust_accuracy/linf/pgd-{n}/0.1") for n in (2, 10, 50))


def test_a_budget_s_curve_holds_the_figures_of_the_table(run: Run) -> None:
    analysed = results.analysis(run)
    sweep = verbs.view(run, analysed).sweeps[1]
    for one in analysed.rows:
        drawn = sweep.of(one)
        assert list(drawn) == [2, 10, 50]
        assert all(metric == one.metrics[f"robust_accuracy/linf/pgd-{n}/0.1"] for n, metric in drawn.items())
        values = [metric.value or 0.0 for metric in drawn.values()]
        assert values == sorted(values, reverse=True), "this attack is stronger with more steps"


def test_attacks_that_differ_in_more_than_their_budget_are_not_joined(tmp_path: Path) -> None:
    others = tuple(ref.model_copy(update={"args": {**ref.args, "restarts": n}}) for n, ref in enumerate(SWEEP))
    assert provenance.sweeps(made_run(tmp_path, evaluations=(*EVALUATIONS, *others))) == []


def test_the_page_has_the_data_of_all_four_pictures(book: Path) -> None:
    text = (book / "leaderboard.html").read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert found
    data = json.loads(found[1])
    assert [one["title"] for one in data["sweeps"]] == [f"pgd L∞ ≤ {epsilon:g}" for epsilon in EPSILONS]
    section = data["sections"][0]
    assert section["curves"] == {"all": list(MODELS)}
    assert {model: len(curves) for model, curves in section["sweeps"].items()} == dict.fromkeys(MODELS, 3)
    for name in ("robustness", "sweeps", "families", "pareto"):
        assert f'class="{name}"' in text


def test_static_pictures_are_written_for_budgets_families_and_examples(book: Path) -> None:
    names = {path.name for path in (book / "pictures").iterdir()}
    assert {"digits.steps.pgd.linf.0.1.svg", "digits.curves.macs.png", "digits.weak.pgd-50.png"} <= names


def test_a_family_s_curve_goes_through_its_models_in_the_order_of_their_cost() -> None:
    rows = [row(name, worst=worst) for name, worst in (("p90", 150), ("p50", 200), ("p0", 210), ("other", 10))]
    macs = {
        "p90": Metric(value=10.0),
        "p50": Metric(value=500.0),
        "p0": Metric(value=1000.0),
        "other": Metric(value=3.0),
    }
    rows = [one.model_copy(update={"metrics": {**one.metrics, "macs": macs[one.model]}}) for one in rows]
    view = View("s", rank_by="robust_accuracy/linf/worst/0.1", curves={"pruned": "p*"})
    [section] = sections(rows, view)
    [line] = pictures.board(section, view)["curves.macs"].axes[0].lines
    assert list(line.get_xdata()) == [10, 500, 1000]
    assert list(line.get_ydata()) == [150 / 360, 200 / 360, 210 / 360]
    assert line.get_label() == "pruned"


def test_without_patterns_a_family_is_joined_from_three_models_on() -> None:
    families = {"a": "x", "b": "x", "c": "x", "d": "y", "e": "y", "f": ""}
    rows = [row(name) for name in families]
    assert members(rows, {}, families.__getitem__) == {"x": ["a", "b", "c"]}
    assert members(rows, {"two": "[de]", "one": "f"}, families.__getitem__) == {"two": ["d", "e"]}


def test_a_card_shows_the_first_examples_that_broke_with_their_answers(run: Run, book: Path) -> None:
    card = (book / "cards" / "digits" / "weak.html").read_text(encoding="utf-8")
    plan, examples = next(run.examples("weak/*"))
    assert plan.evaluation.label == "pgd-50"
    first = examples.first(SHOWN)
    assert len(first.sample) == SHOWN
    assert (first.sample == np.flatnonzero(examples.crafted)[:SHOWN]).all()
    alt = card.split('alt="Adversarial examples of pgd-50. ')[1].split('"')[0]
    assert alt.startswith(f"sample {first.sample[0]}: class {first.label[0]} answered as")
    assert alt.count("sample") == SHOWN


def test_the_gallery_is_read_no_further_than_it_shows(run: Run) -> None:
    (_, every), (_, few) = next(run.examples("weak/*")), next(run.examples("weak/*", enough=SHOWN))
    assert len(few.sample) < len(every.sample)
    assert (few.first(SHOWN).sample == every.first(SHOWN).sample).all()


def test_the_picture_of_a_difference_is_the_difference_scaled(run: Run) -> None:
    _, examples = next(run.examples("weak/*"))
    shown = examples.first(3)
    axes = draw(Gallery("pgd", "pgd", shown)).axes
    assert len(axes) == 9
    image = np.asarray(axes[3].images[0].get_array())
    change = (shown.adversarial[0] - shown.original[0])[0].astype(float)
    assert image == pytest.approx(0.5 + 0.5 * change / np.abs(change).max())
    assert axes[3].get_xlabel() == f"±{np.abs(change).max():.3g}"
    assert axes[6].get_xlabel() == f"→ {shown.adversarial_prediction[0]}"


def test_what_is_no_image_and_what_was_not_broken_is_said(run: Run) -> None:
    _, examples = next(run.examples("weak/*"))
    flat = replace(examples, original=examples.original.reshape(len(examples.sample), -1))
    assert Gallery("a", "a", flat).empty == "Inputs of shape (16,) are no images."
    assert Gallery("a", "a", examples.first(0)).empty == "The attack broke no sample."


def test_a_card_has_a_line_for_each_layer(run: Run, book: Path) -> None:
    [one] = layers(results.rows(run)[0])
    assert one.name == "conv1"
    cells = dict(zip(COLUMNS, one.cells, strict=True))
    assert (cells["parameters"], cells["weights"], cells["macs"], cells["flops"]) == ("90", "50.0 %", "5.76 k", "–")
    assert ">5.76 k<" in (book / "cards" / "digits" / "strong.html").read_text(encoding="utf-8")
    assert layers(board()[0]) == []
