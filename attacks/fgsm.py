"""Fast gradient sign method (Goodfellow, Shlens and Szegedy 2015, arXiv:1412.6572, section 4)."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from attacks.ball import box
from bench.contracts import Allowance, Attack, Classifier, Knowledge, Norm, attack
from bench.randomness import SampleRandom


@attack("fgsm")
class FastGradientSign(Attack):
    """One step of size epsilon along the sign of the loss gradient."""

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF,)
    knowledge: ClassVar[Knowledge] = Knowledge.WHITE_BOX

    norm: Norm = Norm.LINF

    @property
    def allowance(self) -> Allowance:
        return Allowance(steps=1)

    def run(self, model: Classifier, x: Tensor, y: Tensor, epsilon: float | None, random: SampleRandom) -> Tensor:
        """See Attack.run. One forward and one backward pass per sample; no randomness."""
        assert epsilon is not None
        if len(x) == 0:
            return x
        low, high = box(x, epsilon, model.bounds)
        start = x.detach().requires_grad_()
        loss = cross_entropy(model.logits(start), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, start)
        return torch.minimum(torch.maximum(x + epsilon * gradient.sign(), low), high)
