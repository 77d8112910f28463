"""The fields that every adapter of a foreign model needs: what goes in, what comes out, and what happens between."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator

from bench.contracts import Adapter, Bounds, Gradients, Realisation, Signature
from bench.errors import PluginError


def _several(value: Any) -> Any:
    """One number stands for a list of one."""
    return (value,) if isinstance(value, int | float) else value


class Described(Adapter):
    """A model that cannot say itself what it takes and gives.

    input_shape: of one sample, channels first for images. mean, std: subtracted and divided inside the model, in input
    units, one value or one per channel; so an epsilon is in input units whatever the model was trained on.
    """

    input_shape: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    classes: Annotated[int, Field(ge=2)]
    bounds: Bounds = Bounds(0.0, 1.0)
    mean: Annotated[tuple[float, ...], BeforeValidator(_several)] | None = None
    std: Annotated[tuple[PositiveFloat, ...], BeforeValidator(_several)] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.bounds.low < self.bounds.high:
            raise ValueError(f"bounds: the lower one must be below the upper one, got {list(self.bounds)}")
        for what, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) not in (1, self.input_shape[0]):
                raise ValueError(
                    f"{what}: give one value or one per channel ({self.input_shape[0]}), got {len(values)}"
                )
        return self

    @property
    def signature(self) -> Signature:
        return Signature(self.input_shape, self.bounds, self.classes)


class TorchDescribed(Described):
    """A model that runs in torch. What it cannot say about itself, and would be wrong to guess, are fields."""

    feature_layers: tuple[str, ...] = ()
    stochastic: bool = False
    gradients: Gradients = Gradients.EXACT
    realisation: Realisation = Realisation.DENSE

    def description(self) -> Mapping[str, Any]:
        """The arguments of TorchClassifier besides the module."""
        names = ("input_shape", "classes", "bounds", "mean", "std", "feature_layers", "stochastic", "gradients")
        return {name: getattr(self, name) for name in (*names, "realisation")}


def required(adapter: Adapter, weights: bytes | None, what: str) -> bytes:
    """The weights. Raises PluginError where there are none; `what` says what the file has to be."""
    if weights is None:
        raise PluginError(f"adapter '{adapter.name}': there are no weights", f"give `weights:` the path of {what}")
    return weights
