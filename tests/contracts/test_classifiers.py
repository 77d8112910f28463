"""What a classifier around another one passes on."""

import importlib
import pkgutil
import typing
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import adapters
import attacks
import bench
from adapters.bpda import TransformedClassifier
from adapters.refusing import RefusingClassifier
from adapters.smoothed import SmoothedClassifier
from attacks.restricted import Masked
from attacks.transformations import Transformation, Transformed
from bench import plugins
from bench.budgets import Limited, Purse
from bench.contracts import Bounds, Budget, Classifier, Detector, Gradients, Realisation, Wrapped
from bench.contracts import detectors as registered
from bench.detection import Guarded
from bench.goals import Aimed
from bench.metering import Metered, Passes
from bench.randomness import SampleRandom
from bench.swift import Swift

plugins.load_built_in()
for package in (adapters, attacks, bench):
    for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if not found.ispkg and found.name != "bench.__main__":
            importlib.import_module(found.name)

X = torch.tensor([[0.5, 0.25], [-0.5, 0.0]]).reshape(2, 1, 1, 2)


class Inner(Classifier):
    """Nothing that it says of itself is what a classifier says that says nothing."""

    input_shape, bounds, classes = (1, 1, 2), Bounds(-1.0, 1.0), 3
    gradients, realisation = Gradients.SURROGATE, Realisation.SIMULATED
    stochastic, can_refuse, smoothing, runtime = True, True, 0.25, "other"
    feature_layers, part_names, vocabulary, device = ("a",), ("exit",), ("", "word"), "cpu:0"

    def __init__(self, generation: int = 0) -> None:
        self.generation = generation

    def logits(self, x: Tensor) -> Tensor:
        return x.sum((1, 2, 3))[:, None] * torch.arange(3) + self.generation

    def features(self, x: Tensor, layer: str) -> Tensor:
        return x + 1

    def refuses(self, x: Tensor) -> Tensor:
        return x[:, 0, 0, 0] > 0

    def suspicion(self, x: Tensor) -> Tensor:
        return x[:, 0, 0, 1].double()

    def parts(self, x: Tensor) -> Tensor:
        return x[:, 0, 0, :1] > 0.4

    def members(self) -> Sequence[Classifier]:
        return [] if self.generation else [Inner(1), Inner(2)]

    @property
    def source(self) -> Classifier | None:
        return None if self.generation else Inner(3)

    @property
    def module(self) -> nn.Module:
        return nn.Identity()

    def size_bytes(self) -> int:
        return 1234


class Doubled(Wrapped):
    def logits(self, x: Tensor) -> Tensor:
        return 2 * self._model.logits(x)


def refusing(model: Classifier) -> RefusingClassifier:
    class FirstIsLow:
        """Finds what begins below 0 outlying."""

        threshold = 0.0

        def restore(self, state: bytes) -> typing.Self:
            return self

        def score(self, model: Classifier, x: Tensor, random: SampleRandom) -> np.ndarray:
            return -x[:, 0, 0, 0].double().numpy()

    return RefusingClassifier(model, typing.cast("Detector", FirstIsLow()), b"state")


def limited(model: Classifier) -> Limited:
    purse = Purse(
        Budget(queries=100),
        X,
        lambda _, rows: torch.zeros(len(rows), dtype=torch.bool),
        lambda _, rows: (np.ones(len(rows), dtype=bool), np.zeros(len(rows))),
        minimal=False,
        stochastic=True,
    )
    return Limited(model, Passes.zero(2), np.arange(2), purse, np.arange(2))


OWN = {  # by wrapper: how it is made, and what it says itself
    Aimed: (lambda model: Aimed(model, torch.tensor([0, 1])), {"classes"}),
    Guarded: (lambda model: Guarded(model, registered.build("energy", {})), {"suspicion"}),
    Limited: (limited, {"features"}),
    Masked: (lambda model: Masked(model, X / 2, X > 0), {"module"}),
    Metered: (lambda model: Metered(model, Passes.zero(2), np.arange(2)), set()),
    RefusingClassifier: (refusing, {"refuses", "suspicion", "size_bytes"}),
    SmoothedClassifier: (lambda model: SmoothedClassifier(model, 0.5), {"smoothing"}),
    Swift: (lambda model: Swift(model, nn.Identity(), typing.cast("torch.jit.ScriptModule", nn.Identity())), set()),
    Transformed: (lambda model: Transformed(model, Transformation(kind="brightness", by=0.1)), {"module"}),
    TransformedClassifier: (
        lambda model: TransformedClassifier(model, torch.round, None, Gradients.NONE),
        {"gradients", "module"},
    ),
}
MADE_OF = {"Imitation", "PackedClassifier", "Instrumented"}  # take a model, and are another


