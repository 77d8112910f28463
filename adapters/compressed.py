"""What the compressed families have in common: a model that they start from, and trainings of several stages."""

import json
import time
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from adapters.family import Family, FamilyTraining, check_net, tensors
from adapters.recipe import CHECKPOINT, Recipe
from adapters.reference_training import own_random_numbers
from adapters.torch_classifier import TorchClassifier, load_state, state_from_bytes, state_to_bytes
from bench.contracts import AdapterChoice, Plugin, Realisation, Report, Samples, Training, adapters
from bench.errors import PluginError


class DerivedFamily(Family):
    """A family with the net of another one. What it is trained on, and its shape, are that model's.

    model: the adapter of a full-precision family, `cnn` say, with its arguments. `train` is the recipe of the training
    that follows the compression.
    """

    realised: ClassVar[Realisation]  # how its speed is real
    taught: ClassVar[bool] = False  # `train.teacher` means something

    model: AdapterChoice = Field(description="the model that it starts from, as `{adapter: cnn, args: {...}}`")
    train: Recipe = Field(default=Recipe(epochs=1, batch_size=64), description="the training after the compression")

    @model_validator(mode="before")
    @classmethod
    def _inherits(cls, values: Any) -> Any:
        """Data, shape and classes that are not given are the model's."""
        if not isinstance(values, Mapping) or "model" not in values:
            return values  # refused below, by name
        choice = AdapterChoice.model_validate(values["model"])
        original = _family(choice)
        return {**{name: getattr(original, name) for name in ("data", "input_shape", "classes")}, **values}

    @model_validator(mode="after")
    def _of_a_net_that_it_can_compress(self) -> "DerivedFamily":
        check_net(self.original(), self.check)
        return self

    @model_validator(mode="after")
    def _untaught(self) -> "DerivedFamily":
        if self.train.teacher is not None and not self.taught:
            raise ValueError(f"train.teacher: '{self.name}' learns from the labels alone: remove it")
        return self

    def original(self) -> Family:
        """The adapter of the model that it starts from."""
        return _family(self.model)

    def made_of(self) -> Mapping[str, Any]:
        """Every field that decides the outcome, as JSON values; of the model's all but where its weights lie."""
        original = self.original().model_dump(mode="json", exclude={"weights"})
        fields = self.model_dump(mode="json", exclude={"weights", "model"})
        return {**fields, "model": {"adapter": self.model.adapter, "args": original}}

    def inner_plugins(self) -> tuple[Plugin, ...]:
        return (self.original(), *super().inner_plugins())

    def check(self, net: nn.Module) -> None:
        """Raises PluginError for a net of `model` that this family cannot compress. Its tensors have no values."""
        self.classifier(net)

    def net(self) -> nn.Module:
        return self.original().net()

    def classifier(self, net: nn.Module) -> TorchClassifier:
        found = self.original().classifier(net)
        if found.realisation is not Realisation.DENSE:
            raise PluginError(
                f"model '{self.model.adapter}' is compressed already ({found.realisation})",
                "name a full-precision family, `cnn` say",
            )
        found.realisation = self.realised
        return found


class Compressed(DerivedFamily):
    """A family made from the trained weights of another one."""

    @abstractmethod
    def compress(
        self, net: nn.Module, x: Tensor, y: Tensor, samples: Samples, *, seed: int, report: Report
    ) -> nn.Module:
        """The compressed net, in eval mode, of the trained one."""

    def training(self) -> Training | None:
        return None if self.weights else CompressedTraining(self)


class CompressedTraining(FamilyTraining):
    """From the weights of the model that is compressed."""

    def __init__(self, model: Compressed) -> None:
        super().__init__(model)
        self.compressed = model
        self.parent = model.original()

    def recipe(self) -> Mapping[str, Any]:
        return {"family": self.model.name, **self.compressed.made_of()}

    def train(self, samples: Samples, parent: bytes | None, seed: int, report: Report) -> bytes:
        model, original = self.compressed, self.compressed.original()
        if parent is None:
            raise PluginError(f"model '{model.model.adapter}' has no weights to start from")
        x, y = tensors(samples, model.shape, model.classes)
        seed += model.repeat
        with own_random_numbers(seed):
            net = original.net().eval()
            load_state(net, original.opened(state_from_bytes(parent)))
            net = model.compress(net, x, y, samples, seed=seed, report=report)
        return state_to_bytes(model.stored(net))


class Stages(Report):
    """The report of a training in stages, each of which begins with what the one before left.

    It is handed to the training of a stage as that one's own report. `state`: what the last stage that ended left,
    empty at the beginning; `done`: how many have ended, now and in earlier attempts.
    """

    def __init__(self, report: Report, total: int) -> None:
        self.report, self.total = report, total
        self.done, self.state, self.told = 0, dict[str, Tensor](), list[dict[str, float]]()
        self._inner: bytes | None = None
        self._spoke = time.monotonic()
        if (saved := report.saved()) is not None:
            found = state_from_bytes(saved)
            self.done = int(found.pop("done"))
            self.told = json.loads(_bytes(found.pop("told")))
            self._inner = _bytes(found.pop("inner")) or None
            self.state = {name.removeprefix("state."): value for name, value in found.items()}
            for figures in self.told:
                report.step(self.done, total, **figures)

    def end(self, state: Mapping[str, Tensor], **figures: float) -> None:
        """A stage is done, and leaves this state. figures: a point of the training's curves."""
        self.done, self.state, self._inner = self.done + 1, {k: v.detach().clone() for k, v in state.items()}, None
        self.told.append(figures)
        self.report.step(1000 * self.done, 1000 * self.total, **figures)
        if time.monotonic() - self._spoke >= CHECKPOINT:
            self.save(b"")

    def step(self, done: int, total: int, **figures: float) -> None:
        self.report.step(1000 * self.done + 1000 * done // total, 1000 * self.total, **figures)

    def saved(self) -> bytes | None:
        return self._inner

    def save(self, state: bytes) -> None:
        """state: of the training inside the stage that runs."""
        kept = {f"state.{name}": value for name, value in self.state.items()}
        told = json.dumps(self.told).encode()
        numbers = {"done": torch.tensor(self.done), "told": _tensor(told), "inner": _tensor(state)}
        self.report.save(state_to_bytes({**kept, **numbers}))
        self._spoke = time.monotonic()


def _tensor(data: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(data, dtype=np.uint8).copy())


def _bytes(data: Tensor) -> bytes:
    return data.numpy().tobytes()


def _family(choice: AdapterChoice) -> Family:
    """The adapter named. Raises ValueError where it is no family of full precision."""
    try:
        found = adapters.build(choice.adapter, choice.args)
    except PluginError as problem:
        raise ValueError(f"model: {problem}") from None
    if not isinstance(found, Family) or isinstance(found, DerivedFamily):
        raise ValueError(  # noqa: TRY004 - pydantic turns this one into a message with its place
            f"model: '{choice.adapter}' cannot be compressed: name a full-precision family, `cnn` say"
        )
    return found
