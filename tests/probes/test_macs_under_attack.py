import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from bench import plugins
from bench.contracts import Norm
from bench.errors import PluginError
from bench.probes.macs_under_attack import MacsUnderAttack
from tests.probes.nets import Wrapped, by_name, noise

plugins.load_built_in()


class Brightness(nn.Module):
    """Two layers for inputs whose mean is above one half, else one. The label 0 is lost by growing brighter."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 2), nn.Linear(6, 2)
        for layer in (self.first, self.second):
            layer.weight.data = torch.stack([-torch.ones(6), torch.ones(6)])
            layer.bias.data = torch.tensor([6.0, 0.0])

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return y + self.second(x) if x.mean() > 0.5 else y


def test_an_attack_can_make_a_dynamic_model_cost_more_and_the_ratio_says_how_much():
    model = Wrapped(Brightness(), (6,), classes=2)
    figures = by_name(MacsUnderAttack(epsilon=1.0, attack="fgsm", inputs=8).measure(model, noise((6,)), None))
    assert figures["attacked_macs"].value == 24, "each input was made bright"
    bright = int((noise((6,)).fetch(torch.arange(8).numpy()).mean(1) > 0.5).sum())
    assert figures["attacked_macs/ratio"].value == pytest.approx(24 / (12 + 12 * bright / 8))
    assert figures["attacked_macs/max"].value == 24


def test_the_attack_is_checked_beforehand():
    with pytest.raises(PluginError, match="did you mean 'pgd'"):
        MacsUnderAttack(epsilon=0.1, attack="pdg")
    with pytest.raises(ValidationError, match="no norm 'l0'"):
        MacsUnderAttack(epsilon=0.1, norm=Norm.L0)
