"""A model that answers under Gaussian noise: what randomised smoothing certifies (Cohen et al. 2019)."""

import torch
from pydantic import Field
from torch import Tensor, nn

from adapters.derived import Derived, Unchanged
from bench.contracts import (
    Classifier,
    Training,
    adapter,
)


class SmoothedClassifier(Classifier):
    """`inner` at x plus noise, drawn anew for each row of each pass from torch's generator; not cut by the bounds."""

    stochastic = True

    def __init__(self, inner: Classifier, sigma: float) -> None:
        self.inner, self.smoothing = inner, sigma
        for name in ("input_shape", "bounds", "classes", "gradients", "realisation", "runtime", "device"):
            setattr(self, name, getattr(inner, name))

    def logits(self, x: Tensor) -> Tensor:
        assert self.smoothing is not None
        x = x.to(torch.float32)
        return self.inner.logits(x + self.smoothing * torch.randn_like(x))

    @property
    def module(self) -> nn.Module | None:
        return self.inner.module


@adapter("smoothed")
class Smoothed(Derived):
    """Another model under Gaussian noise: stochastic, attacked by averaging, and certified by `smoothing`.

    model: the adapter of the base model, best one that was trained under such noise. sigma: standard deviation of the
    noise, in input units.
    """

    sigma: float = Field(default=0.25, gt=0, allow_inf_nan=False, description="standard deviation, in input units")

    def build(self, weights: bytes | None) -> SmoothedClassifier:
        return SmoothedClassifier(self.original().build(weights), self.sigma)

    def place(self, classifier: Classifier, device: str) -> Classifier:
        if isinstance(classifier, SmoothedClassifier):
            classifier.inner = self.original().place(classifier.inner, device)
            classifier.device = classifier.inner.device
        return classifier

    def training(self) -> Training:
        return Unchanged(self)
