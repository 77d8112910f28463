"""What the model families have in common: data to train on, a recipe, and a training that resumes."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from adapters.recipe import Recipe, train
from adapters.reference_training import own_random_numbers
from adapters.torch_classifier import UNIT, TorchClassifier, load_state, state_from_bytes, state_to_bytes
from bench.contracts import Adapter, DatasetChoice, Plugin, Report, Samples, Training, adapters
from bench.errors import PluginError, did_you_mean

SHAPES: Mapping[str, tuple[int, ...]] = {  # inputs of the data sets that come with Gauntlet
    "digits": (1, 8, 8),
    "mnist": (1, 28, 28),
    "fashion_mnist": (1, 28, 28),
    "cifar10": (3, 32, 32),
}


class Family(Adapter):
    """A model that is trained by a recipe. What a family is made of is its own: `net`, and how it is described."""

    data: DatasetChoice = Field(default=DatasetChoice(dataset="mnist"), description="what it is trained on")
    input_shape: tuple[int, ...] | None = Field(
        default=None, description="of a sample; left out for digits, mnist, fashion_mnist, cifar10"
    )
    classes: int = Field(default=10, ge=2)
    train: Recipe = Field(default=Recipe(), description="how it is trained (docs/families.md)")
    repeat: int = Field(default=0, ge=0, description="another one, all else equal: joins the suite's seed")

    @model_validator(mode="after")
    def _known_shape(self) -> "Family":
        if self.input_shape is None and self.data.dataset not in SHAPES:
            hint = did_you_mean(self.data.dataset, SHAPES)
            raise ValueError(f"`input_shape` is needed for the data set '{self.data.dataset}'{hint}")
        self.teacher()  # a wrong name or argument is told here
        for name, recipe in self.recipes().items():
            if name != "train" and recipe.teacher is not None:
                raise ValueError(f"{name}.teacher: that training learns from the labels: leave `teacher` out")
        return self

    def recipes(self) -> Mapping[str, Recipe]:
        """The recipes of all of its trainings, by the names of their fields."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: value for name, value in fields.items() if isinstance(value, Recipe)}

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a sample."""
        return self.input_shape or SHAPES[self.data.dataset]

    @abstractmethod
    def net(self) -> nn.Module:
        """The net with random weights, drawn from torch's global generator."""

    @abstractmethod
    def classifier(self, net: nn.Module) -> TorchClassifier:
        """The trained net, described."""

    def stored(self, net: nn.Module) -> Mapping[str, Tensor]:
        """The state as it is kept, of a net in eval mode."""
        return net.state_dict()

    def opened(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What `stored` gave, as the net takes it."""
        return state

    def after_step(self, net: nn.Module) -> None:
        """After each step of the optimiser, without gradients."""

    def fit(self, net: nn.Module, x: Tensor, y: Tensor, samples: Samples, **options: Any) -> None:
        """Train the net in place. options: `seed`, `report` and `teacher` of `adapters.recipe.train`."""
        train(net, x, y, self.train, bounds=samples.bounds, after_step=self.after_step, **options)

    def inner_plugins(self) -> tuple[Plugin, ...]:
        teacher = self.teacher()
        return () if teacher is None else (teacher,)

    def teacher(self) -> Adapter | None:
        """The model that it learns from."""
        choice = self.train.teacher
        return None if choice is None else adapters.build(choice.adapter, choice.args)

    def build(self, weights: bytes | None) -> TorchClassifier:
        if weights is None:
            raise PluginError(
                f"model '{self.name}' was built without weights",
                "run it through `gauntlet run`, which trains it once, or name a safetensors file under `weights`",
            )
        net = self.net()
        load_state(net, self.opened(state_from_bytes(weights)))
        return self.classifier(net)

    def training(self) -> Training | None:
        return None if self.weights else FamilyTraining(self)


class FamilyTraining(Training):
    """From random weights. The whole adapter is the recipe: each of its fields decides the outcome."""

    def __init__(self, model: Family) -> None:
        self.model = model
        self.data = model.data
        self.parent = model.teacher()
        shown = [recipe.exposure for recipe in model.recipes().values()]
        self.also = tuple(exposure.outliers for exposure in shown if exposure is not None)

    def recipe(self) -> Mapping[str, Any]:
        return {"model": self.model.name, **self.model.model_dump(mode="json", exclude={"weights"})}

    def train(self, samples: Samples, parent: bytes | None, seed: int, report: Report) -> bytes:
        x, y = tensors(samples, self.model.shape, self.model.classes)
        teacher = None if self.parent is None else self.parent.build(parent).logits
        seed += self.model.repeat
        with own_random_numbers(seed):
            net = self.model.net()
            self.model.fit(net, x, y, samples, seed=seed, report=report, teacher=teacher)
        return state_to_bytes(self.model.stored(net))


def check_net(model: Family, check: Callable[[nn.Module], object]) -> None:
    """Let `check` look at a model's net before anything is trained: layers and shapes, without numbers.

    Raises ValueError, as pydantic wants it, where `check` raises PluginError.
    """
    with torch.device("meta"):
        try:
            check(model.net())
        except PluginError as problem:
            raise ValueError(f"model: {problem}") from None


def tensors(samples: Samples, input_shape: tuple[int, ...], classes: int) -> tuple[Tensor, Tensor]:
    """All inputs (n, *input_shape) float32 and labels (n,) int64. Raises PluginError for data of another shape or
    range."""
    if samples.input_shape != input_shape or len(samples.class_names) != classes:
        raise PluginError(
            f"the net takes inputs of shape {input_shape} and {classes} classes, but the training data have "
            f"{samples.input_shape} and {len(samples.class_names)}",
            "give the family's `input_shape` and `classes` those of its `data`",
        )
    if samples.bounds.low < UNIT.low or samples.bounds.high > UNIT.high:
        raise PluginError(
            f"the net takes inputs from 0 to 1, but the training data lie between {samples.bounds.low:g} and "
            f"{samples.bounds.high:g}",
            "scale the data to that range, and give the data set such `bounds`",
        )
    return samples.fetch(torch.arange(len(samples)).numpy()).to(torch.float32), torch.from_numpy(samples.labels)
