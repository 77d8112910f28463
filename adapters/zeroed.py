"""A model whose smallest weights are zero: fewer numbers to remember, and not a microsecond saved."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator
from torch import Tensor

from adapters.torch_classifier import state_from_bytes, state_to_bytes
from bench.contracts import (
    Adapter,
    AdapterChoice,
    Classifier,
    DatasetChoice,
    Plugin,
    Realisation,
    Report,
    Samples,
    Training,
    adapter,
    adapters,
)
from bench.errors import PluginError


@adapter("zeroed")
class Zeroed(Adapter):
    """Another model with the smallest weights of each layer set to zero, without any further training.

    model: the adapter of the dense model; its weights are a state dict. share: of the weights of every convolution and
    linear layer, the smallest in magnitude (Han et al. 2015, without retraining). Shapes stay as they are.
    """

    model: AdapterChoice = Field(description="the dense model, as `{adapter: NAME, args: {...}}`")
    share: float = Field(default=0.5, ge=0, lt=1, description="share of each layer's weights that become zero")

    @model_validator(mode="after")
    def _complete(self) -> "Zeroed":
        if self.weights is not None:
            raise ValueError("`weights` belongs to the dense model: put it under `model.args`")
        self.original()  # a wrong name or argument is told here
        return self

    def original(self) -> Adapter:
        """The adapter of the dense model."""
        return adapters.build(self.model.adapter, self.model.args)

    def inner_plugins(self) -> tuple[Plugin, ...]:
        return (self.original(),)

    def build(self, weights: bytes | None) -> Classifier:
        built = self.original().build(weights)
        built.realisation = Realisation.DENSE_WITH_ZEROS
        return built

    def training(self) -> Training:
        return _Zeroing(self)


class _Zeroing(Training):
    """Reads no data: the weights alone decide."""

    data = DatasetChoice(dataset="digits", split="train")

    def __init__(self, model: Zeroed) -> None:
        self.model = model
        self.parent: Adapter = model.original()

    def recipe(self) -> Mapping[str, Any]:
        args = self.parent.model_dump(mode="json", exclude={"weights"})
        return {"model": self.model.model.adapter, "args": args, "share": self.model.share}

    def train(self, samples: Samples, parent: bytes | None, seed: int, report: Report) -> bytes:
        if parent is None:
            raise PluginError(f"model '{self.model.model.adapter}' has no weights to set to zero")
        state = state_from_bytes(parent)
        found = {name: without_the_smallest(value, self.model.share) for name, value in state.items()}
        report.step(1, 1)
        return state_to_bytes(found)


def without_the_smallest(weight: Tensor, share: float) -> Tensor:
    """The weight with the `share` of its elements that are smallest in magnitude set to zero; of equals, the first.

    Vectors (biases, statistics) and integers stay as they are.
    """
    if weight.ndim < 2 or not weight.is_floating_point():
        return weight
    flat = weight.flatten().clone()
    flat[flat.abs().argsort(stable=True)[: int(share * flat.numel())]] = 0
    return flat.reshape(weight.shape)
