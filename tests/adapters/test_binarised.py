"""The binarised family: its variants are what the paper calls them, and their bits are bits."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from adapters.binarised import Binarised
from adapters.binarised_nets import BinaryWeightLinear, Scale, ScaledBinaryConv2d, StochasticConv2d, packed_weights
from adapters.digits import Digits
from adapters.reference_nets import BinaryConv2d
from adapters.torch_classifier import TorchClassifier, state_from_bytes
from bench.contracts import Gradients, Realisation, Report
from bench.probes.macs import Macs

DIGITS = {"dataset": "digits"}


class Quiet(Report):
    def step(self, done: int, total: int, **figures: float) -> None: ...


def adapter(**fields: object) -> Binarised:
    defaults = {"data": DIGITS, "width": 16, "train": {"epochs": 12, "learning_rate": 0.01}}
    return Binarised.model_validate({**defaults, **fields})


def trained(**fields: object) -> tuple[TorchClassifier, bytes]:
    made = adapter(**fields)
    weights = made.training().train(Digits(split="train").load(), None, 0, Quiet())
    return made.build(weights), weights


def accuracy(model: TorchClassifier) -> float:
    """Of the mean over passes, where each pass draws weights of its own."""
    test = Digits(split="test").load()
    x = test.fetch(np.arange(len(test)))
    torch.manual_seed(0)
    predicted = sum(model.logits(x).softmax(1) for _ in range(20 if model.stochastic else 1)).argmax(1)
    return float((predicted.numpy() == test.labels).mean())


@pytest.fixture(scope="module")
def models() -> dict[str, tuple[TorchClassifier, bytes]]:
    return {variant: trained(variant=variant) for variant in "ABCS"}


def test_every_variant_learns_the_digits(models):
    assert {v: accuracy(model) for v, (model, _) in models.items() if accuracy(model) < 0.6} == {}
    assert accuracy(models["A"][0]) > 0.95


def test_variants_are_described_as_they_are(models):
    said = {v: (m.gradients, m.realisation, m.stochastic) for v, (m, _) in models.items()}
    surrogate, simulated = Gradients.SURROGATE, Realisation.SIMULATED
    assert said == {
        "A": (Gradients.EXACT, Realisation.DENSE, False),
        "B": (surrogate, simulated, False),
        "C": (surrogate, simulated, False),
        "S": (surrogate, simulated, True),
    }


def layers(variant: str, **fields: object) -> list[type[nn.Module]]:
    return [type(layer) for layer in adapter(variant=variant, **fields).net()]


def test_layers_are_binary_behind_the_first_and_scaled_in_c_alone():
    assert layers("B").count(BinaryConv2d) == 2
    assert layers("B")[0] is nn.Conv2d
    assert BinaryWeightLinear in layers("B")
    assert Scale not in layers("B")
    assert layers("C").count(Scale) == 3
    assert layers("S").count(StochasticConv2d) == 1
    assert layers("S", scaled=True).count(Scale) == 3
    assert layers("B", channel_scaling=True).count(ScaledBinaryConv2d) == 2
    assert not {BinaryConv2d, BinaryWeightLinear} & set(layers("A"))


@pytest.mark.parametrize(("dataset", "shape"), [("mnist", (1, 28, 28)), ("digits", (1, 8, 8))])
def test_it_fits_both_data_sets_in_any_width(dataset, shape):
    made = adapter(data={"dataset": dataset}, width=24, variant="C")
    assert made.net().eval()(torch.rand(3, *shape)).shape == (3, 10)
    widths = [layer.out_channels for layer in made.net() if isinstance(layer, nn.Conv2d)]
    assert widths == [24, 48, 48]


def test_a_binary_convolution_is_that_of_the_signs_of_weights_and_activations(models):
    net = models["B"][0].module
    seen = []
    hook = net.conv2.register_forward_hook(lambda _layer, given, out: seen.append((given[0], out)))
    net(torch.rand(2, 1, 8, 8))
    hook.remove()
    given, out = seen[0]
    assert set(given.unique().tolist()) == {-1.0, 1.0}
    weight = torch.where(net.conv2.weight >= 0, 1.0, -1.0)
    assert torch.equal(out, F.conv2d(given, weight, stride=2))


@pytest.mark.parametrize("variant", ["A", "B", "C", "S"])
def test_its_operations_are_counted_and_nothing_is_left_out(models, variant):
    model, _ = models[variant]
    found = {figure.name: figure for figure in Macs().measure(model, Digits(split="test").load(), None)}
    maps, conv1, conv2, conv3 = 16, 64 * 9, 32 * 16 * 9, 32 * 32 * 9
    assert found["macs"].flags == ()
    assert found["macs"].value == maps * conv1 + maps * conv2 + conv3 + 32 * 10
    assert found["binary_macs"].value == (0 if variant == "A" else maps * conv2 + conv3)


def test_xnor_nets_factors_are_the_mean_magnitudes_and_survive_the_loss_of_the_magnitudes():
    made = adapter(channel_scaling=True, train={"epochs": 2, "learning_rate": 0.05})
    nets, keep = [], made.stored
    object.__setattr__(made, "stored", lambda net: nets.append(copy.deepcopy(net)) or keep(net))
    weights = made.training().train(Digits(split="train").load(), None, 0, Quiet())
    net, x = nets[0], Digits(split="test").load().fetch(np.arange(50))
    for layer in (net.conv2, net.conv3):  # of the weights that the last step left, not of those before it
        torch.testing.assert_close(layer.alpha, layer.weight.detach().abs().mean((1, 2, 3)), rtol=0, atol=0)
    signs = [torch.where(layer.weight >= 0, 1.0, -1.0) for layer in (net.conv2, net.conv3)]
    with torch.no_grad():
        a = torch.where(net.norm2(net.conv1(x).relu()) >= 0, 1.0, -1.0)
        b = F.conv2d(a, signs[0] * net.conv2.weight.abs().mean((1, 2, 3), keepdim=True), stride=2).relu()
        c = torch.where(net.norm3(b) >= 0, 1.0, -1.0)
        d = F.conv2d(c, signs[1] * net.conv3.weight.abs().mean((1, 2, 3), keepdim=True))
        last = torch.where(net.linear.weight >= 0, 1.0, -1.0)
        expected = net.norm4(d).relu().flatten(1) @ last.T
    again = made.build(weights)
    torch.testing.assert_close(again.logits(x), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(again.logits(x), net(x))


def test_stochastic_weights_are_drawn_with_the_hard_sigmoid():
    layer = StochasticConv2d(1, 1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(0.5)
        torch.manual_seed(0)
        draws = torch.stack([layer(torch.ones(1, 1, 1, 1)) for _ in range(2000)]).flatten()
    assert set(draws.unique().tolist()) == {-1.0, 1.0}
    assert (draws > 0).float().mean() == pytest.approx(0.75, abs=0.03)
    layer(torch.ones(1, 1, 1, 1)).sum().backward()
    assert layer.weight.grad.item() == 1.0


def test_a_stochastic_model_answers_differently_and_a_deterministic_one_does_not(models):
    x = torch.rand(4, 1, 8, 8)
    assert not torch.equal(models["S"][0].logits(x), models["S"][0].logits(x))
    assert torch.equal(models["B"][0].logits(x), models["B"][0].logits(x))


@pytest.mark.parametrize("variant", ["B", "S"])
def test_a_binary_weight_is_stored_in_one_bit(models, variant):
    made, (_, weights) = adapter(variant=variant), models[variant]
    net, stored = made.net(), state_from_bytes(weights)
    names = packed_weights(net)
    assert (
        names
        == {"B": ["conv2.weight", "conv3.weight", "linear.weight"], "S": ["conv2.weight", "linear.weight"]}[variant]
    )
    for name in names:
        assert stored[name].dtype == torch.uint8
        assert stored[name].numel() == -(-net.get_parameter(name).numel() // 8)


def test_latent_weights_stay_where_the_gradient_passes():
    made = adapter(train={"epochs": 2, "learning_rate": 1.0, "schedule": "constant"})
    weights = {}
    made_training = made.training()
    keep = made.stored
    object.__setattr__(made, "stored", lambda net: weights.update(net.state_dict()) or keep(net))
    made_training.train(Digits(split="train").load(), None, 0, Quiet())
    assert weights["conv2.weight"].abs().max() == 1.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"variant": "B", "scaled": True}, "variant B fixes `scaled`"),
        ({"variant": "A", "channel_scaling": True}, "variant A has no binary layers"),
        ({"data": {"dataset": "cifar10"}}, "takes images of 28x28 or 8x8"),
        (
            {"data": {"dataset": "fashionmnist"}},
            "`input_shape` is needed for the data set 'fashionmnist' - did you mean",
        ),
        ({"train": {"teacher": {"adapter": "smal_cnn"}}}, "no adapter 'smal_cnn'"),
    ],
)
def test_fields_that_do_not_fit_are_an_error(fields, message):
    with pytest.raises(Exception, match=message):
        adapter(**fields)
