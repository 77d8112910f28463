import copy

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import stats
from torch import nn

from adapters.cnn import Cnn
from adapters.deployed_export import check_agreement, export, session
from adapters.pruned_channels import PrunedChannels, channels, remove, shaped, weakest
from bench.contracts import Realisation
from bench.errors import PluginError
from bench.probes.macs import Macs
from tests.adapters.families import (
    MODEL,
    SMALL,
    Killed,
    KilledError,
    Quiet,
    accuracy,
    digits,
    resumed,
    small_cnn,
    trained,
)

FAST = {"model": MODEL, "images": 128, "updates": 2, "train": {"epochs": 6, "batch_size": 64, "learning_rate": 0.005}}


def net(normalise: bool = True) -> nn.Module:
    torch.manual_seed(0)
    made = Cnn(**SMALL | {"normalise": normalise}).net()
    for layer in made:
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.3, 0.3)
            layer.weight.data.uniform_(0.5, 2)
    return made.eval()


@pytest.mark.parametrize("normalise", [True, False])
def test_the_smaller_net_computes_what_the_large_one_does_with_those_maps_set_to_zero(normalise):
    whole = net(normalise)
    removed = [[0, 4], [2, 3, 9]]
    smaller = copy.deepcopy(whole)
    x = torch.rand(5, 1, 8, 8)
    remove(smaller, removed, x[:1])
    for name, indices in zip(("relu1", "relu2"), removed, strict=True):
        whole.get_submodule(name).register_forward_hook(
            lambda _layer, _inputs, out, gone=indices: out.index_fill(1, torch.tensor(gone), 0)
        )
    assert channels(smaller) == [4, 7]
    assert torch.allclose(smaller(x), whole(x), atol=1e-6)
    assert smaller.get_submodule("linear1").in_features == 7 * 4


def test_shapes_are_had_from_a_state_alone():
    smaller = net()
    remove(smaller, [[1], [0, 5]], torch.rand(1, 1, 8, 8))
    again = shaped(net(), smaller.state_dict())
    again.load_state_dict(smaller.state_dict())
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(again(x), smaller(x))
    assert str(again) == str(smaller)


def test_the_least_important_go_first_and_the_last_of_a_layer_stays():
    ranking = [torch.tensor([0.1, 0.2]), torch.tensor([0.3, 0.15, 0.9])]
    assert weakest(ranking, 1) == [[0], []]
    assert weakest(ranking, 2) == [[0], [1]]
    assert weakest(ranking, 3) == [[0], [0, 1]]
    assert weakest(ranking, 9) == [[0], [0, 1]]


@pytest.fixture(scope="module")
def pruned() -> bytes:
    return trained(PrunedChannels(**FAST), small_cnn())


def test_half_the_channels_are_gone_and_the_digits_are_still_told_apart(pruned):
    model = PrunedChannels(**FAST)
    classifier = model.build(pruned)
    assert sum(channels(classifier.module)) == 8
    assert classifier.realisation is Realisation.REAL_SHAPES
    assert accuracy(model, pruned) > 0.9


def test_its_file_and_its_macs_are_those_of_smaller_layers(pruned):
    classifier = PrunedChannels(**FAST).build(pruned)
    first, second = channels(classifier.module)
    macs = 64 * 9 * first + 16 * 9 * first * second + 4 * second * 24 + 24 * 10
    counted = {figure.name: figure.value for figure in Macs(inputs=2).measure(classifier, digits("test"), pruned)}
    assert counted["macs"] == macs
    assert len(pruned) < len(small_cnn())


def test_its_onnx_export_runs_and_agrees(pruned):
    classifier = PrunedChannels(**FAST).build(pruned)
    run = session(export(classifier))
    check_agreement(classifier, run)
    test = digits("test")
    x = test.fetch(np.arange(200))
    assert torch.equal(run(x).argmax(1), classifier.logits(x).argmax(1))


