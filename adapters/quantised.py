"""Networks of low precision that learn from a teacher of full precision."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812  the name that every torch program uses
from pydantic import Field, model_validator
from torch import Tensor, nn

from adapters.compressed import DerivedFamily, Stages
from adapters.family import Family, FamilyTraining, tensors
from adapters.quantisation import bits_of, codes, inner_layers, lower, lower_activations, pack, unpack
from adapters.recipe import Recipe, train
from adapters.reference_training import own_random_numbers
from adapters.torch_classifier import TorchClassifier, load_state, state_from_bytes, state_to_bytes
from bench.contracts import Gradients, Realisation, Report, Samples, Training, adapter
from bench.errors import PluginError
from bench.randomness import seed_of

OF_TEACHER, OF_LABELS, OF_SCORES = 1.0, 0.5, 0.5  # α, β and γ of Mishra and Marr 2018, section 4


@adapter("quantised")
class Quantised(DerivedFamily):
    """A net with ternary or k-bit weights, and k-bit activations if asked for, taught by one of full precision.

    Mishra and Marr 2018, "Apprentice", section 4, with the loss ½ H(labels, student) + ½ H(teacher, student), both
    softmaxes at temperature 1. `scheme` a: teacher and student learn together, from random weights; b: the teacher
    (`train.teacher`) is trained already, the student starts from random weights; c: the student is trained in full
    precision first, by its own recipe, and then lowered and trained with the teacher; none: no teacher. The first and
    the last layer stay in full precision. Arithmetic is float; `deployed` with `onnx_int8` is for real integers.
    """

    realised = Realisation.SIMULATED
    taught = True

    bits: Annotated[int, Field(ge=2, le=8)] | Literal["ternary"] = Field(
        default="ternary", description="of a weight of the inner layers"
    )
    activation_bits: int | None = Field(
        default=None, ge=1, le=8, description="of all activations but the last, clipped to [0, 1]; none: float"
    )
    scheme: Literal["none", "a", "b", "c"] = Field(default="none", description="of Apprentice")

    @model_validator(mode="after")
    def _teacher_where_there_is_a_scheme(self) -> "Quantised":
        if (self.scheme == "none") != (self.train.teacher is None):
            raise ValueError(
                f"scheme '{self.scheme}' needs `train: {{teacher: {{adapter: cnn, args: {{...}}}}}}`"
                if self.train.teacher is None
                else "train.teacher: there is no `scheme` by which it teaches: give a, b or c"
            )
        if self.scheme == "a" and not isinstance(self.teacher(), type(self.original())):
            raise ValueError("scheme 'a' trains the teacher, too: it has to be of the family of `model`")
        return self

    def recipes(self) -> Mapping[str, Recipe]:
        """Scheme c trains the student by its own recipe first."""
        found = super().recipes()
        return {**found, "model.args.train": self.original().train} if self.scheme == "c" else found

    def check(self, net: nn.Module) -> None:
        super().check(net)
        self._inner(net)

    def net(self) -> nn.Sequential:
        """In low precision, ready to be trained."""
        found = self.plain()
        lower(found, self.bits, self.activation_bits)
        return found

    def plain(self) -> nn.Sequential:
        """In full precision."""
        return self._inner(self.original().net())

    def _inner(self, net: nn.Module) -> nn.Sequential:
        """The net. Raises PluginError where it has no inner layers in a row."""
        if not isinstance(net, nn.Sequential) or not inner_layers(net):
            raise PluginError(
                f"model '{self.model.adapter}' has no layer between its first and its last to quantise",
                "name a net of one path with three layers or more",
            )
        return net

    def stored(self, net: nn.Module) -> Mapping[str, Tensor]:
        """The inner layers' weights as packed codes and a unit, everything else as it is."""
        assert isinstance(net, nn.Sequential)
        state = dict(net.state_dict())
        for name in inner_layers(net):
            found, unit = codes(state[f"{name}.weight"], self.bits)
            state[f"{name}.weight"] = pack(found, self.bits)
            state[f"{name}.unit"] = torch.tensor(unit, dtype=torch.float32)
        return state

    def build(self, weights: bytes | None) -> TorchClassifier:
        """Plain layers with weights on the grid: what is stored, and what an export sees."""
        if weights is None:
            return super().build(None)  # the error
        state, net = state_from_bytes(weights), self.plain()
        for name in inner_layers(net):
            layer, packed = net.get_submodule(name), state.get(f"{name}.weight")
            shape = layer.get_parameter("weight").shape
            unit = state.pop(f"{name}.unit", None)
            if packed is None or unit is None or packed.numel() != -(-shape.numel() * bits_of(self.bits) // 8):
                raise PluginError(
                    f"the weights of '{name}' are not those of {self.bits} bits in the shape {tuple(shape)}",
                    "give the arguments the weights were trained with",
                )
            state[f"{name}.weight"] = unpack(packed, self.bits, shape) * unit
            object.__setattr__(layer, "operand_bits", (bits_of(self.bits), self.activation_bits or 32))
        lower_activations(net, self.activation_bits)
        load_state(net, state)
        found = self.classifier(net)
        if self.activation_bits is not None:
            found.gradients = Gradients.SURROGATE
        return found

    def training(self) -> Training | None:
        return None if self.weights else _Apprenticeship(self)


class _Apprenticeship(FamilyTraining):
    """Schemes b and c have the trained teacher as their parent; a has it beside the student."""

    def __init__(self, model: Quantised) -> None:
        super().__init__(model)
        self.quantised = model
        self.parent = model.teacher() if model.scheme in ("b", "c") else None

    def recipe(self) -> Mapping[str, Any]:
        return {"family": self.model.name, **self.quantised.made_of()}

    def train(self, samples: Samples, parent: bytes | None, seed: int, report: Report) -> bytes:
        model = self.quantised
        x, y = tensors(samples, model.shape, model.classes)
        seed += model.repeat
        options: dict[str, Any] = {"bounds": samples.bounds}
        stages = Stages(report, 2 if model.scheme == "c" else 1)
        with own_random_numbers(seed):
            net = model.net()
            if model.scheme == "c":
                if not stages.done:
                    plain = model.plain()
                    train(plain, x, y, model.original().train, seed=seed_of(seed, "c"), report=stages, **options)
                    stages.end(plain.state_dict())
                load_state(net, stages.state)
            learner = self.learner(net, parent)
            loss = learner.loss if isinstance(learner, _Taught) else None
            train(learner, x, y, model.train, seed=seed, report=stages, loss=loss, **options)
        return state_to_bytes(model.stored(net))

    def learner(self, net: nn.Module, parent: bytes | None) -> nn.Module:
        """What is trained: the student alone, or taught."""
        teacher = self.quantised.teacher()
        if teacher is None:
            return net
        if self.parent is not None:
            return _Taught(net, self.parent.build(parent).logits)
        assert isinstance(teacher, Family)
        return _Taught(net, teacher.net())


class _Taught(nn.Module):
    """A student with its teacher: a function of inputs that stays as it is, or a module that learns, too."""

    def __init__(self, student: nn.Module, teacher: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.student, self.teacher = student, teacher

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.student(x)
        return out

    def loss(self, _: nn.Module, x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        """α H(y, teacher) + β H(y, student) + γ H(teacher, student), α = 0 for a teacher that stays (section 4).

        The teacher learns from the labels alone: the last term has no gradient for it.
        """
        student = self.student(x)
        learns = isinstance(self.teacher, nn.Module)
        with torch.set_grad_enabled(learns):
            scores = self.teacher(x)
        loss = OF_LABELS * F.cross_entropy(student, y) + OF_SCORES * F.cross_entropy(
            student, scores.detach().softmax(1)
        )
        return loss + OF_TEACHER * F.cross_entropy(scores, y) if learns else loss
