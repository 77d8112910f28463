"""The words of the field that contracts, records and suites share."""

from enum import StrEnum
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field


class Norm(StrEnum):
    """How far apart two inputs are. Over the flattened input, in input units."""

    L0 = "l0"
    L1 = "l1"
    L2 = "l2"
    LINF = "linf"


class Knowledge(StrEnum):
    """What the attacker may see: the gradient, that of another model, the scores, or only the decision."""

    WHITE_BOX = "white-box"
    TRANSFER = "transfer"
    SCORE = "score"
    DECISION = "decision"


class Goal(StrEnum):
    """What an attacker wants: any wrong class, or one class for each sample.

    `runner_up` and `least_likely` are read off the scores of the untouched input, `random` is drawn for the sample.
    """

    UNTARGETED = "untargeted"
    RUNNER_UP = "runner_up"
    LEAST_LIKELY = "least_likely"
    RANDOM = "random"


class Gradients(StrEnum):
    """Whether `logits` can be differentiated with respect to its input.

    `surrogate` stands for a backward pass that is not the derivative of the forward pass (a straight-through
    estimator, say): an attack may use it, and the row says so.
    """

    EXACT = "exact"
    SURROGATE = "surrogate"
    NONE = "none"


class Realisation(StrEnum):
    """How a classifier's speed is real. Only what is not `simulated` is ranked by latency."""

    DENSE = "dense"
    SIMULATED = "simulated"
    DENSE_WITH_ZEROS = "dense_with_zeros"
    REAL_SHAPES = "real_shapes"
    INT8_RUNTIME = "int8_runtime"
    PACKED_KERNEL = "packed_kernel"
    SPARSE_KERNEL = "sparse_kernel"


class Bounds(NamedTuple):
    """Lowest and highest value an input may have, both included."""

    low: float
    high: float


class Frozen(BaseModel):
    """A value: cannot be changed, refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Judging(Frozen):
    """How a stochastic model is judged: each input, untouched or adversarial, is passed several times."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    passes: Annotated[int, Field(ge=1)] = 11
    """How often an input is passed."""
    majority: Annotated[float, Field(gt=0, le=1)] = 0.5
    """The share of these passes that has to keep the label, or the input is broken: 1 for the worst of them."""


class GradientPasses(StrEnum):
    """How the passes of an attack that need a gradient are computed. What it finds is judged in float32 in any case."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    COMPILED = "compiled"


class Keep(StrEnum):
    """How adversarial examples are kept."""

    EXACT = "exact"
    EIGHT_BIT = "8bit"