def test_the_same_seed_gives_the_same_bytes_and_another_other_ones(pruned):
    assert trained(PrunedChannels(**FAST), small_cnn()) == pruned
    assert trained(PrunedChannels(**FAST), small_cnn(), seed=1) != pruned


@pytest.mark.parametrize("after", [2, 9, 12])
def test_a_killed_pruning_ends_with_the_bytes_of_an_undisturbed_one(pruned, after, monkeypatch):
    monkeypatch.setattr("adapters.compressed.CHECKPOINT", 0)
    monkeypatch.setattr("adapters.recipe.CHECKPOINT", 0)
    assert resumed(PrunedChannels(**FAST), small_cnn(), after) == pruned


def test_what_was_told_before_the_kill_is_told_again(monkeypatch):
    monkeypatch.setattr("adapters.compressed.CHECKPOINT", 0)
    whole, report = Quiet(), Killed(3)
    trained(PrunedChannels(**FAST), small_cnn(), report=whole)
    with pytest.raises(KilledError):
        trained(PrunedChannels(**FAST), small_cnn(), report=report)
    report.figures.clear()
    trained(PrunedChannels(**FAST), small_cnn(), report=report)
    assert report.figures == whole.figures


def test_the_cost_of_flops_moves_the_removals_to_the_expensive_layer():
    x, y = digits().fetch(np.arange(64)), torch.from_numpy(digits().labels[:64])
    plain = PrunedChannels(**FAST).ranking(net(), x, y, torch.Generator())
    dear = PrunedChannels(**FAST, flops_weight=10).ranking(net(), x, y, torch.Generator())
    paid = [(a - b).unique() for a, b in zip(plain, dear, strict=True)]
    expected = [10 * 2e-6 * 64 * (9 + 1), 10 * 2e-6 * 16 * (6 * 9 + 1)]
    assert [each.mean().item() for each in paid] == pytest.approx(expected, rel=1e-6)


def test_at_random_every_channel_is_as_likely_to_go_whatever_the_width_of_its_layer():
    """Dividing by the norm of a layer would spare the narrow one: it did, 6 channels against 10."""
    x, y = digits().fetch(np.arange(4)), torch.from_numpy(digits().labels[:4])
    model, made, gone = PrunedChannels(**FAST | {"criterion": "random"}), net(), np.zeros(16)
    for seed in range(800):
        ranking = model.ranking(made, x, y, torch.Generator().manual_seed(seed))
        gone[[layer * 6 + i for layer, each in enumerate(weakest(ranking, 5)) for i in each]] += 1
    assert stats.chisquare(gone).pvalue > 0.01
    assert gone[:6].mean() / gone[6:].mean() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("criterion", ["oracle", "obd", "random", "weight_norm", "mutual_information"])
def test_every_kind_of_criterion_prunes(criterion):
    fields = FAST | {"criterion": criterion, "keep": 0.8, "at_once": 2, "updates": 0}
    model = PrunedChannels(**fields | {"train": {"epochs": 1}})
    assert sum(channels(model.build(trained(model, small_cnn())).module)) == 13


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"adapter": "cnnn"}, "did you mean 'cnn'"),
        ({"adapter": "small_cnn"}, "cannot be compressed"),
        ({"adapter": "pruned_channels", "args": {"model": MODEL}}, "cannot be compressed"),
        ({"adapter": "cnn", "args": {"width": 3}}, "width"),
    ],
)
def test_a_model_that_cannot_be_pruned_is_refused_at_once(choice, message):
    with pytest.raises((ValidationError, PluginError), match=message):
        PrunedChannels(model=choice)


def test_data_and_shape_are_those_of_its_model():
    model = PrunedChannels(**FAST)
    assert (model.data.dataset, model.shape, model.classes) == ("digits", (1, 8, 8), 10)
    assert PrunedChannels(**model.model_dump(mode="json")) == model


def test_a_perceptron_has_no_channels_to_prune():
    with pytest.raises(ValidationError, match="no convolution"):
        PrunedChannels(model={"adapter": "cnn", "args": SMALL | {"channels": []}})
