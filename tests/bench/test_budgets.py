"""Budgets and goals: an attack gets what it is allowed, sample by sample, and reaches for what the suite says."""

import itertools
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from attacks.apgd_ce import AutoPGDCrossEntropy
from attacks.autoattack import AutoAttack
from attacks.cw import CarliniWagner
from attacks.fab import FastAdaptiveBoundaryTargeted
from attacks.one_pixel import OnePixel
from attacks.pgd import ProjectedGradientDescent
from attacks.simba import SimpleBlackBox
from attacks.square import SquareAttack
from bench.contracts import Attack, Bounds, Budget, Classifier, Goal, Norm, Samples
from bench.errors import PluginError
from bench.measure import attacked
from bench.randomness import SampleRandom
from tests.attacks import digits

N = 24
FORTY = ProjectedGradientDescent(steps=40, step_size=0.005)


def data(n: int = N) -> Samples:
    x, y = digits.right(n)
    return Samples(y.numpy(), lambda i: x[torch.from_numpy(i)], (1, 8, 8), Bounds(0, 1), ("",) * 10, "d")


def records(
    attack: Attack,
    epsilon: float = 0.1,
    rows: slice = slice(None),
    goal: Goal = Goal.UNTARGETED,
    model: Classifier | None = None,
    **budget: float,
) -> pa.Table:
    limit = Budget.model_validate(budget) if budget else None
    indices = np.arange(N)[rows]
    return attacked(attack, (epsilon,), "t", model or digits.model(), data(), indices, 0, goal=goal, budget=limit)


def broken(table: pa.Table) -> list[bool]:
    return [verdict[0] for verdict in table["broken"].to_pylist()]


def test_pgd_that_is_allowed_ten_gradients_of_forty_takes_ten_and_ends_where_ten_steps_end() -> None:
    limited = records(FORTY, gradients=10)
    ten = records(ProjectedGradientDescent(steps=10, step_size=0.005))
    full = records(FORTY)
    assert max(limited["backwards"].to_pylist()) == 10
    assert broken(limited) == broken(ten)
    assert sum(broken(limited)) < sum(broken(full))
    standing = [not lost for lost in broken(limited)]
    assert limited["stopped"].to_pylist() == standing, "who was broken was left alone within the budget"
    assert [n for n, stands in zip(limited["backwards"].to_pylist(), standing, strict=True) if stands] == [10] * sum(
        standing
    )
    assert full["stopped"].null_count == N


@pytest.mark.parametrize("attack", [FORTY, ProjectedGradientDescent(steps=10, restarts=3)], ids=["one", "restarts"])
def test_what_pgd_is_charged_depends_neither_on_the_block_nor_on_having_a_budget(attack: Attack) -> None:
    whole = records(attack)
    small = pa.concat_tables([records(attack, rows=slice(first, first + 7)) for first in range(0, N, 7)])
    ample = records(attack, gradients=1000)
    for column in ("forwards", "backwards"):
        assert whole[column].to_pylist() == small[column].to_pylist() == ample[column].to_pylist()
    assert 0 < sum(broken(whole)) < N
    assert broken(whole) == broken(small) == broken(ample)


ATTACKS: list[tuple[Attack, float, dict[str, float]]] = [
    (FORTY, 0.1, {"gradients": 7}),
    (ProjectedGradientDescent(steps=5, restarts=4), 0.05, {"queries": 12}),
    (AutoPGDCrossEntropy(steps=20), 0.1, {"gradients": 9, "queries": 8}),
    (AutoAttack(), 0.05, {"queries": 150}),
    (FastAdaptiveBoundaryTargeted(steps=5), 0.1, {"gradients": 11}),
    (SquareAttack(queries=300), 0.2, {"queries": 40}),
    (SimpleBlackBox(queries=300), 0.2, {"queries": 25}),
    (CarliniWagner(steps=20, binary_search=4), 0.6, {"gradients": 30}),
    (OnePixel(), 1.0, {"queries": 70}),
]


@pytest.mark.parametrize(("attack", "epsilon", "budget"), ATTACKS, ids=[attack.name for attack, *_ in ATTACKS])
def test_no_sample_gets_more_than_its_budget_and_none_depends_on_its_neighbours(
    attack: Attack, epsilon: float, budget: dict[str, float]
) -> None:
    together = records(attack, epsilon, slice(0, 8), **budget)
    alone = pa.concat_tables([records(attack, epsilon, slice(row, row + 1), **budget) for row in range(8)])
    for column, limit in (("forwards", budget.get("queries")), ("backwards", budget.get("gradients"))):
        assert limit is None or max(together[column].to_pylist()) <= limit
        assert together[column].to_pylist() == alone[column].to_pylist()
    assert broken(together) == broken(alone)
    assert together["stopped"].to_pylist() == alone["stopped"].to_pylist()
    assert any(together["stopped"].to_pylist()), "the budget was too large to test anything"


