"""One convolution or matrix product as it was executed, and what the conventions of the literature make of it."""

from dataclasses import dataclass
from enum import StrEnum


class Form(StrEnum):
    """What kind of operation multiplies. `product`: a matrix product that is no linear layer's, attention say."""

    CONVOLUTION = "convolution"
    LINEAR = "linear"
    PRODUCT = "product"


@dataclass(frozen=True)
class Operation:
    """Counts of one execution, exact integers.

    layer: dotted name of the module it ran in. macs: multiply-accumulates. effective_macs: those whose weight is not
    zero, as the weight stood when it was used (after masks and parametrisations). outputs: elements of the result.
    biased: whether a bias was added in the same operation. bits: of a weight and of an activation. weights, nonzero:
    elements of the weight, and those that are not zero; 0 and 0 where both operands are activations. active: share of
    the input's elements that are not zero, in [0, 1].
    """

    layer: str
    form: Form
    macs: int
    effective_macs: int
    outputs: int
    biased: bool
    bits: tuple[int, int]
    weights: int
    nonzero: int
    active: float

    @property
    def binary(self) -> bool:
        return self.bits == (1, 1)

    @property
    def bias_adds(self) -> int:
        """One addition per output."""
        return self.outputs if self.biased else 0

    @property
    def molchanov(self) -> int:
        """FLOPs after Molchanov et al. 2017, equations 11 and 12.

        A convolution costs 2 H W (Cin K^2 + 1) Cout, with or without a bias, where H and W are the *output* map's: the
        paper says the input's, which is the same only for stride 1 and same padding, as in VGG. A linear layer costs
        (2 I - 1) O; so does any other matrix product, which the paper does not mention.
        """
        return 2 * self.macs + 2 * self.outputs if self.form is Form.CONVOLUTION else 2 * self.macs - self.outputs


def han_flops(weights: list[float], activations: list[float]) -> list[float]:
    """The column FLOP% of Han et al. 2015 (table 4): the share of each layer's operations that is left, in [0, 1].

    weights: density of each layer's weights; activations: density of each layer's *output*; both in [0, 1], in the
    order of the layers. A product is skipped where its weight or its input is zero, and a layer's input is the output
    of the layer before: FLOP%_l = Weights%_l x Act%_(l-1). The first layer's input counts as dense.
    """
    return [weight * active for weight, active in zip(weights, [1.0, *activations[:-1]], strict=True)]
