"""The unscaled binarised net of *Attacking Binarized Neural Networks* masks its gradients; its float twin does not."""

import numpy as np
import pytest
import torch

from adapters.binarised import Binarised
from adapters.digits import Digits
from bench.contracts import Classifier, Report
from bench.gradient_checks import Sign, examine, margin, unrounded
from bench.measure import clean
from bench.metrics.rows import rows
from bench.records import Cell, Kind
from tests.attacks import digits

N = 200


class _Quiet(Report):
    def step(self, done: int, total: int, **figures: float) -> None: ...


def trained(variant: str, rate: float) -> Classifier:
    """64 kernels, as suites/attacking_bnns.yaml has it."""
    fields = {"variant": variant, "width": 64, "data": {"dataset": "digits"}}
    adapter = Binarised.model_validate({**fields, "train": {"epochs": 20, "learning_rate": rate}})
    training = adapter.training()
    assert training is not None
    return adapter.build(training.train(Digits(split="train").load(), None, 0, _Quiet()))


def suspicions(model: Classifier) -> list[str]:
    table = clean(model, Digits(split="test").load(), np.arange(N), examined=64)
    [row] = rows([Cell("m", "d", "clean", Kind.CLEAN, table, planned=N)])
    return [flag for flag in row.flags if ": suspect: " in flag]


@pytest.mark.slow
def test_the_unscaled_binarised_net_is_suspect_for_its_large_logits_and_the_float_net_is_not() -> None:
    honest, masked = trained("A", 0.005), trained("B", 0.01)
    data = Digits(split="test").load()
    x, y = data.fetch(np.arange(N)), torch.from_numpy(data.labels[:N])
    with torch.no_grad():
        larger = float(masked.logits(x).abs().mean() / honest.logits(x).abs().mean())
    assert 2.5 < larger < 6, "published: about four times"
    assert suspicions(honest) == []
    [flag] = suspicions(masked)
    assert "the cross-entropy's gradient points elsewhere than without rounding" in flag

    def left(loss: object) -> float:
        """Accuracy after one sign step of .2."""
        leaf = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(loss(masked.logits(leaf), y).sum(), leaf)  # type: ignore[operator]
        with torch.no_grad():
            return float((masked.logits((x + 0.2 * slope.sign()).clamp(0, 1)).argmax(1) == y).float().mean())

    rounded = left(lambda logits, y: torch.nn.functional.cross_entropy(logits, y, reduction="none"))
    assert rounded > left(unrounded) + 0.03, "the loss was what held the attack back"


def test_the_sign_is_set_where_rounding_takes_the_labels_part_of_the_gradient_and_nowhere_else() -> None:
    class Scaled(digits.DigitsNet):
        factor = 1.0

        def logits(self, x: torch.Tensor) -> torch.Tensor:
            return self.factor * super().logits(x)

    x, y = digits.right(40)
    model = Scaled(digits.module())
    gap = -margin(model.logits(x), y)
    model.factor = 16.6 / float(gap.median())
    marked = [Sign.ROUNDED_LOSS in signs for signs in examine(model, x, y, digits.streams(40))]
    wide = (model.factor * gap > 16.64).tolist()
    assert 10 < sum(marked) < 30
    assert all(far or not sign for sign, far in zip(marked, (model.factor * gap > 14).tolist(), strict=True))
    assert sum(sign for sign, far in zip(marked, wide, strict=True) if far) > 0.8 * sum(wide)
    model.factor = 10 / float(gap.max())
    assert not any(Sign.ROUNDED_LOSS in signs for signs in examine(model, x, y, digits.streams(40)))


def test_the_unrounded_loss_has_the_direction_of_the_cross_entropy_in_double_precision() -> None:
    logits = (3 * torch.randn(50, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).requires_grad_()
    y = torch.arange(50) % 10
    (known,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, y, reduction="sum"), logits)
    (found,) = torch.autograd.grad(unrounded(logits, y).sum(), logits)
    assert torch.nn.functional.cosine_similarity(known, found).min() > 1 - 1e-9
