"""bench/metrics/indicators.py: each flags its toy, and none flags an honest net."""

import pytest
import torch

from bench.metrics.rows import rows
from bench.records import Cell, Kind, samples_table
from tests.attacks import digits


def clean(scores: torch.Tensor) -> Cell:
    n = len(scores)
    columns = {"sample": range(n), "label": scores.argmax(1).tolist(), "prediction": scores.argmax(1).tolist()}
    table = samples_table(columns | {"logits": scores.tolist()})
    return Cell(model="m", dataset="d", evaluation="clean", kind=Kind.CLEAN, table=table)


def attack(name: str, knowledge: str, broken: list[bool]) -> Cell:
    n = len(broken)
    columns = {"sample": range(n), "label": [0] * n, "prediction": [0] * n, "broken": [[b] for b in broken]}
    table = samples_table(columns | {"distance": [0.1 if b else None for b in broken]})
    return Cell(
        model="m", dataset="d", evaluation=name, kind=Kind.ATTACK, table=table, norm="linf", epsilons=(0.1,),
        knowledge=knowledge,
    )  # fmt: skip


def suspicions(*cells: Cell) -> list[str]:
    [row] = rows(cells)
    return [flag for flag in row.flags if ": suspect: " in flag]


def honest() -> torch.Tensor:
    return digits.module()(digits.right(50)[0])


def test_an_honest_net_is_not_suspected() -> None:
    assert suspicions(clean(honest())) == []


def test_probabilities_in_the_place_of_logits_are() -> None:
    [flag] = suspicions(clean(honest().softmax(1)))
    assert flag.startswith("clean_accuracy: suspect: the scores are probabilities")


def test_a_saturated_softmax_is_and_its_gradient_is_indeed_dead() -> None:
    scores = (1000 * honest()).requires_grad_()
    loss = torch.nn.functional.cross_entropy(scores, scores.argmax(1), reduction="none")
    (gradient,) = torch.autograd.grad(loss.sum(), scores)
    dead = int((gradient == 0).all(1).sum())
    [flag] = suspicions(clean(scores.detach()))
    assert f"{dead} of 50 samples" in flag
    assert dead > 40


def test_a_black_box_attack_that_finds_more_than_the_gradients_is() -> None:
    weak, strong = [False] * 10, [True] * 3 + [False] * 7
    [flag] = suspicions(attack("pgd", "white-box", weak), attack("square", "score", strong))
    assert flag.startswith("robust_accuracy/linf/worst/0.1: suspect: 'square' breaks 3 of 10 samples that no white-box")


@pytest.mark.parametrize("knowledge", ["white-box", "score"])
def test_attacks_of_one_kind_or_a_black_box_one_that_finds_less_raise_no_suspicion(knowledge: str) -> None:
    weak, strong = [True] * 2 + [False] * 8, [True] * 3 + [False] * 7
    assert suspicions(attack("a", knowledge, weak), attack("b", knowledge, strong)) == []
    assert suspicions(attack("pgd", "white-box", strong), attack("square", "score", weak)) == []
