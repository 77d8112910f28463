import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bench.probes.macs import Macs
from tests.probes.nets import WithoutModule, Wrapped, binary_mnist_net, by_name, cifar_resnet, noise


def measured(module: nn.Module, input_shape: tuple[int, ...], inputs: int = 1):
    return by_name(Macs(inputs=inputs).measure(Wrapped(module, input_shape), noise(input_shape), None))


def macs(module: nn.Module, input_shape: tuple[int, ...]) -> float | None:
    figure = measured(module, input_shape)["macs"]
    assert figure.flags == ()
    return figure.value


@pytest.mark.parametrize(("depth", "flops"), [(32, 1.377e8), (110, 5.058e8)])
def test_the_resnets_for_cifar_cost_what_their_papers_say(depth, flops):
    assert measured(cifar_resnet(depth), (3, 32, 32))["flops"].value == pytest.approx(flops, rel=5e-4)


def test_the_binary_mnist_net_has_the_macs_of_its_paper_and_saves_a_factor_of_ten_in_bit_operations():
    figures = measured(binary_mnist_net(), (1, 28, 28))
    assert figures["binary_macs"].value == 7_782_400
    assert figures["macs"].value - figures["binary_macs"].value == 804_096
    assert figures["macs"].value * 32 * 32 / figures["bit_operations"].value == pytest.approx(10.6, abs=0.05)


CONVOLUTIONS = [
    (nn.Conv1d(4, 6, 3, stride=2, padding=1), (4, 9), 5 * 6 * 4 * 3),
    (nn.Conv2d(4, 6, 3, dilation=2), (4, 9, 8), 5 * 4 * 6 * 4 * 9),
    (nn.Conv2d(4, 6, (3, 1), groups=2, padding="same"), (4, 9, 8), 9 * 8 * 6 * 2 * 3),
    (nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), (4, 9, 8), 9 * 8 * 6 * 4 * 9),
    (nn.Conv3d(2, 3, 2), (2, 4, 5, 6), 3 * 4 * 5 * 3 * 2 * 8),
    (nn.ConvTranspose1d(4, 6, 3, stride=2), (4, 9), 9 * 4 * 6 * 3),
    (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (4, 9, 8), 9 * 8 * 4 * 3 * 9),
    (nn.Linear(7, 5), (7,), 35),
    (nn.Linear(7, 5, bias=False), (3, 7), 3 * 35),
]


@pytest.mark.parametrize(("layer", "input_shape", "expected"), CONVOLUTIONS, ids=[str(row[0]) for row in CONVOLUTIONS])
def test_a_layer_costs_what_its_definition_says(layer, input_shape, expected):
    assert macs(layer, input_shape) == expected


def plain_cnn() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=4), nn.PReLU(),
        nn.ConvTranspose2d(8, 4, 2, 2), nn.GroupNorm(2, 4), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 6 * 6, 10),
    )  # fmt: skip


@pytest.mark.parametrize("net", [plain_cnn, lambda: cifar_resnet(20)], ids=["plain", "resnet-20"])
def test_the_count_agrees_with_the_one_of_torch_where_torch_can_count(net):
    module = net().eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.zeros(1, 3, 16, 16) if net is plain_cnn else torch.zeros(1, 3, 32, 32))
    shape = (3, 16, 16) if net is plain_cnn else (3, 32, 32)
    assert measured(module, shape)["flops"].value == counter.get_total_flops()


@pytest.mark.parametrize(
    "layer", [nn.LSTM(6, 4), nn.LSTM(6, 4, num_layers=2), nn.LSTM(6, 4, bidirectional=True), nn.GRU(6, 4)]
)
def test_a_recurrent_layer_costs_two_products_per_step_and_gate(layer):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)[0]

    steps, gates = 5, 3 if isinstance(layer, nn.GRU) else 4
    second = gates * 4 * (4 + 4) if layer.num_layers == 2 else 0
    directions = 2 if layer.bidirectional else 1
    assert macs(Net(), (steps, 6)) == steps * (directions * gates * 4 * (6 + 4) + second)


class Branching(nn.Module):
    """One matrix product for zeros, three for everything else."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.more = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if not x.any() else self.more(self.more(self.layer(x)))


def test_a_branch_is_counted_as_it_was_taken_and_a_dynamic_net_is_a_mean_over_inputs():
    assert macs(Branching(), (6,)) == 36  # the first input is all zeros
    figure = measured(Branching(), (6,), inputs=8)["macs"]
    assert figure.value == (36 + 7 * 3 * 36) / 8
    assert figure.flags == ("dynamic: 36 to 108 MACs over 8 inputs",)


class Weighted(nn.Module):
    """A matrix product by hand that no layer stands for."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


class Pointwise(Weighted):
    def forward(self, x: Tensor) -> Tensor:
        return (x[:, :, None] * self.weight).sum(1)


def test_a_functional_product_counts_as_well_as_a_layer():
    assert macs(Weighted(), (6,)) == 24


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (Pointwise(), "Pointwise (1)"),
        (nn.Bilinear(6, 6, 2), "aten::_trilinear (1)"),
    ],
    ids=["own layer", "bilinear"],
)
def test_what_the_counter_does_not_know_is_named_and_what_it_knows_stays_a_lower_bound(layer, named):
    class Net(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            y = self[0](x)
            return self[1](y, y) if isinstance(self[1], nn.Bilinear) else self[1](y)

    figures = measured(Net(nn.Linear(6, 6), layer), (6,))
    assert figures["macs"].value == 36
    assert all(figure.flags[:1] == (f"incomplete: {named}",) for figure in figures.values())


def test_a_sparse_product_is_named_instead_of_counted_as_dense():
    layer = nn.Linear(6, 4, bias=False)
    sparse = layer.weight.detach().to_sparse()
    layer.weight = nn.Parameter(sparse, requires_grad=False)
    figure = measured(layer, (6,))["macs"]
    assert figure.value is None
    assert figure.flags[0].startswith("incomplete: aten::")
    assert "sparse" in figure.flags[0]


def test_an_exported_program_costs_what_its_module_costs():
    module = plain_cnn().eval()
    program = torch.export.export(module, (torch.zeros(1, 3, 16, 16),)).module()
    classifier = Wrapped(module, (3, 16, 16))
    classifier._module = program
    exported = by_name(Macs(inputs=1).measure(classifier, noise((3, 16, 16)), None))["macs"]
    assert exported.value == macs(module, (3, 16, 16))
    assert exported.flags == ()


def test_counting_leaves_no_hook_behind_even_when_the_model_raises():
    module = nn.Sequential(nn.Linear(6, 6), nn.Linear(5, 5))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        measured(module, (6,))
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in module.modules())


def test_without_a_module_there_is_no_figure_but_a_reason():
    figures = Macs().measure(WithoutModule(), noise((3, 4, 4)), None)
    assert [figure.name for figure in figures] == list(Macs.figures())
    assert all(figure.value is None and figure.flags[0].startswith("incomplete: ") for figure in figures)
