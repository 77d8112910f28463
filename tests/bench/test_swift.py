"""bench/swift.py: the same numbers up to rounding, or the model itself."""

import pytest
import torch
from torch import Tensor, nn

from bench.contracts import Gradients
from bench.swift import Swift, swift
from tests.attacks import digits


def test_logits_and_gradients_are_those_of_the_model_for_every_size_of_batch() -> None:
    x, _ = digits.right(40)
    model = digits.model()
    fast = swift(model, x)
    assert isinstance(fast, Swift)
    for n in (1, 7, 40):
        torch.testing.assert_close(fast.logits(x[:n]), model.logits(x[:n]), rtol=1e-4, atol=1e-4)
        slopes = []
        for classifier in (fast, model):
            leaf = x[:n].clone().requires_grad_()
            slopes.append(torch.autograd.grad(classifier.logits(leaf).square().sum(), leaf)[0])
        torch.testing.assert_close(*slopes, rtol=1e-3, atol=1e-3)
    assert fast.logits(x[:0]).shape == (0, 10)


def test_the_model_is_left_as_it_was() -> None:
    x, _ = digits.right(8)
    net = digits.module()
    before = {name: (value.clone(), value.stride(), value._version) for name, value in net.state_dict().items()}
    swift(digits.model(), x)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name][0])
        assert (value.stride(), value._version) == before[name][1:]


class Counting(nn.Module):
    """Depends on the size of its batch in a way that no trace keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1)) * (2.0 if x.shape[0] > 1 else 1.0)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_model_that_cannot_be_imitated_is_attacked_as_it_is() -> None:
    x, _ = digits.right(8)
    odd = digits.DigitsNet(Counting().eval().requires_grad_(False))
    assert swift(odd, x) is odd
    scaled = digits.model()
    scaled.logits = lambda x: 2 * digits.module()(x)  # type: ignore[method-assign]
    assert swift(scaled, x) is scaled
    for name, value in (("stochastic", True), ("gradients", Gradients.SURROGATE), ("device", "cuda:0")):
        other = digits.model()
        setattr(other, name, value)
        assert swift(other, x) is other
