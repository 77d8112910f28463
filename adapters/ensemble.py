"""Several models as one: of one kind, each from its own random numbers (Lakshminarayanan et al. 2017), or of many."""

import json
from collections.abc import Mapping, Sequence
from math import log
from typing import Annotated, Any

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from adapters.torch_classifier import TorchClassifier
from bench.contracts import (
    Adapter,
    AdapterChoice,
    Classifier,
    DatasetChoice,
    Gradients,
    Plugin,
    Realisation,
    Report,
    Samples,
    Training,
    adapter,
    adapters,
)
from bench.errors import PluginError
from bench.randomness import seed_of

DEFAULT = 5  # members: Lakshminarayanan et al. 2017, section 3.3


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
        if len({(tuple(member.input_shape), member.bounds, member.classes) for member in members}) > 1:
            raise PluginError("the members of an ensemble take different inputs, or tell different classes apart")
        if any(member.can_refuse or member.smoothing for member in members):
            raise PluginError(
                "an ensemble is the mean of its members' modules: that they refuse inputs, or add noise, would be lost",
                "put `refusing` or `smoothed` around the ensemble",
            )
        worst_first = (Gradients.NONE, Gradients.SURROGATE, Gradients.EXACT)
        same = all(member.realisation is first.realisation for member in members)
        super().__init__(
            Mixture(modules), input_shape=first.input_shape, bounds=first.bounds, classes=first.classes,
            gradients=min((member.gradients for member in members), key=worst_first.index),
            stochastic=any(member.stochastic for member in members),
            realisation=first.realisation if same else Realisation.SIMULATED,
        )  # fmt: skip
        self._members = tuple(members)

    def members(self) -> Sequence[Classifier]:
        return self._members


@adapter("ensemble")
class EnsembleAdapter(Adapter):
    """The mean of several models: of one adapter, each trained with a seed of its own, or of several adapters.

    `adapter` and `args` say how each of `members` is built, or `of` names different ones; they have to be trained here,
    and `of` on the same data from random weights. The detector `ensemble` asks how far the members disagree, the attack
    `minmax_ensemble` fools all of them.
    """

    adapter: str | None = None
    args: dict[str, Any] = Field(default_factory=dict)
    members: Annotated[int, Field(ge=2, le=100)] | None = Field(
        default=None, description="how many of `adapter`; 5 where it is left out"
    )
    of: Annotated[tuple[AdapterChoice, ...], Field(max_length=100)] = Field(
        default=(), description="the members, as `{adapter: NAME, args: {...}}`, in the place of `adapter`"
    )

    @model_validator(mode="after")
    def _trained(self) -> "EnsembleAdapter":
        if (self.adapter is None) == (not self.of):
            raise ValueError("an ensemble has either `adapter:`, for members of one kind, or `of:`, a list of them")
        if len(self.of) == 1 or (self.of and self.members is not None):
            raise ValueError("of: name two members or more, each by itself (`members` counts those of one `adapter`)")
        first, *_ = self.kinds()
        for member in self.kinds():
            if (training := member.training()) is None:
                raise ValueError(f"adapter: '{member.name}' is not trained here: its members would all be the same")
            if self.of and (training.parent is not None or training.data != _data(first)):
                raise ValueError(f"of: '{member.name}' starts from another model, or has other data than the first")
        return self

    def kinds(self) -> tuple[Adapter, ...]:
        """The members, not built."""
        if self.adapter is not None:
            return (adapters.build(self.adapter, self.args),) * (self.members or DEFAULT)
        return tuple(adapters.build(choice.adapter, choice.args) for choice in self.of)

    @property
    def untraceable(self) -> str:
        return next((kind.untraceable for kind in self.kinds() if kind.untraceable), "")

    def inner_plugins(self) -> tuple[Plugin, ...]:
        return self.kinds() if self.of else self.kinds()[:1]

    def build(self, weights: bytes | None) -> EnsembleClassifier:
        if weights is None:
            raise PluginError("model 'ensemble' was built without weights", "run it through `gauntlet run`")
        parts = opened(weights)
        kinds = self.kinds()
        if len(parts) != len(kinds):
            raise PluginError(f"these are the weights of {len(parts)} members, not of {len(kinds)}")
        return EnsembleClassifier([kind.build(part) for kind, part in zip(kinds, parts, strict=True)])

    def place(self, classifier: Classifier, device: str) -> Classifier:
        for kind, member in zip(self.kinds(), classifier.members(), strict=True):
            kind.place(member, device)
        return super().place(classifier, device)

    def training(self) -> Training | None:
        return None if self.weights else _Training(self)


def _data(member: Adapter) -> DatasetChoice | None:
    training = member.training()
    return None if training is None else training.data


class _Training(Training):
    """One member after the other; a member that was trained before the training was killed is kept."""

    def __init__(self, model: EnsembleAdapter) -> None:
        self.inner = [training for kind in model.kinds() if (training := kind.training()) is not None]
        self.several = bool(model.of)
        self.data, self.parent = self.inner[0].data, self.inner[0].parent
        self.also = tuple(choice for training in self.inner for choice in training.also)

    def recipe(self) -> Mapping[str, Any]:
        if self.several:
            return {"of": [dict(training.recipe()) for training in self.inner]}
        return {"member": dict(self.inner[0].recipe()), "members": len(self.inner)}

    def train(self, samples: Samples, parent: bytes | None, seed: int, report: Report) -> bytes:
        saved = report.saved()
        made = [] if saved is None else opened(saved)
        for number in range(len(made), len(self.inner)):
            part = _Part(report, number, len(self.inner))
            made.append(self.inner[number].train(samples, parent, seed_of(seed, "member", number), part))
            if number + 1 < len(self.inner):
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
