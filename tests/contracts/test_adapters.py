"""What every registered adapter promises, and that the checker notices every broken promise."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

from adapters.torch_classifier import TorchClassifier
from bench import plugins
from bench.conformance import CHECKS, check
from bench.contracts import Adapter, Bounds, Classifier, Gradients, adapters
from tests.adapters.models import FIELDS, SHAPE, SmallNet, images, small_net
from tests.contracts.examples import EXAMPLES, VARIANTS

plugins.load_built_in()
DOCUMENTATION = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text(encoding="utf-8")
OWN = ("torch", "torchscript", "torch_export", "onnx", "sklearn")  # those whose fields docs/adapters.md describes
NAMES = [name for name in adapters if adapters.get(name).__module__.startswith("adapters.")]


@pytest.mark.parametrize("name", NAMES)
def test_keeps_every_promise(name: str) -> None:
    assert name in EXAMPLES, f"adapter '{name}' has no example in tests/contracts/examples.py: add one"
    adapter, weights = EXAMPLES[name]()
    results = check(adapter, weights)
    assert [result for result in results if not result.ok] == []
    assert {result.name for result in results} == {"spec", "build", "declared", *CHECKS}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_form_of_a_model_family_keeps_every_promise(name: str) -> None:
    results = check(*VARIANTS[name]())
    assert [result for result in results if not result.ok] == []


@pytest.mark.parametrize("name", NAMES)
def test_is_in_the_documentation_and_has_a_summary(name: str) -> None:
    assert f"`{name}`" in DOCUMENTATION, f"adapter '{name}' is not in docs/adapters.md: add it to the first table"
    assert adapters.get(name).summary().endswith(".")


def test_every_promise_and_every_field_is_in_the_documentation() -> None:
    fields = {field for name in OWN for field in adapters.get(name).model_fields}
    assert [word for word in ("spec", "build", "declared", *CHECKS, *fields) if f"`{word}`" not in DOCUMENTATION] == []


# --- one deliberately broken adapter per promise ------------------------------------------------------------------


class Honest(Classifier):
    """A smooth map with exact gradients: what the broken ones are made from."""

    input_shape = SHAPE
    bounds = Bounds(0, 1)
    classes = 3

    def __init__(self) -> None:
        self.weight = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
        self.calls = 0

    def logits(self, x: Tensor) -> Tensor:
        return torch.tanh(x.float().flatten(1) @ self.weight)


class Without(Honest):
    gradients = Gradients.NONE


class WrongShape(Honest):
    def logits(self, x: Tensor) -> Tensor:
        return super().logits(x)[:, :2]


class Double(Honest):
    def logits(self, x: Tensor) -> Tensor:
        return super().logits(x).double()


class Infinite(Honest):
    def logits(self, x: Tensor) -> Tensor:
        return super().logits(x) / (x.float().flatten(1).sum(1, keepdim=True) > 0)


class NoInterval(Honest):
    bounds = Bounds(1, 0)


class OneClass(Honest):
    classes = 1


class Drifting(Without):
    def logits(self, x: Tensor) -> Tensor:
        self.calls += 1
        return (super().logits(x) + 1e-6 * self.calls).detach()


class Neighbourly(Honest):
    def logits(self, x: Tensor) -> Tensor:
        return super().logits(x) - super().logits(x).mean(0)


class InPlace(Honest):
    def logits(self, x: Tensor) -> Tensor:
        out = super().logits(x)
        x.data.clamp_(0.2, 0.8)
        return out


class NotEmpty(Honest):
    def logits(self, x: Tensor) -> Tensor:
        return super().logits(x.reshape(len(x), -1))


class NeedsTwo(Honest):
    def logits(self, x: Tensor) -> Tensor:
        return super().logits(x) if len(x) != 1 else super().logits(x)[0]


class FloatOnly(Honest):
    def logits(self, x: Tensor) -> Tensor:
        return torch.tanh(x.flatten(1) @ self.weight)


class HalfPrecision(Honest):
    def logits(self, x: Tensor) -> Tensor:
        return torch.tanh(x.flatten(1) @ self.weight.to(x.dtype)).float()


class MissingLayer(Honest):
    feature_layers = ("relu",)


class LayerOfOneRow(MissingLayer):
    def features(self, x: Tensor, layer: str) -> Tensor:
        return x.float().flatten(1).mean(0, keepdim=True)


class NeighbouringParts(Honest):
    part_names = ("block",)

    def parts(self, x: Tensor) -> Tensor:
        flat = x.float().flatten(1).mean(1)
        return (flat >= flat.mean())[:, None]


class UnnamedParts(Honest):
    def parts(self, x: Tensor) -> Tensor:
        return torch.ones((len(x), 1), dtype=torch.bool)


class Reading(Without):
    """Of token ids; right as long as its bounds are the ids of its vocabulary."""

    input_shape = (5,)
    bounds = Bounds(0, 6)
    vocabulary = ("", "<unknown>", *"abcde")

    def logits(self, x: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(x.long(), 7).float().sum(1)[:, :3]


class WrongIds(Reading):
    bounds = Bounds(0, 7)


class OtherIds(Reading):
    def logits(self, x: Tensor) -> Tensor:
        return super().logits(x) + (x.dtype == torch.int32)


class Detached(Honest):
    def logits(self, x: Tensor) -> Tensor:
        return super().logits(x).detach()


class TwiceTheSlope(Honest):
    def logits(self, x: Tensor) -> Tensor:
        out = super().logits(x)
        return 2 * out - out.detach()


class StraightThrough(Honest):
    def logits(self, x: Tensor) -> Tensor:
        x = x.float()
        return super().logits(x + (x.round() - x).detach())


class Masked(Honest):
    def logits(self, x: Tensor) -> Tensor:
        return super().logits(x.float().round())


class FalseSurrogate(Masked):
    gradients = Gradients.SURROGATE


class SecretSlope(Without):
    pass


def in_training_mode(kind: type[nn.Module]) -> Classifier:
    """The small net with all its layers of one kind in training mode."""
    model = TorchClassifier(small_net(), input_shape=SHAPE, classes=3)
    for module in model.module.modules():
        module.train(isinstance(module, kind))
    return model


def unfrozen() -> Classifier:
    model = TorchClassifier(SmallNet(), input_shape=SHAPE, classes=3)
    model.module.requires_grad_(True)
    return model


BREACHES: dict[
    str, tuple[Callable[[], Classifier], str, str]
] = {  # a case -> how it is made, what it breaks, the message
    "too few logits": (WrongShape, "shape", "(4, 2), not (4, 3)"),
    "float64 logits": (Double, "shape", "torch.float64"),
    "infinite logits": (Infinite, "finite", "not all finite"),
    "bounds upside down": (NoInterval, "declared", "no interval"),
    "one class": (OneClass, "declared", "at least 2"),
    "passes that drift": (Drifting, "deterministic", "two passes"),
    "dropout in training mode": (lambda: in_training_mode(nn.Dropout), "deterministic", "dropout in training mode"),
    "BatchNorm in training mode": (lambda: in_training_mode(nn.BatchNorm2d), "batch", "BatchNorm"),
    "BatchNorm that learns from calls": (lambda: in_training_mode(nn.BatchNorm2d), "untouched", "buffers"),
    "a layer left in training mode": (lambda: in_training_mode(nn.Linear), "modes", "head"),
    "parameters that are not frozen": (unfrozen, "modes", "requires_grad_(False)"),
    "rows that see their neighbours": (Neighbourly, "batch", "neighbours"),
    "inputs changed in place": (InPlace, "untouched", "in place"),
    "no empty batch": (NotEmpty, "empty", "RuntimeError"),
    "no batch of one": (NeedsTwo, "one", "(3,)"),
    "float32 inputs only": (FloatOnly, "dtypes", "RuntimeError"),
    "computing in float16": (HalfPrecision, "dtypes", "float16"),
    "a feature layer that is not there": (MissingLayer, "features", "no feature layer 'relu'"),
    "features without rows": (LayerOfOneRow, "features", "(1, 64)"),
    "parts that hang on the neighbours": (NeighbouringParts, "parts", "neighbours"),
    "parts that have no name": (UnnamedParts, "parts", "(4, 1), not bool (4, 0)"),
    "bounds that are not the ids of the vocabulary": (WrongIds, "declared", "the ids of 7 tokens"),
    "other logits for ids of another type": (OtherIds, "dtypes", "int32"),
    "exact, but no gradient": (Detached, "gradients", "RuntimeError"),
    "exact, but twice the slope": (TwiceTheSlope, "gradients", "finite differences"),
    "exact, but straight-through": (StraightThrough, "gradients", "finite differences"),
    "exact, but masked": (Masked, "gradients", "every gradient is zero"),
    "a surrogate that is zero": (FalseSurrogate, "gradients", "every gradient is zero"),
    "no gradients, but they pass": (SecretSlope, "gradients", "but they pass"),
}


class Example(Adapter):
    """Builds one of BREACHES."""

    case: str

    def build(self, weights: bytes | None) -> Classifier:
        return BREACHES[self.case][0]() if self.case in BREACHES else Honest()


@pytest.mark.parametrize("case", BREACHES)
def test_the_checker_notices(case: str) -> None:
    _, promise, message = BREACHES[case]
    broken = {result.name: result.message for result in check(Example(case=case), None) if not result.ok}
    assert message in broken.get(promise, f"'{promise}' was found kept; broken: {broken}")


def test_the_checker_finds_nothing_where_there_is_nothing() -> None:
    assert [result for result in check(Example(case="honest"), None) if not result.ok] == []


def test_the_checker_finds_nothing_wrong_with_an_honest_reader_of_texts() -> None:
    class Text(Adapter):
        def build(self, weights: bytes | None) -> Classifier:
            return Reading()

    results = check(Text(), None)
    assert [result for result in results if not result.ok and result.name != "spec"] == []


def test_the_checker_takes_inputs_of_the_user() -> None:
    results = {result.name: result for result in check(Example(case="honest"), None, images(1))}
    assert "at least 2 inputs" in results["batch"].message


def test_every_promise_has_an_adapter_that_breaks_it() -> None:
    assert {promise for _, promise, _ in BREACHES.values()} == {"declared", *CHECKS}


def test_the_checker_notices_an_adapter_that_does_not_build() -> None:
    results = check(adapters.build("torch", FIELDS | {"factory": "tests.adapters.models:SmalNet"}), None)
    assert [result.ok for result in results] == [True, False]
    assert "did you mean 'SmallNet'" in results[1].message


class Forgetful(Example):
    """Loses a field in JSON."""

    case: str = Field(default="honest", exclude=True)


def test_the_checker_notices_a_spec_that_json_loses() -> None:
    spec = check(Forgetful(case="other"), None)[0]
    assert not spec.ok
    assert "JSON" in spec.message


def test_the_checker_notices_a_spec_that_cannot_be_pickled() -> None:
    class Local(Example):
        pass

    spec = check(Local(case="honest"), None)[0]
    assert not spec.ok
    assert "pickle" in spec.message


def test_a_stochastic_model_is_not_held_to_determinism() -> None:
    adapter = adapters.build("torch", FIELDS | {"factory": "tests.adapters.models:Noisy", "stochastic": True})
    results = {result.name: result for result in check(adapter, None)}
    assert "stochastic" in results["deterministic"].message
    assert [result for result in results.values() if not result.ok] == []