def subclasses(of: type) -> set[type]:
    found = {one for direct in of.__subclasses__() for one in (direct, *subclasses(direct))}
    return {one for one in found if one.__module__.partition(".")[0] in ("adapters", "attacks", "bench")}


def test_every_wrapper_of_the_project_is_tested_here() -> None:
    assert {one.__name__ for one in subclasses(Wrapped)} == {one.__name__ for one in OWN}


def test_whoever_takes_a_classifier_wraps_it_or_is_another() -> None:
    def takes_one(kind: type) -> bool:
        return Classifier in typing.get_type_hints(kind.__init__).values()  # type: ignore[misc]

    loose = {one.__name__ for one in subclasses(Classifier) - subclasses(Wrapped) - {Wrapped} if takes_one(one)}
    assert loose <= MADE_OF


@pytest.mark.parametrize(("kind", "made", "own"), [(kind, *rest) for kind, rest in OWN.items()])
def test_a_wrapper_loses_nothing_that_it_does_not_say_itself(
    kind: type[Wrapped], made: Callable[[Classifier], Wrapped], own: set[str]
) -> None:
    inner = Inner()
    outer = made(inner)
    assert isinstance(outer, kind)
    said = {name for name in Classifier.__annotations__ if getattr(outer, name) != getattr(inner, name)}
    assert said == own & Classifier.__annotations__.keys()
    torch.manual_seed(0)
    seen = outer.seen(X)
    for ask in ("refuses", "suspicion", "parts"):
        torch.manual_seed(0)
        if ask not in own:
            assert torch.equal(getattr(outer, ask)(X), getattr(inner, ask)(seen)), ask
    torch.manual_seed(0)
    if "features" not in own:
        assert torch.equal(outer.features(X, "a"), inner.features(seen, "a"))
    if "module" not in own:
        assert isinstance(outer.module, nn.Identity)
    if "size_bytes" not in own:
        assert outer.size_bytes() == 1234
    assert len(outer.members()) == 2
    assert outer.source is not None


@pytest.mark.parametrize("made", [made for made, _ in OWN.values()], ids=[kind.__name__ for kind in OWN])
def test_what_changes_inputs_or_counts_passes_shows_members_and_source_through_itself(
    made: Callable[[Classifier], Wrapped],
) -> None:
    outer = made(Inner())
    relatives = [*outer.members(), outer.source]
    if isinstance(outer, Guarded | RefusingClassifier | Swift):
        assert all(type(one) is Inner for one in relatives)
    else:
        assert all(type(one) is type(outer) for one in relatives)


def test_a_model_behind_a_detector_refuses_what_either_of_them_refuses() -> None:
    guarded, x = refusing(Inner()), torch.tensor([0.5, 0.0, -0.5, 0.0, 0.0, 0.0]).reshape(3, 1, 1, 2)
    assert guarded.refuses(x).tolist() == [True, True, False]  # the model inside does, the detector does, neither
    assert guarded.size_bytes() == 1234 + len(b"state")


def test_every_method_of_a_classifier_is_passed_on_but_for_its_own():
    own = {"rows"}
    said = {name for name, value in vars(Classifier).items() if callable(value) or isinstance(value, property)}
    public = {name for name in said if not name.startswith("_")}
    assert public - own <= vars(Wrapped).keys()


def test_it_describes_itself_as_the_inner_one_and_answers_as_it_does():
    inner = Inner()
    outer = Doubled(inner)
    for name in Classifier.__annotations__:
        assert getattr(outer, name) == getattr(inner, name), name
    assert torch.equal(outer.logits(X), 2 * inner.logits(X))
    assert outer.rows(torch.tensor([0])) is outer
