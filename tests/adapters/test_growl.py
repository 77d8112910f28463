import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from adapters import growl, recipe
from adapters.cnn import Cnn
from adapters.growl import Growl, clusters, proximal, similarity, tie, treated
from bench.probes.sharing import Sharing
from tests.adapters.families import SMALL, accuracy, digits, resumed, trained

MODEL = {"adapter": "cnn", "args": SMALL | {"channels": [], "hidden": [30]}}
TRAIN = {"epochs": 12, "batch_size": 64, "learning_rate": 0.05, "optimiser": "sgd"}
FAST = {
    "model": MODEL,
    "strength": 0.2,
    "spread": 0.2,
    "preference": 0.5,
    "train": TRAIN,
    "retrain": TRAIN | {"epochs": 3},
}


@pytest.fixture(scope="module")
def dense() -> bytes:
    return trained(Cnn(**MODEL["args"]))


@pytest.fixture(scope="module")
def sparse(dense) -> bytes:
    return trained(Growl(**FAST), dense)


def test_the_proximal_step_is_what_a_general_optimiser_finds():
    random = np.random.default_rng(0)
    weight, charges = random.normal(size=(3, 5)), np.array([1.5, 1.0, 0.6, 0.3, 0.1])

    def penalised(flat):
        columns = np.sort(np.linalg.norm(flat.reshape(3, 5), axis=0))[::-1]
        return 0.5 * ((flat.reshape(3, 5) - weight) ** 2).sum() + charges @ columns

    found = proximal(torch.from_numpy(weight), torch.from_numpy(charges)).numpy()
    starts = [found + 0.1 * random.normal(size=(3, 5)), weight, np.zeros((3, 5)) + 1e-3]
    best = min(
        minimize(penalised, start.ravel(), method="Nelder-Mead", options={"maxiter": 40_000, "fatol": 1e-12}).fun
        for start in starts
    )
    assert penalised(found.ravel()) <= best + 1e-6
    assert all(
        penalised((found + 1e-3 * random.normal(size=(3, 5))).ravel()) >= penalised(found.ravel()) for _ in range(50)
    )


def test_with_equal_charges_it_is_the_shrinkage_of_the_group_lasso():
    weight = torch.tensor([[3.0, 0.1, 0.0], [4.0, 0.2, 0.0]])
    found = proximal(weight, torch.full((3,), 1.0, dtype=torch.float64))
    assert torch.allclose(found, torch.tensor([[2.4, 0.0, 0.0], [3.2, 0.0, 0.0]]))


def test_columns_of_nearly_equal_norm_get_equal_norms():
    weight = torch.diag(torch.tensor([2.0, 1.95, 0.5]))
    found = proximal(weight, torch.tensor([0.5, 0.3, 0.1], dtype=torch.float64)).norm(dim=0)
    assert found[0] == pytest.approx(found[1].item())
    assert found.tolist() == pytest.approx([1.575, 1.575, 0.4])


def test_rows_are_alike_in_direction_and_in_length():
    rows = np.array([[3.0, 4.0], [3.0, 4.0], [0.6, 0.8], [-3.0, -4.0], [4.0, -3.0]])
    found = similarity(rows)
    for i, j in np.ndindex(5, 5):
        expected = sum(rows[i] * rows[j]) / max(sum(rows[i] ** 2), sum(rows[j] ** 2))
        assert found[i, j] == pytest.approx(expected)
    assert found[0].tolist() == pytest.approx([1, 1, 0.2, -1, 0])


def test_rows_of_two_directions_and_two_lengths_make_four_clusters():
    random = np.random.default_rng(1)
    rows = np.repeat([[1.0, 0, 0], [0, 1, 0], [3, 0, 0], [0, 3, 0]], 6, axis=0)
    labels = clusters(rows + 0.01 * random.normal(size=rows.shape), 0.5)
    found = sorted(sorted(np.flatnonzero(labels == label).tolist()) for label in set(labels))
    assert found == [[*range(first, first + 6)] for first in (0, 6, 12, 18)]


def test_tying_takes_the_mean_of_a_cluster_and_empties_what_has_none():
    net = nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 2)).requires_grad_(False)
    net[0].weight.copy_(torch.tensor([[1.0, 3.0, 5.0, 7.0], [2.0, 4.0, 6.0, 8.0]]))
    last = net[2].weight.clone()
    tie(net, {"0": np.array([0, 0, -1, 1])})
    assert net[0].weight.tolist() == [[2, 2, 0, 7], [3, 3, 0, 8]]
    assert torch.equal(net[2].weight, last)


def test_inputs_vanish_or_share_their_weights_and_the_digits_are_still_told_apart(sparse):
    model = Growl(**FAST)
    classifier = model.build(sparse)
    (weight,) = [layer.weight for layer in treated(classifier.module).values()]
    columns = weight.T.unique(dim=0)
    assert (weight.norm(dim=0) == 0).sum() > 5
    assert len(columns) < (weight.norm(dim=0) > 0).sum()
    figures = {each.name: each.value for each in Sharing().measure(classifier, digits(), sparse)}
    different = 30 * (len(columns) - 1) + 300
    assert figures["sharing/compression"] == pytest.approx((64 * 30 + 300) / different, rel=0.02)
    assert figures["sharing/zeros"] == pytest.approx(float((weight == 0).sum()) / (64 * 30 + 300))
    assert accuracy(model, sparse) > 0.85


def test_a_killed_training_ends_with_the_bytes_of_an_undisturbed_one(sparse, dense, monkeypatch):
    monkeypatch.setattr("adapters.compressed.CHECKPOINT", 0)
    monkeypatch.setattr("adapters.recipe.CHECKPOINT", 0)
    assert resumed(Growl(**FAST), dense, 100) == sparse
    assert resumed(Growl(**FAST), dense, 265) == sparse


def test_charges_fall_over_a_share_of_the_inputs_and_stay_there():
    made = Growl(**{**FAST, "strength": 1.0, "spread": 3.0, "transition": 0.4})
    assert made.charges(nn.Linear(10, 2)).tolist() == pytest.approx([4, 3, 2, 1, 1, 1, 1, 1, 1, 1])
    whole = Growl(**{**FAST, "strength": 1.0, "spread": 3.0})
    assert whole.charges(nn.Linear(4, 2)).tolist() == pytest.approx([4, 3, 2, 1])


@pytest.mark.parametrize("lasting", [True, False])
def test_an_input_that_is_gone_comes_back_unless_it_is_to_stay_out(dense, monkeypatch, lasting):
    gone = []

    def watched(net, *args, after_step, **options):
        def after(trained):
            after_step(trained)
            (layer,) = treated(trained).values()
            gone.append(layer.weight.norm(dim=0) == 0)

        return recipe.train(net, *args, after_step=after, **options)

    monkeypatch.setattr(growl, "train", watched)
    trained(Growl(**{**FAST, "tie": "none", "lasting": lasting}), dense)
    revived = sum(int((earlier & ~later).sum()) for earlier, later in itertools.pairwise(gone))
    assert int(gone[-1].sum()) > 10
    assert (revived == 0) == lasting
