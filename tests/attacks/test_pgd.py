"""attacks/pgd.py against a plain loop, one sample at a time, and against Foolbox's own."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from attacks.foolbox_import import Misclassification, PyTorchModel, exported
from attacks.pgd import ProjectedGradientDescent
from bench.contracts import Norm
from tests.attacks import digits

EPSILON, STEP, STEPS = 0.1, 0.01, 40


class Counting(digits.DigitsNet):
    """Counts the forward passes of each row of the batch."""

    def __init__(self, n: int) -> None:
        super().__init__(digits.module())
        self.passes = torch.zeros(n, dtype=torch.int64)
        self.part = torch.arange(n)

    def rows(self, rows: torch.Tensor) -> "Counting":
        other = Counting(0)
        other.passes, other.part = self.passes, rows
        return other

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        assert len(x) == len(self.part)
        self.passes[self.part] += 1
        return super().logits(x)


def broken(moved: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return digits.module()(moved).argmax(1) != y


def loop(x: torch.Tensor, y: torch.Tensor) -> tuple[bool, int]:
    """A plain descent of one sample: whether any iterate is broken, and which is the first."""
    moved = x.clone()
    for step in range(STEPS + 1):
        moved = moved.detach().requires_grad_()
        logits = digits.module()(moved)
        if logits.argmax(1) != y:
            return True, step
        torch.nn.functional.cross_entropy(logits, y).backward()
        moved = torch.clamp(moved.detach() + STEP * moved.grad.sign(), x - EPSILON, x + EPSILON).clamp(0, 1)
    return False, STEPS


def test_gives_the_verdicts_of_a_plain_loop_and_spends_only_the_passes_it_needs() -> None:
    x, y = digits.right(60)
    model = Counting(60)
    attack = ProjectedGradientDescent(steps=STEPS, step_size=STEP, random_start=False)
    moved = attack.run(model, x, y, EPSILON, digits.streams(60))
    plain = [loop(x[i : i + 1], y[i : i + 1]) for i in range(60)]
    assert broken(moved, y).tolist() == [verdict for verdict, _ in plain]
    assert 5 < sum(verdict for verdict, _ in plain) < 55
    assert model.passes.tolist() == [min(first + 1, STEPS) for _, first in plain]


def test_agrees_with_foolbox() -> None:
    x, y = digits.right(200)
    moved = ProjectedGradientDescent(steps=STEPS, step_size=STEP, random_start=False).run(
        digits.model(), x, y, EPSILON, digits.streams(200)
    )
    theirs = exported.LinfPGD(steps=STEPS, abs_stepsize=STEP, random_start=False).run(
        PyTorchModel(digits.module(), bounds=(0, 1), device="cpu"), x, Misclassification(y), epsilon=EPSILON
    )
    assert int((broken(moved, y) != broken(theirs, y)).sum()) <= 1  # Foolbox's last iterate may be whole again


@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2])
def test_random_starts_belong_to_the_sample_and_restarts_never_lose(norm: Norm) -> None:
    x, y = digits.right(40)
    epsilon = 0.1 if norm is Norm.LINF else 0.6
    once = ProjectedGradientDescent(norm=norm, steps=3).run(digits.model(), x, y, epsilon, digits.streams(40))
    alone = ProjectedGradientDescent(norm=norm, steps=3).run(
        digits.model(), x[17:18], y[17:18], epsilon, digits.streams(1, 17)
    )
    more = ProjectedGradientDescent(norm=norm, steps=3, restarts=4)
    torch.testing.assert_close(alone[0], once[17], rtol=0, atol=1e-4)
    again = broken(more.run(digits.model(), x, y, epsilon, digits.streams(40)), y)
    assert bool((again | ~broken(once, y)).all())


def test_momentum_is_that_of_the_paper() -> None:
    """Dong et al. 2018, equations 6 and 7, in plain lines: g = mu g + grad / |grad|_1, a step of its sign."""
    x, y = digits.right(20)
    steps, mu, epsilon, stride = 6, 0.9, 0.02, 0.008  # so little that most samples stand
    attack = ProjectedGradientDescent(steps=steps, step_size=stride, momentum=mu, random_start=False)
    moved = attack.run(digits.model(), x, y, epsilon, digits.streams(20))
    for row in range(20):
        point, along = x[row : row + 1].clone(), torch.zeros(1, 1, 8, 8)
        for _ in range(steps):
            point = point.detach().requires_grad_()
            logits = digits.module()(point)
            if logits.argmax(1) != y[row]:
                break
            torch.nn.functional.cross_entropy(logits, y[row : row + 1]).backward()
            along = mu * along + point.grad / point.grad.abs().sum()
            point = (point.detach() + stride * along.sign()).clamp(x[row] - epsilon, x[row] + epsilon).clamp(0, 1)
        torch.testing.assert_close(moved[row], point.detach()[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 0}, {"step_size": 0}, {"norm": "l1"}, {"stepsize": 1}, {"restarts": 2, "random_start": False}],
)
def test_refuses_parameters_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ProjectedGradientDescent(**wrong)
