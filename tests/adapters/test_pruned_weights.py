import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from adapters import pruned_weights
from adapters.cnn import Cnn
from adapters.pruned_weights import PrunedWeights, prune, sensitivity, threshold, weighted
from adapters.recipe import accuracy as accuracy_on
from adapters.torch_classifier import load_state, state_from_bytes
from bench.contracts import Realisation
from bench.probes.sparsity import Sparsity
from tests.adapters.families import MODEL, SMALL, Quiet, accuracy, digits, resumed, small_cnn, trained

TRAIN = {"epochs": 3, "batch_size": 64, "learning_rate": 0.005}
FAST = {"model": MODEL, "rounds": 2, "images": 400, "shares": [0.3, 0.5, 0.7, 0.9], "tolerance": 0.03, "train": TRAIN}


def dense() -> nn.Module:
    net = Cnn(**SMALL).net()
    load_state(net, state_from_bytes(small_cnn()))
    return net.eval().requires_grad_(False)


def data(count: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    return digits().fetch(np.arange(count)), torch.from_numpy(digits().labels[:count])


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0.0), (0.1, 0.0), (0.2, 0.1), (0.5, 0.3), (0.99, 0.5)])
def test_the_threshold_is_the_magnitude_in_that_place(share, expected):
    assert threshold(torch.tensor([[0.4, -0.1], [0.3, -0.2], [0.5, 0.6]]), share) == pytest.approx(expected)


def test_pruning_takes_the_smallest_weights_of_each_layer_and_touches_nothing_else():
    net = dense()
    before = copy.deepcopy(net)
    prune(net, dict.fromkeys(weighted(net), 0.6))
    for name, layer in weighted(net).items():
        was = weighted(before)[name].weight.numpy()
        gone = np.argsort(np.abs(was), axis=None, kind="stable")[: int(0.6 * was.size)]
        expected = was.copy()
        expected.ravel()[gone] = 0
        assert np.array_equal(layer.weight.numpy(), expected)
    others = [key for key in net.state_dict() if key.removesuffix(".weight") not in weighted(net)]
    assert all(torch.equal(net.state_dict()[key], before.state_dict()[key]) for key in others)


def test_the_scan_finds_the_last_share_that_the_tolerance_allows_and_leaves_the_net_as_it_was():
    net, (x, y), shares = dense(), data(), (0.2, 0.5, 0.8, 0.95)
    before = copy.deepcopy(net.state_dict())
    found = sensitivity(net, x, y, shares, 0.021)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    whole = accuracy_on(net, x, y)
    for name, share in found.items():
        costs = {}
        for tried in shares:
            alone = dense()
            prune(alone, {each: tried if each == name else 0.0 for each in found})
            costs[tried] = whole - accuracy_on(alone, x, y)
        assert all(costs[tried] <= 0.021 for tried in shares if tried <= share)
        worse = [tried for tried in shares if tried > share]
        assert not worse or costs[worse[0]] > 0.021
    assert len(set(found.values())) > 1  # layers differ in what they bear


@pytest.fixture(scope="module")
def pruned() -> bytes:
    return trained(PrunedWeights(**FAST), small_cnn())


def test_most_weights_are_zero_and_the_digits_are_still_told_apart(pruned):
    model = PrunedWeights(**FAST)
    classifier = model.build(pruned)
    figures = {each.name: each.value for each in Sparsity(inputs=4).measure(classifier, digits("test"), pruned)}
    zeros = sum(int((layer.weight == 0).sum()) for layer in weighted(classifier.module).values())
    total = sum(layer.weight.numel() for layer in weighted(classifier.module).values())
    assert zeros / total > 0.5
    assert figures["han/weights"] == pytest.approx(1 - zeros / total)
    assert accuracy(model, pruned) > 0.93
    assert classifier.realisation is Realisation.DENSE_WITH_ZEROS


def test_a_round_prunes_no_less_than_the_one_before_and_zeros_stay_zero():
    report = Quiet()
    weights = trained(PrunedWeights(**FAST), small_cnn(), report=report)
    shares = [figures for figures in report.figures if "weights/conv1" in figures]
    assert len(shares) == 2
    assert all(shares[1][name] <= shares[0][name] for name in shares[0])
    final = weighted(PrunedWeights(**FAST).build(weights).module)
    assert [float((layer.weight != 0).float().mean()) for layer in final.values()] == pytest.approx(
        list(shares[1].values()), abs=1e-3
    )


@pytest.mark.parametrize("penalty", ["l1", "l2"])
def test_the_penalty_is_the_sum_over_all_weights_but_no_biases(penalty):
    net, (x, y) = dense(), data(16)
    decayed = PrunedWeights(**FAST, penalty=penalty, decay=0.5).loss(net, x, y, torch.arange(16))
    plain = PrunedWeights(**FAST, decay=0.0).loss(net, x, y, torch.arange(16))
    weights = np.concatenate([layer.weight.numpy().ravel() for layer in weighted(net).values()]).astype(np.float64)
    expected = 0.5 * (np.abs(weights).sum() if penalty == "l1" else (weights**2).sum() / 2)
    assert (decayed - plain).item() == pytest.approx(expected, rel=1e-5)


def test_no_weight_that_was_pruned_revives_in_any_step_of_the_retraining(monkeypatch):
    """Adam's momentum pushes pruned weights at each step; the mask takes them back at each."""
    mask, zeros, moved = pruned_weights._mask, {}, []

    def watched(masks, net):
        moved.append(sum(int((layer.weight[~masks[name]] != 0).sum()) for name, layer in weighted(net).items()))
        mask(masks, net)
        for name, layer in weighted(net).items():
            zeros.setdefault(name, []).append(layer.weight == 0)

    monkeypatch.setattr(pruned_weights, "_mask", watched)
    trained(PrunedWeights(**FAST), small_cnn())
    assert max(moved) > 0, "without the mask some would have come back"
    for steps in zeros.values():
        for earlier, later in pairwise(steps):
            assert (later | ~earlier).all()


@pytest.mark.parametrize("after", [30, 80])
def test_a_killed_pruning_ends_with_the_bytes_of_an_undisturbed_one(pruned, after, monkeypatch):
    monkeypatch.setattr("adapters.compressed.CHECKPOINT", 0)
    monkeypatch.setattr("adapters.recipe.CHECKPOINT", 0)
    assert resumed(PrunedWeights(**FAST), small_cnn(), after) == pruned
