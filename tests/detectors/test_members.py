"""Detectors of ensembles and of snapshots, against a few plain lines."""

import numpy as np
import pytest
import torch
from scipy import stats

from adapters.torch_classifier import TorchClassifier
from bench.contracts import Bounds, Classifier, Samples
from bench.detectors.aes import AveragedEarlyStopping
from bench.detectors.ensemble import Ensemble
from bench.detectors.mc_dropout import McDropout
from bench.detectors.pes import PointwiseEarlyStopping, aurc
from bench.errors import PluginError
from bench.metering import Metered, Passes
from bench.metrics.selective import aurc as metric
from bench.metrics.selective import e_aurc
from tests.detectors import nets

X = nets.inputs(9, seed=11)


def probabilities(x: torch.Tensor = X) -> np.ndarray:
    """(members, n, classes), the final model last."""
    with torch.no_grad():
        return np.stack([m.logits(x).double().softmax(dim=1).numpy() for m in nets.model().members()])


def test_an_ensembles_measures_are_those_of_its_mean_and_of_its_votes() -> None:
    p = probabilities()
    entropy = stats.entropy(p.mean(axis=0), axis=1)
    apart = stats.entropy(p, axis=2).mean(axis=0)
    votes = np.stack([np.bincount(column, minlength=3).max() for column in p.argmax(axis=2).T])
    expected = {"entropy": entropy, "mutual_information": entropy - apart, "variation_ratio": 1 - votes / 3}
    for measure, values in expected.items():
        found = Ensemble(measure=measure).score(nets.model(), X, nets.streams(9))
        assert found == pytest.approx(values, abs=1e-9)
    assert (expected["mutual_information"] > 0).all()


def test_aes_is_minus_the_mean_confidence_in_the_final_models_answer() -> None:
    p = probabilities()
    answer = p[-1].argmax(axis=1)
    expected = -p[:, np.arange(9), answer].mean(axis=0)
    assert AveragedEarlyStopping().score(nets.model(), X, nets.streams(9)) == pytest.approx(expected, abs=1e-9)


class Steered(Classifier):
    """Two snapshots whose confidences are read from the input: x[0] of the earlier, x[1] of the final one."""

    input_shape = (3,)
    classes = 2

    def __init__(self, column: int = 1) -> None:
        self.column = column

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        sure = x[:, self.column].double()
        return torch.stack([sure.log(), (1 - sure).log()], dim=1).float()

    def members(self) -> list[Classifier]:
        return [Steered(0), self]


def steered() -> tuple[np.ndarray, Samples]:
    """The final model is blind for what is wrong among its surest answers; the earlier one sees it."""
    random = np.random.default_rng(0)
    n = 400
    final = np.where(np.arange(n) < 200, random.uniform(0.5, 0.7, n), random.uniform(0.9, 0.99, n))
    wrong = random.random(n) < np.where(np.arange(n) < 200, 0.9 - final, 0.2)
    early = np.where(np.arange(n) < 200, random.uniform(0.5, 0.99, n), np.where(wrong, 0.6, 0.95))
    final[:200] = np.where(wrong[:200], final[:200] - 0.1, final[:200]).clip(0.501)
    x = torch.from_numpy(np.stack([early, final, wrong], axis=1)).float()
    samples = Samples(wrong.astype(np.int64), lambda rows: x[rows], (3,), Bounds(0, 1), ("a", "b"), "steered")
    return x.numpy(), samples


def test_pes_gives_each_layer_the_snapshot_that_orders_it_best() -> None:
    x, samples = steered()
    detector = PointwiseEarlyStopping(q=200, threshold_source="train")
    ready = detector.restore(detector.fit(Steered(), samples, 0))
    assert ready.known("snapshots").tolist() == [1, 0]
    scores = ready.score(Steered(), torch.from_numpy(x), nets.streams(400))
    wrong = samples.labels != 0
    plain = -x[:, 1].astype(np.float64)
    assert e_aurc(scores, wrong) < e_aurc(plain, wrong) - 0.01
    first, second = scores[:200], scores[200:]
    assert first.min() > second.max()  # layers never mix
    assert second == pytest.approx(-(1 + x[200:, 0]), abs=1e-6)
    assert first == pytest.approx(-x[:200, 1], abs=1e-6)


def test_what_pes_minimises_is_the_excess_aurc() -> None:
    random = np.random.default_rng(3)
    for _ in range(20):
        doubt, wrong = random.integers(0, 6, 50) / 6, random.random(50) < 0.3
        assert aurc(doubt, wrong) == pytest.approx(metric(doubt, wrong), abs=1e-12)


def test_an_input_surer_than_all_belongs_to_the_last_layer() -> None:
    _, samples = steered()
    detector = PointwiseEarlyStopping(q=100, threshold_source="train")
    ready = detector.restore(detector.fit(Steered(), samples, 0))
    surest = torch.tensor([[0.9, 0.9999, 0]])
    assert -4 - 1e-9 <= ready.score(Steered(), surest, nets.streams(1))[0] < -3


def test_too_few_samples_and_models_without_members_are_refused() -> None:
    _, samples = steered()
    with pytest.raises(PluginError, match="less than one layer of 500"):
        PointwiseEarlyStopping(q=500, threshold_source="train").fit(Steered(), samples, 0)
    alone = TorchClassifier(nets.Small(0.1), input_shape=nets.SHAPE, classes=3)
    for detector in (Ensemble(), AveragedEarlyStopping()):
        with pytest.raises(PluginError, match="needs an ensemble or snapshots of the training"):
            detector.score(alone, X, nets.streams(9))


def test_the_passes_of_the_members_are_charged() -> None:
    passes = Passes.zero(9)
    Ensemble().score(Metered(nets.model(), passes, np.arange(9)), X, nets.streams(9))
    assert passes.forwards.tolist() == [3] * 9


def test_dropout_and_ensembles_measure_disagreement_alike() -> None:
    found = McDropout(passes=4).score(nets.model(dropout=1e-12), X, nets.streams(9))
    assert found == pytest.approx(stats.entropy(probabilities()[-1], axis=1), abs=1e-6)
