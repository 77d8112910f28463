"""Models whose answers are random: repeated passes, the majority, and what stands in records and rows."""

import numpy as np
import pytest
import torch
from torch import Tensor

from attacks.pgd import ProjectedGradientDescent
from bench.contracts import Attack, Bounds, Classifier, Judging, Norm, Samples
from bench.measure import attacked, clean
from bench.metering import judged
from bench.metrics.rows import rows
from bench.randomness import SampleRandom
from bench.records import Cell, Kind
from tests.attacks import digits

N = 12


class Coin(Classifier):
    """Says class 1 with a probability that is the input's one value, else class 0."""

    input_shape = (1,)
    bounds = Bounds(0, 1)
    classes = 2
    stochastic = True

    def logits(self, x: Tensor) -> Tensor:
        one = (torch.rand(len(x)) < x[:, 0]).float() + 0 * x[:, 0]
        return torch.stack([1 - one, one], dim=1)


class Move(Attack):
    """Goes epsilon down."""

    norms = (Norm.LINF,)
    norm: Norm = Norm.LINF

    def run(self, model: Classifier, x: Tensor, y: Tensor, epsilon: float | None, random: SampleRandom) -> Tensor:
        assert epsilon is not None
        return (x - epsilon).clamp(0, 1)


def samples(probability: float, n: int = N) -> Samples:
    x = torch.full((n, 1), probability)
    return Samples(np.ones(n, dtype=np.int64), lambda i: x[torch.from_numpy(i)], (1,), Bounds(0, 1), ("0", "1"), "d")


@pytest.mark.parametrize(("majority", "right"), [(0.5, True), (0.9, False)])
def test_the_label_is_the_answer_where_the_majority_gave_it(majority: float, right: bool) -> None:
    x = torch.full((200, 1), 0.7)
    answer, kept = judged(Coin(), x, np.ones(200, np.int32), Judging(passes=101, majority=majority), seed=1)
    assert bool((answer == 1).all()) is right
    assert bool((answer == 0).all()) is not right
    assert kept.mean() == pytest.approx(0.7, abs=0.02)
    torch.manual_seed(1)
    plain = np.mean([(torch.rand(200) < 0.7).numpy() for _ in range(101)], axis=0)
    assert kept.tolist() == plain.tolist()


def test_a_deterministic_model_is_passed_once() -> None:
    model, calls = digits.model(), []
    x, y = digits.right(4)

    class Counting(digits.DigitsNet):
        def logits(self, x: Tensor) -> Tensor:
            calls.append(len(x))
            return super().logits(x)

    judged(Counting(model.net), x, y.numpy().astype(np.int32), Judging(), seed=0)
    assert calls == [4]


def test_an_adversarial_input_counts_by_the_majority_and_mean_and_worst_stand_beside_it() -> None:
    found = attacked(Move(), (0.3, 0.9), "t", Coin(), samples(0.95), np.arange(N), 0, Judging(passes=41))
    kept = np.array(found["kept"].to_pylist())
    assert kept.shape == (N, 2)
    assert kept[:, 0].mean() == pytest.approx(0.65, abs=0.06)
    assert kept[:, 1].mean() == pytest.approx(0.05, abs=0.03)
    assert [verdict[1] for verdict in found["broken"].to_pylist()] == [True] * N
    assert [verdict[0] for verdict in found["broken"].to_pylist()] == (kept[:, 0] < 0.5).tolist()

    cell = Cell(
        "m", "d", "move", Kind.ATTACK, found, norm="linf", epsilons=(0.3, 0.9), knowledge="white-box", planned=N
    )
    [row] = rows([cell])
    assert row.metrics["mean_accuracy/linf/move/0.3"].value == pytest.approx(kept[:, 0].mean())
    assert row.metrics["unanimous_accuracy/linf/move/0.9"].value == 0
    assert any("suspect: the model is random, the attack followed single passes" in flag for flag in row.flags)


def test_the_same_task_gives_the_same_records() -> None:
    runs = [
        attacked(Move(), (0.3,), "t", Coin(), samples(0.8), np.arange(N), 0, Judging(passes=5)).to_pylist()
        for _ in range(2)
    ]
    assert runs[0] == runs[1]


def test_the_untouched_input_is_judged_by_the_same_majority() -> None:
    found = clean(Coin(), samples(0.6, 50), np.arange(50), judging=Judging(passes=11, majority=1.0))
    assert found["prediction"].to_pylist().count(1) <= 2
    found = clean(Coin(), samples(0.6, 50), np.arange(50), judging=Judging(passes=301))
    assert found["prediction"].to_pylist() == [1] * 50


class Noisy(digits.DigitsNet):
    """Strong noise on the input: single gradients say little."""

    stochastic = True

    def logits(self, x: Tensor) -> Tensor:
        return super().logits((x + 1.2 * (torch.rand(x.shape) - 0.5)).clamp(0, 1))


def test_averaging_over_passes_breaks_more_of_a_random_model_and_is_not_flagged() -> None:
    x, y = digits.right(60)
    data = Samples(y.numpy(), lambda i: x[torch.from_numpy(i)], (1, 8, 8), Bounds(0, 1), ("",) * 10, "d")
    left = {}
    for eot in (1, 12):
        attack = ProjectedGradientDescent(steps=6, eot=eot)
        found = attacked(attack, (0.15,), "t", Noisy(digits.module()), data, np.arange(60), 0, Judging(passes=21))
        left[eot] = np.mean([shares[0] for shares in found["kept"].to_pylist()])
        assert (found["signs"].null_count == 0) is (eot == 1)
    assert left[12] < left[1] - 0.02
