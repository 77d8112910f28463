"""Each criterion against a few plain lines, a closed form, or another library."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  the name that every torch program uses
from sklearn.metrics import mutual_info_score
from torch import nn
from torch.autograd.functional import hessian

from bench.errors import PluginError
from bench.saliency import CRITERIA, feature_maps, flops_per_map, importance, normalised


@pytest.fixture
def net() -> nn.Sequential:
    torch.manual_seed(3)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 4, 3),
    )  # fmt: skip
    net[1].running_mean.uniform_(-0.3, 0.3)
    net[1].running_var.uniform_(0.5, 2)
    return net.eval()


@pytest.fixture
def data() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(4)
    return torch.rand(40, 1, 8, 8, generator=random), torch.randint(3, (40,), generator=random)


def maps_of(net: nn.Sequential, x: torch.Tensor) -> list[torch.Tensor]:
    """The outputs of the two activations, by hand."""
    first = net[2](net[1](net[0](x)))
    return [first, net[5](net[4](net[3](first)))]


def test_a_map_is_what_comes_after_normalisation_and_activation(net):
    assert [(each.convolution, each.output) for each in feature_maps(net)] == [("0", "2"), ("4", "5")]


@pytest.mark.parametrize("broken", [nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), nn.Linear(4, 2)])
def test_a_net_without_such_maps_is_an_error(broken):
    with pytest.raises(PluginError, match=r"no convolution|no nn\.Sequential"):
        feature_maps(broken)


def test_the_oracle_is_the_loss_of_a_net_whose_channel_was_cut_out_by_hand(net, data):
    x, y = data
    with torch.no_grad():
        whole = F.cross_entropy(net(x), y)
        cut = copy.deepcopy(net)
        cut[4].weight[:, 2] = 0  # nobody listens to channel 2 of the first convolution
        last = copy.deepcopy(net)
        last[4].weight[3] = last[4].bias[3] = 0
        expected = [(F.cross_entropy(each(x), y) - whole).abs().item() for each in (cut, last)]
    found = importance("oracle", net, x, y)
    assert [found[0][2].item(), found[1][3].item()] == pytest.approx(expected, rel=1e-4)


def test_taylor_is_activation_times_gradient_as_autograd_gives_it(net, data):
    x, y = data
    for layer, found in enumerate(importance("taylor", net, x, y)):
        rest = net[3:] if layer == 0 else net[6:]
        a = maps_of(net, x)[layer].detach().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(rest(a), y, reduction="sum"), a)
        expected = (a * gradient).mean((2, 3)).abs().mean(0).detach()
        assert torch.allclose(found, expected.double(), rtol=1e-4, atol=1e-9)


def test_obd_is_half_the_diagonal_of_the_exact_hessian(net, data):
    x, y = data
    net = net.double()
    found = importance("obd", net, x.double(), y)
    rest = (net[3:], net[6:])
    for layer, maps in enumerate(maps_of(net, x.double())):

        def loss(gate, maps=maps, layer=layer):
            return F.cross_entropy(rest[layer](maps.detach() * gate[:, None, None]), y)

        exact = hessian(loss, torch.ones(maps.shape[1], dtype=torch.float64)).diagonal()
        assert torch.allclose(found[layer], exact / 2, rtol=1e-6, atol=1e-12)
        assert (found[layer] > 0).any()


def test_weight_norm_and_the_statistics_of_activations_are_those_of_the_whole_tensors(net, data):
    x, y = data
    with torch.no_grad():
        maps = [each.double().transpose(0, 1).flatten(1) for each in maps_of(net, x)]
        expected = {
            "weight_norm": [net[0].weight.flatten(1).square().mean(1), net[4].weight.flatten(1).square().mean(1)],
            "mean_activation": [each.mean(1) for each in maps],
            "sd_activation": [each.std(1, correction=0) for each in maps],
            "apoz": [(each > 0).double().mean(1) for each in maps],
        }
    for criterion, layers in expected.items():
        for found, truth in zip(importance(criterion, net, x, y), layers, strict=True):
            assert torch.allclose(found, truth.double(), rtol=1e-5, atol=1e-7), criterion


def test_mutual_information_is_scikit_learns_of_the_same_bins(net, data):
    x, y = data
    found = importance("mutual_information", net, x, y)
    for layer, maps in enumerate(maps_of(net, x)):
        means = maps.detach().double().mean((2, 3))
        for channel in range(means.shape[1]):
            cuts = means[:, channel].quantile(torch.arange(1, 8, dtype=torch.float64) / 8)
            bins = np.searchsorted(cuts.numpy(), means[:, channel].numpy())  # counts cuts below the value
            assert found[layer][channel].item() == pytest.approx(mutual_info_score(bins, y), abs=1e-9)


def test_random_importance_follows_its_generator_alone(net, data):
    once, again = (importance("random", net, *data, torch.Generator().manual_seed(5)) for _ in range(2))
    other = importance("random", net, *data, torch.Generator().manual_seed(6))
    assert [len(layer) for layer in once] == [4, 5]
    assert all(map(torch.equal, once, again))
    assert not torch.equal(once[0], other[0])


@pytest.mark.parametrize("criterion", CRITERIA)
def test_no_criterion_depends_on_the_batch_or_touches_the_net(net, data, criterion, monkeypatch):
    before = copy.deepcopy(net.state_dict())
    whole = importance(criterion, net, *data)
    monkeypatch.setattr("bench.saliency.BATCH", 7)
    parts = importance(criterion, net, *data)
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-7) for a, b in zip(whole, parts, strict=True))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not net[0]._forward_hooks
    assert not net[2]._forward_hooks


def test_normalised_layers_have_length_one_and_keep_their_order():
    layers = normalised([torch.tensor([3.0, 4.0]), torch.tensor([0.0, 0.0])])
    assert layers[0].tolist() == pytest.approx([0.6, 0.8])
    assert layers[1].tolist() == [0, 0]


def test_flops_of_a_map_are_those_of_the_second_layer_of_vgg_16():
    """224×224, 64 maps in and out, 3×3: 2·224²·(64·9 + 1) = 57.9 million per map."""
    net = nn.Sequential(nn.Conv2d(64, 2, 3, padding=1), nn.ReLU())
    assert flops_per_map(net, torch.zeros(1, 64, 224, 224)) == pytest.approx([57.9], abs=0.01)
