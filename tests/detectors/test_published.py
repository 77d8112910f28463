"""ODIN on a network trained on five classes of Fashion-MNIST, against figures that another program computed.

The PCA is fitted on all 27,000 training images; strong outliers are shoes, subtle ones pullovers and shirts.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import adapters.idx
import adapters.outlier_sets  # noqa: F401 - registers the data sets
from adapters.odin_cnn import INLIERS, OdinCnn
from bench.contracts import Classifier, Samples, datasets
from bench.data import ROOT
from bench.detectors import odin_pca
from bench.detectors._features import moments
from bench.detectors.mc_dropout import McDropout
from bench.metrics.outliers import auroc
from bench.randomness import SampleRandom

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
WEIGHTS = "models/fashion_mnist_five_classes_seed0.pt"


@dataclass
class Experiment:
    model: Classifier
    train: Samples
    sets: dict[str, torch.Tensor]
    labels: np.ndarray

    def aurocs(self, score) -> list[float]:
        """Strong, then subtle."""
        inside, strong, subtle = (
            np.concatenate([score(part, start * 500) for start, part in enumerate(x.split(500))])
            for x in self.sets.values()
        )
        return [auroc(inside, outside)[0] for outside in (strong, subtle)]


@pytest.fixture(scope="module")
def experiment(shared_data: Path) -> Experiment:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ROOT, str(shared_data))

        def load(classes: list[int], split: str = "test") -> Samples:
            return datasets.build("classes_of", {**INLIERS.args, "classes": classes, "split": split}).load()

        found = {name: load(classes) for name, classes in {"in": [0, 1, 3, 4, 8], "s": [5, 7, 9], "t": [2, 6]}.items()}
        model = OdinCnn().build((shared_data / WEIGHTS).read_bytes())
        sets = {name: samples.fetch(np.arange(len(samples))) for name, samples in found.items()}
        return Experiment(model, load([0, 1, 3, 4, 8], "train"), sets, found["in"].labels)


@pytest.fixture(scope="module")
def learnt(experiment: Experiment):
    return moments(experiment.model, experiment.train, np.arange(27_000), 1000, "pool2", False)


def test_the_network_is_the_one_that_the_figures_are_of(experiment: Experiment) -> None:
    with torch.no_grad():
        found = experiment.model.logits(experiment.sets["in"]).argmax(dim=1).numpy()
    assert (found == experiment.labels).mean() == pytest.approx(0.9622, abs=1e-9)
    assert len(experiment.train) == 27_000


@pytest.mark.parametrize(
    ("r2", "k", "rss", "mahalanobis"),
    [
        (0.5, 7, (0.952, 0.536), (0.465, 0.369)),
        (0.75, 42, (0.971, 0.546), (0.746, 0.479)),
        (0.9, 203, (0.980, 0.550), (0.957, 0.521)),
        (0.95, 432, (0.981, 0.549), (0.972, 0.541)),
        (0.99, 999, (0.985, 0.554), (0.978, 0.547)),
    ],
)
def test_rss_and_mahalanobis_are_those_of_the_table(experiment, learnt, monkeypatch, r2, k, rss, mahalanobis) -> None:
    monkeypatch.setattr(odin_pca, "moments", lambda *_: learnt)
    detector = odin_pca.OdinPca(scores=("rss", "mahalanobis"), r2=r2, layer="pool2")
    ready = detector._knowing(detector.learn(experiment.model, experiment.train, np.arange(27_000)))
    assert len(ready.known("components")) == k
    for column, expected in enumerate((rss, mahalanobis)):
        found = experiment.aurocs(lambda x, _, column=column: ready.distances(experiment.model, x)[:, column])
        assert found == pytest.approx(expected, abs=0.002)


def test_lof_in_the_smallest_subspace_is_that_of_the_table(experiment, learnt, monkeypatch) -> None:
    monkeypatch.setattr(odin_pca, "moments", lambda *_: learnt)
    detector = odin_pca.OdinPca(scores=("lof",), r2=0.5, layer="pool2")
    ready = detector._knowing(detector.learn(experiment.model, experiment.train, np.arange(27_000)))
    found = experiment.aurocs(lambda x, _: ready.distances(experiment.model, x)[:, 0])
    assert found == pytest.approx((0.868, 0.606), abs=0.002)


def test_mc_dropout_does_not_notice_shoes(experiment) -> None:
    def score(x: torch.Tensor, start: int) -> np.ndarray:
        return McDropout().score(experiment.model, x, SampleRandom.of(0, "mc", range(start, start + len(x))))

    strong, subtle = experiment.aurocs(score)
    assert 0.40 <= strong <= 0.56
    assert subtle == pytest.approx(0.777, abs=0.01)  # the masks are random
