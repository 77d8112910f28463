"""A model that is made from another one: with zeros, in whole numbers, in bits, on another runtime, under noise."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from bench.contracts import (
    Adapter,
    AdapterChoice,
    Classifier,
    DatasetChoice,
    Plugin,
    Report,
    Samples,
    Training,
    Wrapped,
    adapters,
)
from bench.errors import PluginError


class Derived(Adapter):
    """What such adapters have in common: the field `model`, which names the model inside by its adapter."""

    model: AdapterChoice = Field(description="the model it is made from, as `{adapter: NAME, args: {...}}`")

    @model_validator(mode="after")
    def _of_another(self) -> Self:
        if self.weights is not None:
            raise ValueError("`weights` belongs to the model inside: put it under `model.args`")
        if self.model.adapter == self.name:
            raise ValueError(f"a {self.name} model cannot be {self.name} again: name the adapter of the model inside")
        self.original()  # a wrong name or argument is told here
        return self

    def original(self) -> Adapter:
        """The adapter of the model inside. Raises PluginError, ValidationError."""
        return adapters.build(self.model.adapter, self.model.args)

    @property
    def untraceable(self) -> str:
        return self.original().untraceable

    def inner_plugins(self) -> tuple[Plugin, ...]:
        return (self.original(),)

    def place(self, classifier: Classifier, device: str) -> Classifier:
        """One that is wrapped around the model inside goes where that one's adapter puts it."""
        if isinstance(classifier, Wrapped):
            return classifier.moved(self.original(), device)
        return super().place(classifier, device)


class Derivation(Training):
    """From the trained weights of the model inside to those of the derived one. Reads no data."""

    data = DatasetChoice(dataset="digits", split="train")  # a training names some: the set that needs no download
    learns = False

    def __init__(self, model: Derived) -> None:
        self.parent: Adapter = model.original()
        self.derived = model

    def recipe(self) -> Mapping[str, Any]:
        args = self.parent.model_dump(mode="json", exclude=set(self.parent.where))
        fields = self.derived.model_dump(mode="json", exclude={"weights", "model"})
        return {"model": self.derived.model.adapter, "args": args, **fields}

    def train(self, samples: Samples, parent: bytes | None, seed: int, report: Report) -> bytes:
        if parent is None:
            raise PluginError(
                f"model '{self.derived.model.adapter}' has no weights that '{self.derived.name}' could be made from",
                "name its weights under `model.args`, or an adapter that trains",
            )
        made = self.derive(parent, seed)
        report.step(1, 1)
        return made

    @abstractmethod
    def derive(self, parent: bytes, seed: int) -> bytes:
        """The weights, from those of the model inside."""


class Unchanged(Derivation):
    """The weights of the model inside, as they are."""

    def derive(self, parent: bytes, seed: int) -> bytes:
        return parent
