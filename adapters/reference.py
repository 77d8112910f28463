"""The reference models of the quickstart, trained on scikit-learn's digits: one CNN, binarised, and pruned."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn

from adapters.reference_nets import (
    CLASSES,
    INPUT_SHAPE,
    binary_weights,
    pack,
    small_cnn,
    small_cnn_binarised,
    unpack,
)
from adapters.reference_pruning import l1_norm, remove_channels, strongest, taylor
from adapters.reference_training import Schedule, fit, own_random_numbers, tensors
from adapters.torch_classifier import TorchClassifier, load_state, state_from_bytes, state_to_bytes
from bench.contracts import (
    Adapter,
    DatasetChoice,
    Gradients,
    Realisation,
    Report,
    Samples,
    Training,
    adapter,
)
from bench.errors import PluginError

DIGITS = DatasetChoice(dataset="digits", split="train")


class _Reference(Adapter):
    """What the three have in common: the fields of the training, and the need of weights."""

    width: int = Field(default=16, ge=2, le=256, description="maps of the first convolution, half those of the second")
    epochs: int = Field(default=20, ge=1, description="passes over the training data")
    batch_size: int = Field(default=64, ge=2, description="samples of a training step, at least")
    learning_rate: float = Field(default=0.01, gt=0, description="highest of the one-cycle schedule")
    weight_decay: float = Field(default=0.01, ge=0, description="of AdamW")

    @abstractmethod
    def net(self) -> nn.Sequential:
        """The net, with random weights."""

    def schedule(self) -> Schedule:
        return Schedule(**self.model_dump(include=set(Schedule.model_fields)))

    def needed(self, weights: bytes | None) -> bytes:
        """The weights. Raises PluginError where there are none."""
        if weights is None:
            raise PluginError(
                f"model '{self.name}' was built without weights",
                "run it through `gauntlet run`, which trains it once, or name a safetensors file under `weights`",
            )
        return weights


@adapter("small_cnn")
class SmallCnn(_Reference):
    """A CNN of two convolutions for 8x8 digits, trained on the spot."""

    def net(self) -> nn.Sequential:
        return small_cnn(self.width, 2 * self.width)

    def build(self, weights: bytes | None) -> TorchClassifier:
        net = self.net()
        load_state(net, state_from_bytes(self.needed(weights)))
        return TorchClassifier(
            net, input_shape=INPUT_SHAPE, classes=CLASSES, feature_layers=("relu1", "relu2", "flatten")
        )

    def training(self) -> Training | None:
        return None if self.weights else _Training(self)


@adapter("small_cnn_binarised")
class SmallCnnBinarised(_Reference):
    """`small_cnn` with binary weights and activations in all layers but the first."""

    epochs: int = Field(default=40, ge=1, description="passes over the training data")

    def net(self) -> nn.Sequential:
        return small_cnn_binarised(self.width, 2 * self.width)

    def build(self, weights: bytes | None) -> TorchClassifier:
        net = self.net()
        shapes = {name: net.get_parameter(name).shape for name in binary_weights(net)}
        load_state(net, unpack(state_from_bytes(self.needed(weights)), shapes))
        return TorchClassifier(
            net,
            input_shape=INPUT_SHAPE,
            classes=CLASSES,
            gradients=Gradients.SURROGATE,
            realisation=Realisation.SIMULATED,
            feature_layers=("sign1", "norm2", "sign2"),
        )

    def training(self) -> Training | None:
        return None if self.weights else _Training(self)


@adapter("small_cnn_pruned")
class SmallCnnPruned(_Reference):
    """`small_cnn` with half its channels removed for good, and fine-tuned."""

    width: int = Field(default=16, ge=2, le=256, description="of the `small_cnn` that is pruned")
    epochs: int = Field(default=10, ge=1, description="passes over the training data in fine-tuning")
    learning_rate: float = Field(default=0.003, gt=0, description="highest of the one-cycle schedule in fine-tuning")
    keep: float = Field(default=0.5, gt=0, le=1, description="share of the channels of each convolution that stay")
    criterion: Literal["taylor", "l1"] = Field(default="taylor", description="what ranks the channels")

    def net(self) -> nn.Sequential:
        return small_cnn(*self.widths())

    def widths(self) -> tuple[int, int]:
        """Channels that stay: of the first convolution, and of the second."""
        return max(1, round(self.keep * self.width)), max(1, round(self.keep * 2 * self.width))

    def build(self, weights: bytes | None) -> TorchClassifier:
        net = self.net()
        load_state(net, state_from_bytes(self.needed(weights)))
        return TorchClassifier(
            net,
            input_shape=INPUT_SHAPE,
            classes=CLASSES,
            realisation=Realisation.REAL_SHAPES,
            feature_layers=("relu1", "relu2", "flatten"),
        )

    def training(self) -> Training | None:
        return None if self.weights else _PruningTraining(self)


# --- how their weights are made ---------------------------------------------------------------------------------------


class _Training(Training):
    """From random weights. The whole adapter is the recipe: each of its fields decides the outcome."""

    data = DIGITS

    def __init__(self, model: _Reference) -> None:
        self.model = model

    def recipe(self) -> Mapping[str, Any]:
        return {"model": self.model.name, **self.model.model_dump(mode="json", exclude={"weights"})}

    def train(self, samples: Samples, parent: bytes | None, seed: int, report: Report) -> bytes:
        x, y = tensors(samples, INPUT_SHAPE, CLASSES)
        with own_random_numbers(seed) as random:
            net = self.start(x, y, parent)
            fit(net, x, y, self.model.schedule(), random, report)
        return state_to_bytes(pack(net.state_dict(), binary_weights(net)))

    def start(self, x: Tensor, y: Tensor, parent: bytes | None) -> nn.Module:
        """The net before the first step."""
        return self.model.net()


class _PruningTraining(_Training):
    """From the channels of the parent that matter most."""

    def __init__(self, model: SmallCnnPruned) -> None:
        super().__init__(model)
        self.pruned = model
        self.parent: SmallCnn = SmallCnn(width=model.width)

    def recipe(self) -> Mapping[str, Any]:
        return {**super().recipe(), "parent": self.parent.model_dump(mode="json", exclude={"weights"})}

    def start(self, x: Tensor, y: Tensor, parent: bytes | None) -> nn.Module:
        net = self.parent.net()
        load_state(net, state_from_bytes(self.parent.needed(parent)))
        net.eval()
        importance = taylor(net, x, y) if self.pruned.criterion == "taylor" else l1_norm(net)
        kept = [strongest(layer, keep) for layer, keep in zip(importance, self.pruned.widths(), strict=True)]
        return remove_channels(net, kept[0], kept[1])
