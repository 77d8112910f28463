"""The small net and its data under names, for suites in tests."""

from typing import ClassVar

from adapters.torch_classifier import TorchClassifier
from bench.contracts import Adapter, Dataset, Samples, adapter, dataset
from tests.detectors import nets


@adapter("t_small")
class SmallAdapter(Adapter):
    """A small net with fixed weights."""

    dropout: float = 0.3

    def build(self, weights: bytes | None) -> TorchClassifier:
        return nets.model(self.dropout)


@dataset("t_near")
class NearData(Dataset):
    """Uniform noise."""

    def load(self) -> Samples:
        return nets.samples(100 if self.split == "train" else 40, seed=len(self.split))


@dataset("t_far")
class FarData(Dataset):
    """The same, black and white."""

    splits: ClassVar[tuple[str, ...]] = ("test",)

    def load(self) -> Samples:
        near = nets.samples(40, seed=7)
        return Samples(
            near.labels, lambda rows: near.fetch(rows).round(), nets.SHAPE, near.bounds, near.class_names, "far"
        )
