"""A model that answers under Gaussian noise: what randomised smoothing certifies (Cohen et al. 2019)."""

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from bench.contracts import (
    Adapter,
    AdapterChoice,
    Classifier,
    DatasetChoice,
    Plugin,
    Report,
    Samples,
    Training,
    adapter,
    adapters,
)
from bench.errors import PluginError


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
class Smoothed(Adapter):
    """Another model under Gaussian noise: stochastic, attacked by averaging, and certified by `smoothing`.

    model: the adapter of the base model, best one that was trained under such noise. sigma: standard deviation of the
    noise, in input units.
    """

    model: AdapterChoice = Field(description="the base model, as `{adapter: NAME, args: {...}}`")
    sigma: float = Field(default=0.25, gt=0, allow_inf_nan=False, description="standard deviation, in input units")

    @model_validator(mode="after")
    def _complete(self) -> "Smoothed":
        if self.weights is not None:
            raise ValueError("`weights` belongs to the base model: put it under `model.args`")
        self.original()  # a wrong name or argument is told here
        return self

    def original(self) -> Adapter:
        """The adapter of the base model."""
        return adapters.build(self.model.adapter, self.model.args)

    def inner_plugins(self) -> tuple[Plugin, ...]:
        return (self.original(),)

    def build(self, weights: bytes | None) -> SmoothedClassifier:
        return SmoothedClassifier(self.original().build(weights), self.sigma)

    def place(self, classifier: Classifier, device: str) -> Classifier:
        if isinstance(classifier, SmoothedClassifier):
            classifier.inner = self.original().place(classifier.inner, device)
            classifier.device = classifier.inner.device
        return classifier

    def training(self) -> Training:
        return _Base(self)


class _Base(Training):
    """The weights of the base model, as they are."""

    data = DatasetChoice(dataset="digits", split="train")  # is not read

    def __init__(self, model: Smoothed) -> None:
        self.parent: Adapter = model.original()
        self.model = model

    def recipe(self) -> Mapping[str, Any]:
        args = self.parent.model_dump(mode="json", exclude={"weights"})
        return {"base": self.model.model.adapter, "args": args}

    def train(self, samples: Samples, parent: bytes | None, seed: int, report: Report) -> bytes:
        if parent is None:
            raise PluginError(f"model '{self.model.model.adapter}' has no weights to put under noise")
        report.step(1, 1)
        return parent
