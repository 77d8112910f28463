"""A model as it is deployed: the same weights on another runtime, as an artefact of its own that is evaluated."""

import io
import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from adapters.deployed_export import (
    CALIBRATED,
    Run,
    Target,
    check_agreement,
    compiled,
    export,
    openvino_session,
    quantise,
    session,
)
from adapters.derived import Derived
from adapters.torch_classifier import check_output, no_rows
from bench.contracts import (
    Adapter,
    Bounds,
    Classifier,
    DatasetChoice,
    Gradients,
    Realisation,
    Report,
    Samples,
    Training,
    adapter,
)
from bench.errors import PluginError

RUNTIMES: Mapping[str, str] = {
    "eager": "torch", "compile": "torch.compile", "onnx": "onnxruntime", "openvino": "openvino",
}  # fmt: skip
SESSIONS: Mapping[str, Callable[[bytes], Run]] = {"onnxruntime": session, "openvino": openvino_session}  # of ONNX files


@adapter("deployed")
class Deployed(Derived):
    """Another model of any torch adapter, converted to torch.compile, or to ONNX Runtime or OpenVINO, fp32 or int8.

    model: the adapter that builds the float model, with its arguments. target: `eager` (torch as it is), `compile`
    (torch.compile with inductor), `onnx` (ONNX Runtime, float32), `onnx_int8` (ONNX Runtime, statically quantised:
    8-bit weights per channel and 8-bit activations, MinMax ranges over `calibration_samples` of `calibration`),
    `openvino` and `openvino_int8` (the same two files, run by OpenVINO, an extra). The conversion is made once, as a
    task, and kept: accuracy, robustness and time are all those of that one artefact.
    """

    requires: ClassVar[tuple[str, ...]] = ("torch", "onnx", "onnxruntime", "onnxscript")

    where: ClassVar[frozenset[str]] = frozenset({"weights", "model"})  # what the model is stands in the artefact

    target: Target = Field(description="what it is converted to")
    calibration: DatasetChoice | None = Field(default=None, description="data for the ranges of int8")
    calibration_samples: int = Field(default=256, ge=1, description="evenly spread over those data")

    @model_validator(mode="after")
    def _complete(self) -> "Deployed":
        if self.target in CALIBRATED and self.calibration is None:
            raise ValueError(f"target '{self.target}' needs `calibration: {{dataset: NAME, split: train}}`")
        if reason := self.original().untraceable:
            raise ValueError(
                f"model: '{self.model.adapter}' cannot be converted, because {reason}: evaluate it as it is, by the "
                f"adapter '{self.model.adapter}' itself"
            )
        return self

    def distributions(self) -> tuple[str, ...]:
        return (*self.requires, "openvino") if self.target.startswith("openvino") else self.requires

    def build(self, weights: bytes | None) -> "DeployedClassifier":
        if weights is None:
            raise PluginError("a deployed model is built from its converted artefact", "run it with `gauntlet run`")
        return DeployedClassifier(self, *unpack(weights))

    def place(self, classifier: Classifier, device: str) -> Classifier:
        """Stays on the CPU, whatever the device: these runtimes are measured there."""
        return classifier

    def training(self) -> Training:
        return _Conversion(self)


