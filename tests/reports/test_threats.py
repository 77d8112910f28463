"""Threat models: they follow the records into every form of the leaderboard, and are never ranked together."""

import json
from dataclasses import replace

import pyarrow as pa
import pytest

from bench.contracts import Allowance, Budget, Goal, Knowledge, Norm, ThreatModel
from bench.metrics.evidence import evidence
from bench.metrics.rows import rows
from bench.records import Cell, Row
from reports.leaderboard import View, render
from reports.ranking import sections
from tests.metrics import cells

WORST = "robust_accuracy/linf/worst/0.1"
PGD = ThreatModel(
    norm=Norm.LINF, epsilons=(0.1,), knowledge=Knowledge.WHITE_BOX, allowance=Allowance(steps=40, restarts=2)
)


def cell(label: str, broken: list[bool], model: str = "cnn", **changed: object) -> Cell:
    threat = PGD.model_copy(update=changed)
    made = cells.attack(label, [[one] for one in broken], [0.1], model=model)
    return replace(made, threat=threat, knowledge=threat.knowledge)


def with_column(made: Cell, name: str, values: list[bool]) -> Cell:
    place = made.table.schema.get_field_index(name)
    return replace(
        made, table=made.table.set_column(place, made.table.schema.field(place), pa.array(values, pa.bool_()))
    )


def test_a_row_tells_the_threat_model_of_each_attack_and_of_the_worst_case() -> None:
    square = Allowance(queries=5000)
    [row] = rows(
        [
            cell("pgd", [True, False, False]),
            cell("square", [False, True, False], knowledge=Knowledge.SCORE, allowance=square, epsilons=(0.1, 0.2)),
        ]
    )
    assert row.threats["linf/pgd"] == PGD
    assert row.threats["linf/square"].knowledge is Knowledge.SCORE
    worst = row.threats["linf/worst"]
    assert worst == ThreatModel(
        norm=Norm.LINF, epsilons=(0.1, 0.2), knowledge=Knowledge.WHITE_BOX,
        allowance=Allowance(steps=40, queries=5000, restarts=2),
    )  # fmt: skip
    assert row.metrics[WORST].value == pytest.approx(1 / 3)


def test_what_reached_a_target_is_broken_but_the_survivors_of_a_target_say_too_little() -> None:
    found = [cell("pgd", [False, False, False, True]), cell("aimed", [True, False, False, False], goal=Goal.RANDOM)]
    [row] = rows(found)
    assert row.metrics[WORST].value == 0.5
    assert evidence(found)[WORST].values.tolist() == [0, 1, 1, 0]
    alone = [cell("aimed", [True, False, False, False], goal=Goal.RANDOM)]
    [row] = rows(alone)
    assert WORST not in row.metrics
    assert WORST not in evidence(alone)
    assert row.metrics["robust_accuracy/linf/aimed/0.1"].value == 0.75


def test_what_was_crafted_on_the_model_itself_is_white_box() -> None:
    transfer = cell("transfer", [True, False], knowledge=Knowledge.TRANSFER)
    [own] = rows([with_column(transfer, "transferred", [False, False])])
    [other] = rows([with_column(transfer, "transferred", [True, True])])
    assert own.threats["linf/transfer"].knowledge is own.threats["linf/worst"].knowledge is Knowledge.WHITE_BOX
    assert other.threats["linf/transfer"].knowledge is other.threats["linf/worst"].knowledge is Knowledge.TRANSFER


def test_a_budget_is_flagged_where_it_stopped_the_attack_and_the_clock_always() -> None:
    budget = Budget(queries=7, seconds=2)
    [row] = rows([with_column(cell("pgd", [True, False], budget=budget), "stopped", [False, True])])
    assert row.flags == (
        "robust_accuracy/linf/pgd: stopped: at 1 of 2 samples, at most 7 queries, 2 s a block",
        "robust_accuracy/linf/pgd: not reproducible: limited by the clock: at most 7 queries, 2 s a block",
    )


def made(model: str, broken: list[bool], **changed: object) -> Row:
    [row] = rows([cells.clean([True] * len(broken), model=model), cell("a", broken, model, **changed)])
    return row


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"knowledge": Knowledge.SCORE}, "knowledge score, not white-box"),
        ({"allowance": Allowance(steps=1)}, "budget 1 step, not 40 steps × 2 restarts"),
        (
            {"budget": Budget(gradients=3)},
            "budget 40 steps × 2 restarts, at most 3 gradients, not 40 steps × 2 restarts",
        ),
    ],
)
@pytest.mark.parametrize("metric", [WORST, "robust_accuracy/linf/a/0.1"])
def test_figures_of_different_threat_models_are_not_ranked_together(
    metric: str, changed: dict[str, object], told: str
) -> None:
    board = [made("known", [True, True, False]), made("same", [True, False, False])]
    board.append(made("guarded", [False, False, False], **changed))
    [section] = sections(board, View("s", rank_by=metric))
    assert [(line.row.model, line.rank) for line in section.lines] == [("same", 1), ("known", 2), ("guarded", None)]
    assert f"is of another threat model than the other rows: {told}" in section.lines[-1].reason
    [section] = sections(board, View("s"))
    assert [line.rank for line in section.lines] == [1, 1, 1], "a clean accuracy has no threat model"


def test_every_form_of_the_leaderboard_shows_them() -> None:
    board = [made("cnn", [True, False]), made("other", [True, False], knowledge=Knowledge.SCORE)]
    said = json.loads(render(board, View("s"), "json"))["rows"][0]["threats"]["linf/a"]
    assert said == {
        "norm": "linf", "epsilons": [0.1], "goal": "untargeted", "knowledge": "white-box", "budget": None,
        "allowance": {"steps": 40, "queries": None, "restarts": 2},
    }  # fmt: skip
    line = "a on cnn: L∞ ≤ 0.1, untargeted, white-box, 40 steps × 2 restarts"
    for form in ("table", "csv", "tex"):
        told = render(board, View("s"), form, width=200)
        assert (line if form != "csv" else line.replace(" on cnn", "")) in told, form
    assert "| a on other | L∞ | 0.1 | untargeted | score | 40 steps × 2 restarts |" in render(board, View("s"), "md")
    page = render(board, View("s"), "html")
    assert (
        '<th scope="row" class="model">a on other</th><td>L∞</td><td>0.1</td><td>untargeted</td><td>score</td>' in page
    )
    heading = (
        "robust_accuracy/linf/a/0.1: untargeted, white-box, 40 steps × 2 restarts | untargeted, score, 40 steps × 2"
    )
    assert heading in page
