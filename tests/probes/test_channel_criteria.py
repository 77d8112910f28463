import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from torch import nn

from adapters.torch_classifier import TorchClassifier
from bench.contracts import Bounds, Samples
from bench.probes.channel_criteria import ChannelCriteria, correlation
from bench.saliency import importance


@pytest.fixture
def samples() -> Samples:
    x = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = np.arange(60) % 3
    return Samples(labels, lambda rows: x[rows], (1, 8, 8), Bounds(0, 1), ("a", "b", "c"), "random")


def model(*layers: nn.Module) -> TorchClassifier:
    return TorchClassifier(nn.Sequential(*layers), input_shape=(1, 8, 8), classes=3)


def net() -> TorchClassifier:
    torch.manual_seed(0)
    return model(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 3)
    )  # fmt: skip


def test_the_figures_are_pearsons_correlation_of_the_ranks(samples):
    figures = {figure.name: figure for figure in ChannelCriteria(inputs=60).measure(net(), samples, None)}
    assert set(figures) == set(ChannelCriteria.figures())
    x, y = samples.fetch(np.arange(60)), torch.from_numpy(samples.labels)
    truth = torch.cat(importance("oracle", net().module, x, y)).numpy()
    for criterion in ("taylor", "obd", "weight_norm"):
        found = torch.cat(importance(criterion, net().module, x, y)).numpy()
        expected = np.corrcoef(rankdata(found), rankdata(truth))[0, 1]
        assert figures[f"spearman/{criterion}/raw"].value == pytest.approx(expected)
        assert figures[f"spearman/{criterion}/raw"].n == 14


def test_within_layers_a_factor_between_layers_does_not_matter_and_normalising_removes_it():
    truth = [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.5, 2.5, 3.5])]
    found = [layer * factor for layer, factor in zip(truth, (1, 100), strict=True)]
    assert correlation(found, truth, "layer") == pytest.approx(1)
    assert correlation(found, truth, "raw") < 0.9
    assert correlation(found, truth, "normalised") > correlation(found, truth, "raw")


def test_a_constant_side_has_no_correlation_and_a_layer_of_one_channel_none_of_its_own():
    constant = [torch.ones(3)]
    assert correlation(constant, [torch.arange(3.0)], "raw") is None
    assert correlation(constant, [torch.arange(3.0)], "layer") is None
    assert correlation([torch.ones(1), torch.arange(3.0)], [torch.ones(1), torch.arange(3.0)], "layer") == 1


def test_a_net_that_cannot_be_ranked_is_told_in_each_figure(samples):
    for figure in ChannelCriteria().measure(model(nn.Flatten(), nn.Linear(64, 3)), samples, None):
        assert figure.value is None
        assert "no convolution" in figure.flags[0]
