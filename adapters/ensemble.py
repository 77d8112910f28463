"""Several models of one kind, each trained from random numbers of its own: Lakshminarayanan et al. 2017."""

import json
from collections.abc import Mapping, Sequence
from math import log
from typing import Annotated, Any

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from adapters.torch_classifier import TorchClassifier
from bench.contracts import Adapter, Classifier, Plugin, Report, Samples, Training, adapter, adapters
from bench.errors import PluginError
from bench.randomness import seed_of


class Mixture(nn.Module):
    """(n, ...) -> (n, classes): the logarithm of the members' mean probabilities."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        every = torch.stack([member(x).log_softmax(dim=1) for member in self.members])
        return every.logsumexp(dim=0) - log(len(self.members))


class EnsembleClassifier(TorchClassifier):
    """The mixture, which knows its members."""

    def __init__(self, members: Sequence[Classifier]) -> None:
        first, modules = members[0], [member.module for member in members if member.module is not None]
        if len(modules) < len(members):
            raise PluginError("an ensemble needs members that are torch modules")
        super().__init__(
            Mixture(modules), input_shape=first.input_shape, bounds=first.bounds, classes=first.classes,
            gradients=first.gradients, stochastic=first.stochastic, realisation=first.realisation,
        )  # fmt: skip
        self._members = tuple(members)

    def members(self) -> Sequence[Classifier]:
        return self._members


@adapter("ensemble")
class EnsembleAdapter(Adapter):
    """The mean of several models of one adapter, each trained with a seed of its own.

    `adapter` and `args` say how a member is built; it has to be one that is trained. The detector `ensemble` asks how
    far the members disagree.
    """

    adapter: str
    args: dict[str, Any] = Field(default_factory=dict)
    members: Annotated[int, Field(ge=2, le=100)] = 5

    @model_validator(mode="after")
    def _trained(self) -> "EnsembleAdapter":
        if self.inside().training() is None:
            raise ValueError(f"adapter: '{self.adapter}' is not trained here: its members would all be the same")
        return self

    def inside(self) -> Adapter:
        """A member, not built."""
        return adapters.build(self.adapter, self.args)

    def inner_plugins(self) -> tuple[Plugin, ...]:
        return (self.inside(),)

    def build(self, weights: bytes | None) -> EnsembleClassifier:
        if weights is None:
            raise PluginError("model 'ensemble' was built without weights", "run it through `gauntlet run`")
        parts = opened(weights)
        if len(parts) != self.members:
            raise PluginError(f"these are the weights of {len(parts)} members, not of {self.members}")
        return EnsembleClassifier([self.inside().build(part) for part in parts])

    def place(self, classifier: Classifier, device: str) -> Classifier:
        for member in classifier.members():
            self.inside().place(member, device)
        return super().place(classifier, device)

    def training(self) -> Training | None:
        return None if self.weights else _Training(self)


class _Training(Training):
    """One member after the other; a member that was trained before the training was killed is kept."""

    def __init__(self, model: EnsembleAdapter) -> None:
        inner = model.inside().training()
        assert inner is not None, "checked by the adapter"
        self.model, self.inner = model, inner
        self.data, self.parent = inner.data, inner.parent

    def recipe(self) -> Mapping[str, Any]:
        return {"member": dict(self.inner.recipe()), "members": self.model.members}

    def train(self, samples: Samples, parent: bytes | None, seed: int, report: Report) -> bytes:
        saved = report.saved()
        made = [] if saved is None else opened(saved)
        for number in range(len(made), self.model.members):
            part = _Part(report, number, self.model.members)
            made.append(self.inner.train(samples, parent, seed_of(seed, "member", number), part))
            if number + 1 < self.model.members:
                report.save(packed(made))
        return packed(made)


class _Part(Report):
    """One member's share of the whole."""

    def __init__(self, whole: Report, number: int, count: int) -> None:
        self._whole, self._number, self._count = whole, number, count

    def step(self, done: int, total: int, **figures: float) -> None:
        told = {f"{name}_{self._number}": value for name, value in figures.items()}
        self._whole.step(self._number * total + done, self._count * total, **told)


def packed(parts: Sequence[bytes]) -> bytes:
    """Several weights as one: a line of JSON with their lengths, then they."""
    return json.dumps({"members": [len(part) for part in parts]}).encode() + b"\n" + b"".join(parts)


def opened(data: bytes) -> list[bytes]:
    """Inverse of `packed`. Raises PluginError for other bytes."""
    line, _, content = data.partition(b"\n")
    try:
        lengths = json.loads(line)["members"]
    except (ValueError, KeyError, TypeError) as problem:
        raise PluginError("these bytes are no weights of adapter 'ensemble'", "let a suite make them") from problem
    ends = [sum(lengths[: number + 1]) for number in range(len(lengths))]
    return [content[end - length : end] for end, length in zip(ends, lengths, strict=True)]
