import pytest
import torch
from pydantic import ValidationError

from adapters.cnn import Cnn
from tests.adapters.families import SMALL, accuracy, small_cnn, trained


def weights(net: torch.nn.Module) -> list[int]:
    return [layer.weight.numel() for layer in net if hasattr(layer, "weight") and layer.weight.ndim > 1]


def test_it_learns_the_digits():
    assert accuracy(Cnn(**SMALL), small_cnn()) > 0.95


def test_lenet_5_and_lenet_300_100_have_the_weights_that_han_et_al_count():
    """Han et al. 2015, tables 3 and 4: 235K, 30K, 1K; and 0.5K, 25K, 400K, 5K."""
    lenet5 = Cnn(channels=(20, 50), kernel=5, padding="valid", hidden=(500,), normalise=False)
    assert weights(lenet5.net()) == [500, 25_000, 400_000, 5_000]
    assert weights(Cnn(channels=(), hidden=(300, 100)).net()) == [235_200, 30_000, 1_000]


def test_every_convolution_halves_the_image_and_its_activation_is_a_feature_layer():
    model = Cnn(**SMALL | {"channels": [3, 4, 5]}).build(trained(Cnn(**SMALL | {"channels": [3, 4, 5]})))
    x = torch.rand(2, 1, 8, 8)
    assert [tuple(model.features(x, f"relu{n}").shape[1:]) for n in (1, 2, 3)] == [(3, 8, 8), (4, 4, 4), (5, 2, 2)]
    assert model.features(x, "flatten").shape == (2, 5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"channels": [2, 2, 2, 2]}, "nothing is left of 8×8 pixels after convolution 4"),
        ({"channels": [2], "kernel": 9, "padding": "valid"}, "nothing is left"),
        ({"kernel": 4}, "has to be odd"),
        ({"channels": [0]}, "greater than or equal to 1"),
    ],
)
def test_a_net_that_cannot_be_is_refused_before_any_work(fields, message):
    with pytest.raises(ValidationError, match=message):
        Cnn(**SMALL | fields)


def test_another_repeat_is_another_net():
    assert trained(Cnn(**SMALL, repeat=1)) != small_cnn()
