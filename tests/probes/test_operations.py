"""Conventions, zeros and the table of Han et al., against published numbers and against definitions."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.utils.flop_counter import FlopCounterMode

from bench.probes._operations import han_flops
from bench.probes.flops import Flops
from bench.probes.macs import Macs
from bench.probes.packed_size import PackedSize, packed_bytes
from bench.probes.sparsity import Sparsity
from tests.probes.nets import Wrapped, binary_mnist_net, by_name, noise


def measured(probe, module: nn.Module, input_shape: tuple[int, ...]):
    return by_name(probe.measure(Wrapped(module, input_shape), noise(input_shape), None))


def vgg16(classes: int = 1000) -> nn.Sequential:
    layers: list[nn.Module] = []
    inputs = 3
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()] if width else [nn.MaxPool2d(2)]
        inputs = width or inputs
    dense = [nn.Linear(512 * 49, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, classes)]
    return nn.Sequential(*layers, nn.Flatten(), *dense)


def test_vgg16_has_the_flops_that_molchanov_prints():
    with torch.device("meta"):
        net = vgg16()
    net = net.to_empty(device="cpu")  # whatever lies in memory: only the shapes matter
    figures = measured(Flops(inputs=1), net, (3, 224, 224))
    assert figures["flops/molchanov"].value == pytest.approx(30.97e9, abs=0.005e9)


def test_the_probe_follows_molchanovs_convention_on_a_vgg_in_small():
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 10))
    figures = measured(Flops(inputs=1), net, (3, 8, 8))
    assert figures["flops/molchanov"].value == 2 * 64 * (3 * 9 + 1) * 8 + (2 * 512 - 1) * 10


def test_the_three_conventions_differ_by_biases_and_batch_norm_which_have_columns_of_their_own():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 5, bias=False))
    figures = measured(Flops(inputs=1), net, (1, 8, 8))
    macs = 36 * 4 * 9 + 144 * 5
    assert figures["flops/two_per_mac"].value == 2 * macs
    assert figures["bias_adds"].value == 4 * 36
    assert figures["norm_flops"].value == 2 * 4 * 36
    assert figures["flops/with_bias_and_norm"].value == 2 * macs + 4 * 36 + 2 * 4 * 36


# --- zeros ------------------------------------------------------------------------------------------------------------


class Masked(nn.Module):
    def __init__(self, keep: Tensor) -> None:
        super().__init__()
        self.register_buffer("keep", keep)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.keep


def half(layer: nn.Linear, how: str) -> nn.Linear:
    keep = (torch.arange(layer.weight.numel()) % 2).reshape(layer.weight.shape).float()
    if how == "baked":
        layer.weight.data *= keep
    elif how == "mask":
        prune.custom_from_mask(layer, "weight", keep)
    else:
        parametrize.register_parametrization(layer, "weight", Masked(keep))
    return layer


@pytest.mark.parametrize("how", ["baked", "mask", "parametrisation"])
def test_zeros_are_read_from_the_weight_as_it_is_used(how):
    net = nn.Sequential(half(nn.Linear(6, 8), how), nn.ReLU(), nn.Linear(8, 4))
    figures = measured(Sparsity(inputs=2), net, (6,))
    assert figures["effective_macs"].value == 24 + 32
    assert figures["han/weights"].value == (24 + 32) / 80
    assert measured(Macs(inputs=1), net, (6,))["macs"].value == 80, "the multiplications are carried out all the same"


def test_effective_macs_of_a_dynamic_net_have_their_spread():
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 6, bias=False)
            self.layer.weight.data = torch.eye(6)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) if not x.any() else self.layer(self.layer(x))

    figures = measured(Sparsity(inputs=8), Branch(), (6,))  # the first of eight inputs is all zeros
    assert figures["effective_macs"].value == (6 + 7 * 12) / 8
    assert figures["effective_macs/max"].value == 12
    assert figures["effective_macs/sd"].value == pytest.approx(np.std([6, *[12] * 7], ddof=1))


def test_effective_macs_weigh_a_zero_of_a_convolution_by_its_map():
    net = nn.Sequential(nn.Conv2d(2, 2, 3), nn.Flatten(), nn.Linear(72, 3))
    net[0].weight.data[0] = 0
    assert measured(Sparsity(inputs=1), net, (2, 8, 8))["effective_macs"].value == 36 * 18 + 72 * 3


def test_a_matrix_times_the_input_counts_the_zeros_of_the_matrix_whichever_stands_left():
    class Left(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.eye(6))

        def forward(self, x: Tensor) -> Tensor:
            return (self.weight @ x.T).T

    assert measured(Sparsity(inputs=1), Left(), (6,))["effective_macs"].value == 6


HAN = {  # layer: (FLOP in millions, Act% of its output, Weights%, FLOP%), Han et al. 2015, table 4
    "conv1": (211, 88, 84, 84), "conv2": (448, 52, 38, 33), "conv3": (299, 37, 35, 18), "conv4": (224, 40, 37, 14),
    "conv5": (150, 34, 37, 15), "fc1": (75, 36, 9, 3), "fc2": (34, 40, 9, 3), "fc3": (8, 100, 25, 10),
}  # fmt: skip


def test_the_table_of_han_follows_from_its_own_weights_and_activations():
    flops, active, weights, left = (np.array(column) for column in zip(*HAN.values(), strict=True))
    found = 100 * np.array(han_flops(list(weights / 100), list(active / 100)))
    assert np.abs(found - left).max() <= 0.6  # conv5: the paper prints 14 for 37 % of 40 %
    assert (found * flops).sum() / flops.sum() == pytest.approx(30, abs=0.6)


def test_a_layers_share_is_its_weights_density_times_the_density_of_what_it_is_fed():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    net[0].weight.data = torch.eye(4)
    net[0].bias.data = torch.tensor([1.0, 1.0, 1.0, -9.0])  # the last unit never fires
    net[2].weight.data[0] = 0
    figures = measured(Sparsity(inputs=8), net, (4,))
    assert figures["layer/0/flops"].value == 0.25
    assert figures["layer/2/activations"].value == 0.75
    assert figures["layer/2/activations_sd"].value == 0
    assert figures["layer/2/flops"].value == 0.5 * 0.75
    assert figures["han/flops"].value == pytest.approx((16 * 0.25 + 8 * 0.375) / 24)


# --- bytes ------------------------------------------------------------------------------------------------------------


def test_the_binary_mnist_net_packs_to_the_bytes_of_its_paper_not_to_a_thirty_second():
    figures = measured(PackedSize(), binary_mnist_net(), (1, 28, 28))
    assert figures["packed_bytes/weights"].value == 109_568
    assert figures["float_bytes"].value == 2_839_552


def test_what_is_no_weight_is_counted_beside_the_weights_once():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 5))
    figures = measured(PackedSize(), net, (1, 8, 8))
    assert figures["packed_bytes/other"].value == 4 * (4 + 4 * 4 + 5)  # biases; scale, shift, mean and variance
    assert figures["packed_bytes"].value == 4 * (36 + 720) + figures["packed_bytes/other"].value


@pytest.mark.parametrize("how", ["baked", "mask", "parametrisation"])
def test_a_sparse_layer_takes_its_nonzero_weights_with_their_indices(how):
    net = nn.Sequential(half(nn.Linear(64, 64, bias=False), how))
    figures = measured(PackedSize(), net, (64,))
    assert figures["packed_bytes"].value == 64 * 64 / 2 * (32 + 5) / 8


def test_the_index_of_a_linear_layer_costs_hans_sixteen_percent():
    weight = np.zeros(3200, np.float32)
    weight[::10] = 1
    assert packed_bytes(weight, 32, 5) / (320 * 4) == pytest.approx(1.156, abs=5e-4)


def test_a_gap_too_wide_for_its_index_costs_a_filler_and_a_dense_layer_no_index():
    weight = np.zeros(200, np.float32)
    weight[[0, 33, 100]] = 1  # gaps 1, 33, 67: with 5 bits (up to 32) 0, 1 and 2 fillers
    assert packed_bytes(weight, 32, 5) == -(-(3 + 3) * 37 // 8)
    assert packed_bytes(np.ones(200, np.float32), 32, 5) == 800


# --- where torch's own counter is wrong -------------------------------------------------------------------------------


def counted_by_torch(module: nn.Module, x: Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(x)
    return counter.get_total_flops()


def test_fused_attention_is_refused_by_name_where_torchs_counter_says_too_little():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    truth = 2 * (4 * 5 * 8 * 8 + 2 * 5 * 5 * 8 + 2 * 5 * 8 * 16)
    assert counted_by_torch(layer, torch.rand(1, 5, 8)) < truth

    class Net(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return self[0](x).mean(1)

    assert any("incomplete" in flag for flag in measured(Macs(inputs=1), Net(layer), (5, 8))["macs"].flags)


def test_a_sparse_layer_is_refused_where_torchs_counter_calls_it_dense():
    layer = nn.Linear(6, 4, bias=False)
    layer.weight.data[1:] = 0
    x = torch.rand(2, 6)
    with pytest.warns(UserWarning, match="Sparse CSR"):
        layer.weight = nn.Parameter(layer.weight.detach().to_sparse_csr(), requires_grad=False)
    figure = measured(Macs(inputs=1), layer, (6,))["macs"]
    assert figure.value is None
    assert figure.flags[0].startswith("incomplete")
    assert counted_by_torch(layer, x) in (0, 2 * 2 * 24), "torch's counter sees nothing, or a dense product"


class Gated(nn.Module):
    """Skips its second layer for inputs that are all zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.second(y) if x.any() else y


def test_the_spread_of_a_dynamic_net_is_over_its_inputs():
    figures = measured(Macs(inputs=8), Gated(), (6,))  # the first of eight inputs is all zeros
    every = [36] + 7 * [72]
    assert figures["macs"].value == np.mean(every)
    assert figures["macs/sd"].value == pytest.approx(np.std(every, ddof=1))
    assert [figures[f"macs/{key}"].value for key in ("p50", "p90", "max")] == [72, 72, 72]
