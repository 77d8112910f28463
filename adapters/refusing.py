"""A classifier with an outlier detector inside: it refuses to answer what the detector flags."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor

from bench.contracts import (
    Adapter,
    Classifier,
    DatasetChoice,
    Detector,
    Plugin,
    Report,
    Samples,
    Training,
    Wrapped,
    adapter,
    adapters,
    detectors,
)
from bench.errors import PluginError
from bench.randomness import SampleRandom


class RefusingClassifier(Wrapped):
    """Answers as `model` does, and refuses what scores above the detector's threshold, or what `model` refuses."""

    def __init__(self, model: Classifier, detector: Detector, state: bytes) -> None:
        super().__init__(model)
        self.can_refuse = True
        self._detector, self._learnt = detector.restore(state), len(state)

    def refuses(self, x: Tensor) -> Tensor:
        if not len(x):
            return torch.zeros(0, dtype=torch.bool)
        threshold = self._detector.threshold
        assert threshold is not None, "a detector that fits sets a threshold"
        scores = self._detector.score(self._model, x, SampleRandom.of(0, "refuses", range(len(x))))
        return torch.from_numpy(scores > threshold) | self._model.refuses(x)

    def suspicion(self, x: Tensor) -> Tensor:
        return self._detector.suspicion(self._model, x)

    def size_bytes(self) -> int | None:
        """With what the detector has learnt."""
        inside = self._model.size_bytes()
        return None if inside is None else inside + self._learnt


@adapter("refusing")
class Refusing(Adapter):
    """Another model that refuses to answer what a fitted detector flags.

    The detector is fitted once, on the inliers `fit_on`, when a suite first asks for the model. A refusal is no right
    answer: it counts against clean accuracy, and for robustness, where an adversarial input that is refused has failed.
    `adapter` and `args` say how the model inside is built; a path among its arguments is absolute.
    """

    adapter: str
    args: dict[str, Any] = Field(default_factory=dict)
    detector: str = "odin_pca"
    detector_args: dict[str, Any] = Field(default_factory=dict)
    fit_on: DatasetChoice

    @model_validator(mode="after")
    def _fits(self) -> "Refusing":
        if self.adapter == self.name:
            raise ValueError("adapter: a model that refuses already has a detector: name the model inside")
        self.inside()
        if not detectors.get(self.detector).fits:
            known = ", ".join(name for name in detectors if detectors.get(name).fits)
            raise ValueError(f"detector: '{self.detector}' has no threshold to refuse by: take one that fits ({known})")
        self.noticing()
        return self

    @property
    def untraceable(self) -> str:
        return "what it refuses is its detector's to say, and no part of a program"

    def inner_plugins(self) -> tuple[Plugin, ...]:
        return (self.inside(), self.noticing())

    def inside(self) -> Adapter:
        return adapters.build(self.adapter, self.args)

    def noticing(self) -> Detector:
        return detectors.build(self.detector, self.detector_args)

    def build(self, weights: bytes | None) -> Classifier:
        if weights is None:
            raise PluginError(
                "model 'refusing' was built without its detector's state",
                "run it through `gauntlet run`, which fits the detector once",
            )
        line, _, content = weights.partition(b"\n")
        try:
            length = json.loads(line)["inside"]
        except (ValueError, KeyError, TypeError) as problem:
            raise PluginError("these bytes are no weights of adapter 'refusing'", "let a suite make them") from problem
        model = self.inside().build(None if length is None else content[:length])
        return RefusingClassifier(model, self.noticing(), content[length or 0 :])

    def place(self, classifier: Classifier, device: str) -> Classifier:
        assert isinstance(classifier, Wrapped)
        return classifier.moved(self.inside(), device)

    def training(self) -> Training | None:
        return None if self.weights else _Fitting(self)


class _Fitting(Training):
    """The detector's fit, after the training of the model inside where it has one."""

    def __init__(self, model: Refusing) -> None:
        self.model = model
        self.data = model.fit_on
        self.parent = model.inside()

    def recipe(self) -> Mapping[str, Any]:
        return self.model.model_dump(mode="json", include={"adapter", "args", "detector", "detector_args"})

    def train(self, samples: Samples, parent: bytes | None, seed: int, report: Report) -> bytes:
        state = self.model.noticing().fit(self.model.inside().build(parent), samples, seed)
        head = {"inside": None if parent is None else len(parent)}
        return json.dumps(head).encode() + b"\n" + (parent or b"") + state
