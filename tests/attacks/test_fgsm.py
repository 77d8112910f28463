"""attacks/fgsm.py against two plain lines."""

import torch

from attacks.fgsm import FastGradientSign
from tests.attacks import digits


def test_is_one_step_along_the_sign_of_the_gradient() -> None:
    x, y = digits.right(50)
    moved = FastGradientSign().run(digits.model(), x, y, 0.1, digits.streams(50))
    leaf = x.clone().requires_grad_()
    torch.nn.functional.cross_entropy(digits.module()(leaf), y).backward()
    torch.testing.assert_close(moved, (x + 0.1 * leaf.grad.sign()).clamp(0, 1), rtol=0, atol=1e-7)
