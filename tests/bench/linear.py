"""A linear classifier as a plugin outside the registry: what the tests of registered models register."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeClassifier
from torch import Tensor, nn

from bench.contracts import Adapter, Bounds, Classifier, adapters
from bench.errors import PluginError


class LinearClassifier(Classifier):
    """Logits are `scale` times the affine function of the flattened input."""

    bounds = Bounds(0.0, 1.0)

    def __init__(self, layer: nn.Linear, scale: float) -> None:
        self.layer, self.scale = layer, scale
        self.input_shape, self.classes = (layer.in_features,), layer.out_features

    def logits(self, x: Tensor) -> Tensor:
        return self.scale * self.layer(x)

    @property
    def module(self) -> nn.Module:
        return self.layer


class Linear(Adapter):
    """A linear classifier."""

    scale: float = 1.0

    def build(self, weights: bytes | None) -> Classifier:
        if weights is None:
            raise PluginError("linear: no weights")
        tensors = load(weights)
        layer = nn.Linear(*reversed(tensors["weight"].shape)).eval().requires_grad_(False)
        layer.load_state_dict(tensors)
        return LinearClassifier(layer, self.scale)

    def place(self, classifier: Classifier, device: str) -> Classifier:
        classifier.device = f"placed on {device}"
        return classifier


@pytest.fixture
def linear(monkeypatch: pytest.MonkeyPatch) -> str:
    """The adapter `linear`, known during one test only: the registry's contracts do not run over it."""
    monkeypatch.setattr(Linear, "name", "linear")
    monkeypatch.setitem(adapters._classes, "linear", Linear)
    return "linear"


@cache
def fitted() -> tuple[RidgeClassifier, NDArray[Any], bytes]:
    """A ridge classifier of scikit-learn on the real digits, the inputs, and its weights as safetensors."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    model = RidgeClassifier().fit(x[:1000], y[:1000])
    arrays = {"weight": model.coef_, "bias": model.intercept_}
    return (
        model,
        x[1000:],
        save({name: torch.tensor(value, dtype=torch.float32).contiguous() for name, value in arrays.items()}),
    )
