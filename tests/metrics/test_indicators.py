"""bench/metrics/indicators.py: each flags its toy, and none flags an honest net."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from bench.contracts import Bounds, Gradients, Samples
from bench.gradient_checks import examine
from bench.measure import clean as clean_records
from bench.metrics.indicators import SIGNS
from bench.metrics.rows import rows
from bench.records import Cell, Kind, samples_table
from tests.attacks import digits, third_party


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


@pytest.mark.parametrize(("own", "suspected"), [(True, False), (False, True)])
def test_a_transferred_attack_counts_as_one_without_the_gradients_unless_it_was_crafted_on_the_model_itself(
    own: bool, suspected: bool
) -> None:
    cell = attack("transfer", "transfer", [True] * 3 + [False] * 7)
    column = cell.table.schema.get_field_index("transferred")
    table = cell.table.set_column(column, cell.table.schema.field(column), pa.array([not own] * 10))
    told = suspicions(attack("pgd", "white-box", [False] * 10), replace(cell, table=table))
    assert bool(told) is suspected


# --- checks of the gradients ----------------------------------------------------------------------------------------


class Rounded(digits.DigitsNet):
    """Masks its gradient: inputs are rounded to 17 values."""

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return super().logits((x * 16).round() / 16)


class Detached(digits.DigitsNet):
    """Has no graph at all."""

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return super().logits(x).detach()


class Saturated(digits.DigitsNet):
    """Its softmax is saturated: logits a thousand times as large."""

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return 1000 * super().logits(x)


class Randomised(digits.DigitsNet):
    """Adds noise to its inputs, and does not say so."""

    generator = torch.Generator()

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return super().logits(x + 0.3 * torch.rand(x.shape, generator=self.generator))


class Declared(Randomised):
    """The same, declared."""

    stochastic = True


class Rough(digits.DigitsNet):
    """A ripple that moves no prediction turns the gradient everywhere."""

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return super().logits(x + 0.02 * torch.sin(3000 * x))


class Fortress(digits.DigitsNet):
    """Its gradient leads the wrong way."""

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        there = super().logits(x)
        return 2 * there.detach() - there


def examined(model: digits.DigitsNet) -> str:
    x, y = digits.right(40)
    y = torch.where(model.logits(x).argmax(1) == y, y, -1)
    x, y = x[y >= 0], y[y >= 0]
    samples = Samples(y.numpy(), lambda rows: x[torch.from_numpy(rows)], (1, 8, 8), model.bounds, ("",) * 10, "digest")
    rows_ = np.arange(len(y))
    table = clean_records(model, samples, rows_, examined=32)
    asked = [signs is not None for signs in table["signs"].to_pylist()]
    assert sum(asked[:32]) > 25
    assert not any(asked[32:])
    return "; ".join(suspicions(Cell("m", "d", "clean", Kind.CLEAN, table)))


@pytest.mark.parametrize(
    ("toy", "said"),
    [
        (Rounded, ["the gradient is zero", "no step along the gradient", "even where nothing but the bounds"]),
        (Detached, ["the gradient is zero"]),
        (Saturated, ["the cross-entropy has no gradient", "over twice the steps"]),
        (Randomised, ["declare the model `stochastic`"]),
        (Rough, ["the gradient points elsewhere"]),
        (Fortress, ["no step along the gradient", "even where nothing but the bounds"]),
    ],
)
def test_each_toy_is_suspected_for_its_own_reason(toy: type[digits.DigitsNet], said: list[str]) -> None:
    told = examined(toy(digits.module()))
    assert [words for words in said if words not in told] == []


def test_honest_nets_are_not_suspected_and_neither_is_declared_noise() -> None:
    assert examined(digits.model()) == ""
    assert examined(Declared(digits.module())) == ""


def test_third_party_nets_are_not_suspected(shared_data: Path) -> None:
    x, y = third_party.images(shared_data, 24)
    for net in (third_party.lenet(shared_data, "clean"), third_party.lenet(shared_data, "adversarial")):
        found = examine(net, x, y, digits.streams(24))
        marked = Counter(sign for signs in found for sign in signs)
        assert all(count <= SIGNS[sign][0] * 24 for sign, count in marked.items()), marked


def test_nothing_is_said_of_a_model_that_declares_no_gradients() -> None:
    model = Detached(digits.module())
    model.gradients = Gradients.NONE
    assert examined(model) == ""


def test_inputs_that_are_not_continuous_are_not_examined() -> None:
    class Tokens(digits.DigitsNet):
        def logits(self, x: torch.Tensor) -> torch.Tensor:
            assert not x.is_floating_point()
            return super().logits(x.float())

    x, y = digits.right(8)
    whole = (16 * x).long()
    samples = Samples(y.numpy(), lambda rows: whole[torch.from_numpy(rows)], (1, 8, 8), Bounds(0, 16), ("",) * 10, "d")
    found = clean_records(Tokens(digits.module(), samples.bounds), samples, np.arange(8), examined=8)
    assert found["signs"].null_count == 8
