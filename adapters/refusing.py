"""A classifier with an outlier detector inside: it refuses to answer what the detector flags."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from bench.contracts import (
    Adapter,
    Classifier,
    DatasetChoice,
    Detector,
    Plugin,
    Report,
    Samples,
    Training,
    adapter,
    adapters,
    detectors,
)
from bench.errors import PluginError
from bench.randomness import SampleRandom


class RefusingClassifier(Classifier):
    """Answers as `inner` does, and refuses what scores above the detector's threshold."""

    can_refuse = True

    def __init__(self, inner: Classifier, detector: Detector) -> None:
        self.inner = inner
        self._detector = detector
        shown = ("input_shape", "bounds", "classes", "gradients", "stochastic", "realisation", "feature_layers")
        for name in (*shown, "part_names", "vocabulary"):
            setattr(self, name, getattr(inner, name))

    def logits(self, x: Tensor) -> Tensor:
        return self.inner.logits(x)

    def features(self, x: Tensor, layer: str) -> Tensor:
        return self.inner.features(x, layer)

    def parts(self, x: Tensor) -> Tensor:
        return self.inner.parts(x)

    def refuses(self, x: Tensor) -> Tensor:
        if not len(x):
            return torch.zeros(0, dtype=torch.bool)
        threshold = self._detector.threshold
        assert threshold is not None, "a detector that fits sets a threshold"
        scores = self._detector.score(self.inner, x, SampleRandom.of(0, "refuses", range(len(x))))
        return torch.from_numpy(scores > threshold)

    def suspicion(self, x: Tensor) -> Tensor:
        return self._detector.suspicion(self.inner, x)

    def members(self) -> Sequence[Classifier]:
        return self.inner.members()

    @property
    def module(self) -> nn.Module | None:
        return self.inner.module


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
        inner = self.inside().build(None if length is None else content[:length])
        return RefusingClassifier(inner, self.noticing().restore(content[length or 0 :]))

    def place(self, classifier: Classifier, device: str) -> Classifier:
        if isinstance(classifier, RefusingClassifier):
            classifier.inner = self.inside().place(classifier.inner, device)
            classifier.device = classifier.inner.device
        return classifier

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
