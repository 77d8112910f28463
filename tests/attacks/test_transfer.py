import pytest
import torch
from pydantic import ValidationError

import attacks.foolbox  # noqa: F401 - registers the attack that is refused
from attacks.pgd import ProjectedGradientDescent
from attacks.transfer import Transfer
from bench.contracts import Norm
from bench.errors import PluginError
from tests.attacks import digits


class Deaf(type(digits.model())):
    """Gives gradients of zero, and names the honest model as its source."""

    @property
    def source(self):
        return digits.model()

    def logits(self, x):
        return super().logits(x.detach()) + 0 * x.flatten(1).sum(1, keepdim=True)


def test_examples_are_crafted_on_the_source_and_not_on_the_model_itself():
    x, y = digits.right(8)
    deaf = digits.model()
    deaf.__class__ = Deaf
    own = ProjectedGradientDescent(steps=5).run(digits.model(), x, y, 0.2, digits.streams(8))
    assert torch.equal(Transfer(args={"steps": 5}).run(deaf, x, y, 0.2, digits.streams(8)), own)
    assert not torch.equal(ProjectedGradientDescent(steps=5).run(deaf, x, y, 0.2, digits.streams(8)), own)


def test_a_model_without_a_source_is_attacked_itself():
    x, y = digits.right(8)
    own = ProjectedGradientDescent(steps=5).run(digits.model(), x, y, 0.2, digits.streams(8))
    assert torch.equal(Transfer(args={"steps": 5}).run(digits.model(), x, y, 0.2, digits.streams(8)), own)


def test_the_crafting_attack_is_checked_beforehand_and_is_a_part_of_the_identity():
    with pytest.raises(PluginError, match="did you mean 'pgd'"):
        Transfer(attack="pdg")
    with pytest.raises(ValidationError, match="no norm 'l0'"):
        Transfer(norm=Norm.L0)
    with pytest.raises(ValidationError, match="must name the attack that crafts"):
        Transfer(attack="transfer")
    with pytest.raises(PluginError, match="smallest distance"):
        Transfer(attack="foolbox.l2_deep_fool", norm=Norm.L2)
    assert Transfer(args={"steps": 7}).inner_plugins() == (ProjectedGradientDescent(steps=7),)