class DeployedClassifier(Classifier):
    """Scores come from the artefact. Gradients come from the float model, which is loaded when one is first asked for.

    `gradients` are the float model's for a float target, which agrees with it up to rounding (checked when it was
    converted), and SURROGATE for int8: the values are the artefact's, the slope is the float model's.
    """

    def __init__(self, fields: Deployed, artefact: bytes, weights: bytes | None, facts: Mapping[str, Any]) -> None:
        self._original, self._weights, self._artefact = fields.original(), weights, artefact
        self._float: Classifier | None = None
        self.input_shape = tuple(facts["input_shape"])
        self.bounds = Bounds(*facts["bounds"])
        self.classes = facts["classes"]
        self.stochastic = facts["stochastic"]
        int8 = fields.target in CALIBRATED
        self.gradients = _gradients(Gradients(facts["gradients"]), int8)
        self.realisation = Realisation.INT8_RUNTIME if int8 else Realisation(facts["realisation"])
        self.runtime = RUNTIMES[fields.target.partition("_")[0]]
        self._target: Target = fields.target
        self._run = SESSIONS[self.runtime](artefact) if self.runtime in SESSIONS else self._in_torch()

    @property
    def source(self) -> Classifier:
        if self._float is None:
            self._float = self._original.build(self._weights)
        return self._float

    @property
    def module(self) -> nn.Module | None:
        """The torch module, where torch runs it; None for another runtime."""
        return None if self.runtime in SESSIONS else self.source.module

    def size_bytes(self) -> int:
        """Of the artefact alone; the float model that gives gradients is no part of it."""
        return len(self._artefact)

    def logits(self, x: Tensor) -> Tensor:
        if not len(x):
            return no_rows(x, self.classes)
        if not (x.requires_grad and torch.is_grad_enabled()):
            return check_output(self._run(x), len(x), self.classes)
        smooth = self.source.logits(x)
        if self._target not in CALIBRATED:
            return smooth
        return smooth + (check_output(self._run(x.detach()), len(x), self.classes) - smooth).detach()

    def _in_torch(self) -> Any:
        return compiled(self.source) if self._target == "compile" else self.source.logits


def _gradients(of_the_float_model: Gradients, int8: bool) -> Gradients:
    return Gradients.SURROGATE if int8 and of_the_float_model is Gradients.EXACT else of_the_float_model


# --- how the artefact is made -----------------------------------------------------------------------------------------


class _Conversion(Training):
    """From the float model's weights, which its own adapter has or trains, to the artefact."""

    def __init__(self, model: Deployed) -> None:
        self.model = model
        self.parent: Adapter = model.original()
        self.original = self.parent
        self.data = model.calibration or _any_data()
        self.learns = model.target in CALIBRATED

    def recipe(self) -> Mapping[str, Any]:
        return {
            "model": self.model.model.adapter,
            "args": self.original.model_dump(mode="json", exclude=set(self.original.where)),
            "target": self.model.target,
            "calibration_samples": self.model.calibration_samples,
        }

    def train(self, samples: Samples, parent: bytes | None, seed: int, report: Report) -> bytes:
        adapter_ = self.model.original()
        source = adapter_.build(parent)
        artefact = parent or b""
        if run := SESSIONS.get(RUNTIMES[self.model.target.partition("_")[0]]):
            artefact = export(source)
            check_agreement(source, run(artefact))
        if self.model.target in CALIBRATED:
            artefact = quantise(artefact, samples, self.model.calibration_samples)
        facts = {
            "recipe": self.recipe(),
            "input_shape": list(source.input_shape),
            "bounds": list(source.bounds),
            "classes": source.classes,
            "stochastic": source.stochastic,
            "gradients": str(source.gradients),
            "realisation": str(source.realisation),
        }
        report.step(1, 1)
        return pack(artefact, parent, facts)


def _any_data() -> DatasetChoice:
    """A conversion without calibration reads no data, but a training names some: the set that needs no download."""
    return DatasetChoice(dataset="digits", split="train")


def pack(artefact: bytes, weights: bytes | None, facts: Mapping[str, Any]) -> bytes:
    """Everything that a deployed model is built from, as one file: a line of JSON, then the two parts."""
    head = {"artefact": len(artefact), "weights": None if weights is None else len(weights), "facts": dict(facts)}
    out = io.BytesIO()
    out.write(json.dumps(head, sort_keys=True).encode() + b"\n" + artefact + (weights or b""))
    return out.getvalue()


def unpack(data: bytes) -> tuple[bytes, bytes | None, dict[str, Any]]:
    """Inverse of `pack`. Raises PluginError for anything else."""
    line, _, rest = data.partition(b"\n")
    try:
        head = json.loads(line)
        first = int(head["artefact"])
        weights = None if head["weights"] is None else rest[first:]
        return rest[:first], weights, dict(head["facts"])
    except (ValueError, KeyError, TypeError):
        raise PluginError("this is no deployed model", "let `gauntlet run` convert it") from None
