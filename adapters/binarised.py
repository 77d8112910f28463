"""Binarised networks: the variants of *Attacking Binarized Neural Networks*, trained by recipe."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from adapters.binarised_nets import KERNELS, binary_cnn, clamp_latent, float_cnn, packed_weights
from adapters.family import Family
from adapters.reference_nets import pack, unpack
from adapters.torch_classifier import TorchClassifier
from bench.contracts import Gradients, Realisation, adapter


@adapter("binarised")
class Binarised(Family):
    """The CleverHans-tutorial CNN: A in full precision, B binary, C binary with learned scalars, S stochastic.

    Galloway et al. 2018, Attacking Binarized Neural Networks. `width` K: K, 2K and 2K maps. The first layer has full
    precision. Gradients of B, C and S are straight-through, so `surrogate`; their arithmetic is float, so `simulated`
    (`packed` runs B and C in bits). The artefact keeps one bit per binary weight; S keeps the probabilities of its
    third layer as floats.
    """

    variant: Literal["A", "B", "C", "S"] = Field(default="B", description="full precision, binary, scaled, stochastic")
    width: int = Field(default=64, ge=2, le=1024, description="maps of the first convolution")
    scaled: bool | None = Field(
        default=None, description="a learned scalar after each ReLU; C has it, B has not, S as you like (default: not)"
    )
    channel_scaling: bool = Field(default=False, description="XNOR-Net's factor for each channel of a binary layer")

    @model_validator(mode="after")
    def _consistent(self) -> "Binarised":
        if self.scaled is not None and self.variant != "S" and self.scaled != (self.variant == "C"):
            raise ValueError(
                f"variant {self.variant} fixes `scaled`: remove it, or name variant C (with) or B (without)"
            )
        if self.variant == "A" and self.channel_scaling:
            raise ValueError("variant A has no binary layers: remove `channel_scaling`")
        if self.shape[1] not in KERNELS or self.shape[1:] != (self.shape[1],) * 2:
            sizes = " or ".join(f"{size}x{size}" for size in KERNELS)
            raise ValueError(f"the net takes images of {sizes}, and those of the data are {self.shape}")
        return self

    def net(self) -> nn.Sequential:
        if self.variant == "A":
            return float_cnn(self.shape, self.classes, self.width)
        return binary_cnn(
            self.shape,
            self.classes,
            self.width,
            scaled=self.variant == "C" or bool(self.scaled),
            stochastic=self.variant == "S",
            channel_scaling=self.channel_scaling,
        )

    def classifier(self, net: nn.Module) -> TorchClassifier:
        binary = self.variant != "A"
        return TorchClassifier(
            net,
            input_shape=self.shape,
            classes=self.classes,
            gradients=Gradients.SURROGATE if binary else Gradients.EXACT,
            realisation=Realisation.SIMULATED if binary else Realisation.DENSE,
            stochastic=self.variant == "S",
            feature_layers=("relu1", "relu2", "flatten"),
        )

    def stored(self, net: nn.Module) -> Mapping[str, Tensor]:
        return pack(net.state_dict(), packed_weights(net))

    def opened(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        net = self.net()
        return unpack(state, {name: net.get_parameter(name).shape for name in packed_weights(net)})

    def after_step(self, net: nn.Module) -> None:
        clamp_latent(net)
