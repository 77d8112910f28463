"""Detectors that look at the outputs alone, against scipy and a few lines of numpy."""

import numpy as np
import pytest
import torch
from scipy import special, stats

from bench.contracts import Gradients
from bench.detectors.energy import Energy
from bench.detectors.entropy import Entropy
from bench.detectors.max_logit import MaxLogit
from bench.detectors.max_softmax import MaxSoftmax
from bench.detectors.mc_dropout import McDropout
from bench.detectors.odin_liang import OdinLiang
from bench.errors import PluginError
from bench.randomness import SampleRandom
from tests.detectors import nets

X = nets.inputs(7)
P = special.softmax(nets.logits(X), axis=1)


def score(detector, x=X, start=0, model=None):
    return detector.score(model or nets.model(), x, nets.streams(len(x), start))


def test_maximum_softmax_is_scipys() -> None:
    assert score(MaxSoftmax()) == pytest.approx(-P.max(axis=1), abs=1e-12)


def test_maximum_logit_is_numpys() -> None:
    assert score(MaxLogit()) == pytest.approx(-nets.logits(X).max(axis=1), abs=1e-12)


def test_energy_is_scipys_logsumexp_at_any_temperature() -> None:
    expected = -2.5 * special.logsumexp(nets.logits(X) / 2.5, axis=1)
    assert score(Energy(temperature=2.5)) == pytest.approx(expected, abs=1e-12)


def test_entropy_is_scipys() -> None:
    assert score(Entropy()) == pytest.approx(stats.entropy(P, axis=1), abs=1e-12)


def test_odin_of_liang_is_its_equations_by_finite_differences() -> None:
    t, epsilon, h = 3.0, 0.01, 1e-3
    model = nets.model()
    expected = []
    for x, logits in zip(X, nets.logits(X), strict=True):
        answer = logits.argmax()
        steps = h * torch.eye(36).reshape(36, *nets.SHAPE)
        up, down = (special.log_softmax(nets.logits(x + sign * steps) / t, axis=1)[:, answer] for sign in (1, -1))
        towards = torch.from_numpy(np.sign(up - down)).float().reshape(nets.SHAPE)
        moved = nets.logits((x + epsilon * towards)[None])
        expected.append(-special.softmax(moved / t, axis=1).max())
    assert score(OdinLiang(temperature=t, epsilon=epsilon), model=model) == pytest.approx(expected, abs=1e-6)


def test_odin_of_liang_without_a_step_is_the_tempered_softmax_and_needs_no_gradient() -> None:
    model = nets.model()
    model.gradients = Gradients.NONE
    expected = -special.softmax(nets.logits(X) / 1000, axis=1).max(axis=1)
    assert score(OdinLiang(epsilon=0), model=model) == pytest.approx(expected, abs=1e-12)
    with pytest.raises(PluginError, match="needs gradients"):
        score(OdinLiang(), model=model)


def test_odin_of_liang_raises_the_confidence_of_every_input() -> None:
    assert (score(OdinLiang(temperature=1, epsilon=0.01)) < score(MaxSoftmax())).all()


def by_hand(passes: int, random: SampleRandom) -> np.ndarray:
    """Probabilities (passes, n, classes) with masks multiplied in by hand."""
    net = nets.model().module
    found = []
    with torch.no_grad():
        for _ in range(passes):
            z = net.norm(net.relu(net.conv(X)))
            z = z * (random.uniform(z.shape[1:]) >= 0.3) / 0.7
            found.append(net.head(net.act(net.hidden(z.flatten(1)))).double().softmax(dim=1).numpy())
    return np.stack(found)


def test_mc_dropout_is_what_masks_by_hand_give() -> None:
    p = by_hand(20, nets.streams(7))
    of_mean, mean_of = stats.entropy(p.mean(axis=0), axis=1), stats.entropy(p, axis=2).mean(axis=0)
    assert score(McDropout(passes=20)) == pytest.approx(of_mean, abs=1e-6)
    information = score(McDropout(passes=20, measure="mutual_information"))
    assert information == pytest.approx(of_mean - mean_of, abs=1e-6)
    assert (information > 0).all()
    commonest = stats.mode(p.argmax(axis=2), axis=0).count
    variation = score(McDropout(passes=20, measure="variation_ratio"))
    assert variation == pytest.approx(1 - commonest / 20)


def test_mc_dropout_approaches_torchs_own_dropout() -> None:
    net = nets.model().module
    net.drop.train()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        mean = torch.stack([net(X).double().softmax(dim=1) for _ in range(2000)]).mean(dim=0)
    assert score(McDropout(passes=2000)) == pytest.approx(stats.entropy(mean.numpy(), axis=1), abs=0.01)


def test_mc_dropout_draws_per_image_whatever_the_batch() -> None:
    whole = score(McDropout(passes=5))
    assert np.concatenate([score(McDropout(passes=5), X[i : i + 1], i) for i in range(7)]) == pytest.approx(whole)


def test_mc_dropout_refuses_a_model_without_dropout() -> None:
    with pytest.raises(PluginError, match="needs a model with dropout layers"):
        score(McDropout(), model=nets.model(dropout=0))