def test_what_was_found_before_the_budget_ended_counts() -> None:
    class Wanders(Attack):
        """Asks about an adversarial input, goes on, and would return the input itself."""

        norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF,)
        norm: Norm = Norm.LINF
        asks: int = 5

        def run(self, model: Classifier, x: Tensor, y: Tensor, epsilon: float | None, random: SampleRandom) -> Tensor:
            for _ in range(self.asks):
                model.logits(1 - x)
            return x

    model = digits.model()
    x, y = digits.right(N)
    fooled = (model.logits(1 - x).argmax(1) != y).tolist()
    assert any(fooled)
    assert broken(records(Wanders(), 1.0, queries=4)) == fooled
    assert not any(broken(records(Wanders(), 1.0, queries=5))), "within its budget its own answer counts"
    assert not any(broken(records(Wanders(), 0.1, queries=4))), "what it asked about was outside the ball"


def test_the_clock_stops_an_attack_and_what_it_has_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = itertools.count()
    monkeypatch.setattr("bench.budgets.time", SimpleNamespace(monotonic=lambda: 0.001 * next(looks)))
    table = records(ProjectedGradientDescent(steps=100_000, step_size=1e-4), 0.02, slice(0, 4), seconds=0.3)
    assert all(stopped or lost for stopped, lost in zip(table["stopped"].to_pylist(), broken(table), strict=True))
    assert 100 < max(table["forwards"].to_pylist()) <= 300


def test_inputs_that_belong_to_nobody_cannot_be_charged() -> None:
    class Doubles(Attack):
        norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF,)
        norm: Norm = Norm.LINF

        def run(self, model: Classifier, x: Tensor, y: Tensor, epsilon: float | None, random: SampleRandom) -> Tensor:
            model.logits(torch.cat([x, x]))
            return x

    with pytest.raises(PluginError, match="whose budget pays"):
        records(Doubles(), queries=4)
    with pytest.raises(PluginError, match="whose target"):
        records(Doubles(), goal=Goal.RANDOM)


@pytest.mark.parametrize("goal", [Goal.RUNNER_UP, Goal.LEAST_LIKELY, Goal.RANDOM])
@pytest.mark.parametrize("attack", [FORTY, SquareAttack(queries=200), CarliniWagner(steps=30, binary_search=3)])
def test_with_a_target_only_what_reaches_it_is_broken(attack: Attack, goal: Goal) -> None:
    epsilon = 2.0 if attack.minimal else 0.3
    table = records(attack, epsilon, goal=goal)
    x, y = digits.right(N)
    scores = digits.module()(x)
    others = scores.scatter(1, y[:, None], torch.nan)
    aims = {
        Goal.RUNNER_UP: others.nan_to_num(-torch.inf).argmax(1).tolist(),
        Goal.LEAST_LIKELY: others.nan_to_num(torch.inf).argmin(1).tolist(),
    }
    reached = [
        answer for answer, lost in zip(table["adversarial_prediction"].to_pylist(), broken(table), strict=True) if lost
    ]
    assert reached
    if goal in aims:
        assert reached == [aim for aim, lost in zip(aims[goal], broken(table), strict=True) if lost]
    assert not set(broken(table)) - {True, False}
    assert sum(broken(table)) <= sum(broken(records(attack, epsilon)))


def test_a_drawn_target_belongs_to_the_sample_and_is_never_the_label() -> None:
    whole = records(ProjectedGradientDescent(), 1.0, goal=Goal.RANDOM)
    parts = pa.concat_tables(
        [records(ProjectedGradientDescent(), 1.0, rows, Goal.RANDOM) for rows in (slice(0, 5), slice(5, N))]
    )
    assert whole["adversarial_prediction"].to_pylist() == parts["adversarial_prediction"].to_pylist()
    labels = whole["label"].to_numpy()
    assert all(broken(whole))
    assert (whole["adversarial_prediction"].to_numpy() != labels).all()
    assert len(set(whole["adversarial_prediction"].to_pylist())) > 4


def test_a_budget_holds_with_a_target_too() -> None:
    table = records(FORTY, 0.3, goal=Goal.LEAST_LIKELY, gradients=5)
    assert max(table["backwards"].to_pylist()) == 5
    assert sum(broken(table)) < sum(broken(records(FORTY, 0.3, goal=Goal.LEAST_LIKELY)))
