"""A model that answers under Gaussian noise: what randomised smoothing certifies (Cohen et al. 2019)."""

import torch
from pydantic import Field
from torch import Tensor

from adapters.derived import Derived, Unchanged
from bench.contracts import Classifier, Training, Wrapped, adapter


class SmoothedClassifier(Wrapped):
    """`model` at x plus noise, drawn anew for each row of each pass from torch's generator; not cut by the bounds."""

    def __init__(self, model: Classifier, sigma: float) -> None:
        super().__init__(model)
        self.stochastic, self.smoothing, self._sigma = True, sigma, sigma

    def seen(self, x: Tensor) -> Tensor:
        x = x.to(torch.float32)
        return x + self._sigma * torch.randn_like(x)

    def around(self, model: Classifier) -> "SmoothedClassifier":
        return SmoothedClassifier(model, self._sigma)


@adapter("smoothed")
class Smoothed(Derived):
    """Another model under Gaussian noise: stochastic, attacked by averaging, and certified by `smoothing`.

    model: the adapter of the base model, best one that was trained under such noise. sigma: standard deviation of the
    noise, in input units.
    """

    sigma: float = Field(default=0.25, gt=0, allow_inf_nan=False, description="standard deviation, in input units")

    @property
    def untraceable(self) -> str:
        return "the noise is drawn by torch, and no part of a program"

    def build(self, weights: bytes | None) -> SmoothedClassifier:
        return SmoothedClassifier(self.original().build(weights), self.sigma)

    def training(self) -> Training:
        return Unchanged(self)
