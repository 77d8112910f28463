"""A model whose smallest weights are zero: fewer numbers to remember, and not a microsecond saved."""

from pydantic import Field
from torch import Tensor

from adapters.derived import Derivation, Derived
from adapters.torch_classifier import state_from_bytes, state_to_bytes
from bench.contracts import (
    Classifier,
    Realisation,
    Training,
    adapter,
)


@adapter("zeroed")
class Zeroed(Derived):
    """Another model with the smallest weights of each layer set to zero, without any further training.

    model: the adapter of the dense model; its weights are a state dict. share: of the weights of every convolution and
    linear layer, the smallest in magnitude (Han et al. 2015, without retraining). Shapes stay as they are.
    """

    share: float = Field(default=0.5, ge=0, lt=1, description="share of each layer's weights that become zero")

    def build(self, weights: bytes | None) -> Classifier:
        built = self.original().build(weights)
        built.realisation = Realisation.DENSE_WITH_ZEROS
        return built

    def training(self) -> Training:
        return _Zeroing(self)


class _Zeroing(Derivation):
    def __init__(self, model: Zeroed) -> None:
        super().__init__(model)
        self.share = model.share

    def derive(self, parent: bytes, seed: int) -> bytes:
        state = state_from_bytes(parent)
        return state_to_bytes({name: without_the_smallest(value, self.share) for name, value in state.items()})


def without_the_smallest(weight: Tensor, share: float) -> Tensor:
    """The weight with the `share` of its elements that are smallest in magnitude set to zero; of equals, the first.

    Vectors (biases, statistics) and integers stay as they are.
    """
    if weight.ndim < 2 or not weight.is_floating_point():
        return weight
    flat = weight.flatten().clone()
    flat[flat.abs().argsort(stable=True)[: int(share * flat.numel())]] = 0
    return flat.reshape(weight.shape)
