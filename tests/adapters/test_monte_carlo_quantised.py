import pytest
import torch

from adapters.cnn import Cnn
from adapters.monte_carlo_quantised import MonteCarloQuantised, hits
from adapters.torch_classifier import state_from_bytes
from bench.contracts import Realisation
from bench.errors import PluginError
from tests.adapters.families import MODEL, SMALL, accuracy, small_cnn, trained


@pytest.mark.parametrize(("k", "nonzero", "largest", "error"), [(1, 0.70, 6, 0.33), (5, 0.94, 30, 0.065)])
def test_a_gaussian_layer_gets_the_published_shares(k, nonzero, largest, error):
    """The golden figures of 200,000 Gaussian weights."""
    weight = torch.randn(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found, unit = hits(weight, k, torch.Generator().manual_seed(1))
    assert (found != 0).double().mean().item() == pytest.approx(nonzero, abs=0.005)
    assert abs(int(found.abs().max()) - largest) <= 1 + k // 2  # of one draw of weights
    assert ((found * unit - weight).norm() / weight.norm()).item() == pytest.approx(error, abs=0.006)


def test_hits_are_those_of_samples_drawn_one_by_one():
    weight = torch.tensor([[0.3, -1.2, 0.0], [0.05, 2.0, -0.45]], dtype=torch.float64)
    found, unit = hits(weight, 3, torch.Generator().manual_seed(5))
    offset = float(torch.rand((), generator=torch.Generator().manual_seed(5), dtype=torch.float64))
    ends = weight.abs().flatten().cumsum(0) / 4.0
    counted = [0] * 6
    for i in range(18):
        counted[next(k for k in range(6) if (i + offset) / 18 < ends[k])] += 1
    assert found.abs().flatten().tolist() == counted
    assert found.sign().tolist() == (weight.sign() * (found != 0)).tolist()
    assert unit == pytest.approx(4.0 / 18)


def test_the_file_holds_whole_numbers_and_the_net_their_multiples():
    model = MonteCarloQuantised(model=MODEL, samples_per_weight=8)
    weights = trained_without_data(model)
    stored, built = state_from_bytes(weights), model.build(weights)
    assert stored["linear1.weight"].dtype in (torch.int8, torch.int16)
    assert len(weights) < len(small_cnn())
    layer = built.module.get_submodule("linear1")
    assert torch.equal(layer.weight, stored["linear1.weight"].float() * stored["linear1.weight.unit"])
    assert layer.operand_bits == (1 + int(stored["linear1.weight"].abs().max()).bit_length(), 32)
    assert built.realisation is Realisation.SIMULATED


def test_with_more_samples_it_comes_closer_to_the_model():
    whole = accuracy(Cnn(**SMALL), small_cnn())
    few, many = (MonteCarloQuantised(model=MODEL, samples_per_weight=k) for k in (0.02, 8))
    assert accuracy(many, trained_without_data(many)) > whole - 0.02
    assert accuracy(few, trained_without_data(few)) < whole - 0.1


def test_another_repeat_is_another_draw():
    one, other = (MonteCarloQuantised(model=MODEL, repeat=k) for k in (0, 1))
    assert trained_without_data(one) == trained_without_data(one)
    assert trained_without_data(one) != trained_without_data(other)


def test_weights_of_zeros_are_an_error():
    with pytest.raises(PluginError, match="all zero"):
        hits(torch.zeros(3, 3), 1, torch.Generator())


def trained_without_data(model: MonteCarloQuantised) -> bytes:
    return trained(model, small_cnn())
