"""The adaptive attack on a net whose detector is a closed form: how rough an input is."""

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from attacks.orthogonal_pgd import OrthogonalPgd, _without
from attacks.pgd import ProjectedGradientDescent
from bench.contracts import Classifier, Norm
from bench.errors import PluginError
from tests.attacks import digits

ROUGH = 12.0  # above it, an input is flagged
EPSILON = {"linf": 0.15, "l2": 1.0}


class Watched(digits.DigitsNet):
    """Suspicious of what is not smooth: the squared differences of neighbouring pixels, less a threshold."""

    def suspicion(self, x: Tensor) -> Tensor:
        return _roughness(x) - ROUGH


def _roughness(x: Tensor) -> Tensor:
    x = x.double()
    return x.diff(dim=2).square().sum(dim=(1, 2, 3)) + x.diff(dim=3).square().sum(dim=(1, 2, 3))


def evaded(model: Classifier, moved: Tensor, y: Tensor) -> Tensor:
    """Misclassified, and not flagged."""
    return (model.logits(moved).argmax(1) != y) & (_roughness(moved) <= ROUGH)


@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2])
@pytest.mark.parametrize("variant", ["orthogonal", "selective"])
def test_it_fools_classifier_and_detector_together_where_pgd_fools_only_one(norm: Norm, variant: str) -> None:
    model = Watched(digits.module())
    x, y = digits.right(40)
    epsilon = EPSILON[norm]
    blind = ProjectedGradientDescent(norm=norm).run(model, x, y, epsilon, digits.streams(40))
    adaptive = OrthogonalPgd(norm=norm, variant=variant).run(model, x, y, epsilon, digits.streams(40))
    lost = model.logits(adaptive).argmax(1) != y
    assert lost.float().mean() >= (model.logits(blind).argmax(1) != y).float().mean() - 0.05
    assert evaded(model, adaptive, y).sum() > evaded(model, blind, y).sum() + 2


def test_of_the_iterates_that_lost_the_label_the_least_suspicious_is_returned() -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    class Noted(Watched):
        def suspicion(self, x: Tensor) -> Tensor:
            found = super().suspicion(x)
            seen.append((self.logits(x).detach().argmax(1), found.detach()))
            return found

    model = Noted(digits.module())
    x, y = digits.right(12)
    moved = OrthogonalPgd(steps=30).run(model, x, y, 0.15, digits.streams(12))
    classes, suspicion = (torch.stack(part) for part in zip(*seen, strict=True))
    allowed = torch.where(classes != y, suspicion, torch.inf).amin(dim=0)
    final = model.logits(moved).argmax(1) != y
    assert torch.equal(final, allowed.isfinite())
    assert (_roughness(moved) - ROUGH)[final] == pytest.approx(allowed[final])


def test_what_is_left_is_orthogonal_and_nothing_else_is_lost() -> None:
    gradient, other = torch.randn(5, 1, 3, 3, generator=torch.Generator().manual_seed(0)), torch.ones(5, 1, 3, 3)
    left = _without(gradient, other)
    assert (left * other).sum(dim=(1, 2, 3)) == pytest.approx(torch.zeros(5), abs=1e-5)
    assert (gradient - left).std(dim=(1, 2, 3)) == pytest.approx(torch.zeros(5), abs=1e-6)
    assert torch.equal(_without(gradient, torch.zeros_like(other)), gradient)


def test_a_detector_without_a_gradient_is_refused_and_so_is_another_norm() -> None:
    class Blind(digits.DigitsNet):
        def suspicion(self, x: Tensor) -> Tensor:
            raise PluginError("detector 'lof' has no gradient that an adaptive attack could follow")

    x, y = digits.right(2)
    with pytest.raises(PluginError, match="no gradient"):
        OrthogonalPgd(steps=2).run(Blind(digits.module()), x, y, 0.1, digits.streams(2))
    with pytest.raises(ValidationError, match="it has: linf, l2"):
        OrthogonalPgd(norm=Norm.L1)
