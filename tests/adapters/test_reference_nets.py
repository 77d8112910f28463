import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  the name that every torch program uses
from torch import nn

from adapters.reference_nets import BinaryConv2d, BinaryLinear, binary_weights, pack, sign, small_cnn, unpack
from adapters.reference_pruning import l1_norm, remove_channels, strongest, taylor


def test_the_sign_of_zero_is_plus_one():
    x = torch.tensor([-2.0, -1e-30, -0.0, 0.0, 1e-30, 3.0])
    assert sign(x).tolist() == [-1.0, -1.0, 1.0, 1.0, 1.0, 1.0]


def test_the_straight_through_gradient_is_the_identity_inside_and_zero_outside():
    x = torch.tensor([-1.5, -1.0, -0.3, 0.0, 0.7, 1.0, 1.0001], requires_grad=True)
    upstream = torch.arange(1.0, 8.0)
    sign(x).backward(upstream)
    assert x.grad.tolist() == [0.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.0]


def bits(x: torch.Tensor) -> np.ndarray:
    return x.detach().numpy() >= 0


def test_a_binary_convolution_is_xnor_and_popcount():
    torch.manual_seed(0)
    layer = BinaryConv2d(3, 4, 3, padding=1, bias=False)
    x = sign(torch.randn(2, 3, 5, 5))
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(bits(x), ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=False), (3, 3), axis=(2, 3)
    )  # (n, channels, rows, columns, 3, 3)
    differing = (windows[:, None] ^ bits(layer.weight)[None, :, :, None, None]).sum((2, 5, 6))
    assert layer(x).tolist() == (27 - 2 * differing).tolist()


def test_a_binary_linear_layer_is_xnor_and_popcount():
    torch.manual_seed(0)
    layer = BinaryLinear(20, 3, bias=False)
    x = sign(torch.randn(4, 20))
    differing = (bits(x)[:, None] ^ bits(layer.weight)[None]).sum(2)
    assert layer(x).tolist() == (20 - 2 * differing).tolist()


@pytest.mark.parametrize("shape", [(3, 5), (8,), (1, 1), (4, 3, 3, 3)])
def test_packing_keeps_the_signs_of_weights_and_everything_else(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    weight.view(-1)[0] = 0.0
    state = {"binary.weight": weight, "other": torch.tensor([0.5])}
    packed = pack(state, ["binary.weight"])
    assert packed["binary.weight"].nbytes == -(-weight.numel() // 8)
    opened = unpack(packed, {"binary.weight": weight.shape})
    assert torch.equal(opened["binary.weight"], sign(weight))
    assert torch.equal(opened["other"], state["other"])


def test_only_binary_layers_have_binary_weights():
    assert binary_weights(nn.Sequential(nn.Linear(2, 2), BinaryLinear(2, 2, bias=False))) == ["1.weight"]
    assert binary_weights(small_cnn(2, 4)) == []


# --- pruning ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def net() -> nn.Sequential:
    """A small CNN whose running statistics are those of real batches."""
    torch.manual_seed(0)
    made = small_cnn(6, 10)
    for _ in range(20):
        made(torch.rand(32, 1, 8, 8))
    for norm in (made.norm1, made.norm2):
        nn.init.normal_(norm.bias)  # so that a removed map would not be zero anyway
    return made.eval()


def test_removing_channels_gives_smaller_tensors_and_computes_what_masking_them_does(net):
    first, second = torch.tensor([0, 2, 5]), torch.tensor([1, 2, 3, 7, 9])
    smaller = remove_channels(net, first, second)
    shapes = {name: tuple(value.shape) for name, value in smaller.named_parameters()}
    assert shapes["conv1.weight"] == (3, 1, 3, 3)
    assert shapes["conv2.weight"] == (5, 3, 3, 3)
    assert shapes["linear.weight"] == (10, 5 * 16)
    x = torch.rand(7, 1, 8, 8)

    def masking(kept):
        def hook(_layer, _inputs, out):
            mask = torch.zeros(out.shape[1])
            mask[kept] = 1
            return out * mask[:, None, None]

        return hook

    untouched = net(x)
    net.relu1.register_forward_hook(masking(first))
    net.relu2.register_forward_hook(masking(second))
    torch.testing.assert_close(smaller(x), net(x), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(untouched, net(x), atol=1e-2)


def test_taylor_importance_is_the_slope_of_the_loss_as_a_map_is_faded_out(net):
    net = net.double()
    x, y = torch.rand(3, 1, 8, 8, dtype=torch.float64), torch.tensor([1, 2, 3])

    def loss(row: int, layer: str, channel: int, factor: float) -> float:
        def fade(_layer, _inputs, out):
            scale = torch.ones(out.shape[1], dtype=out.dtype)
            scale[channel] = factor
            return out * scale[:, None, None]

        hook = net.get_submodule(layer).register_forward_hook(fade)
        with torch.no_grad():
            value = F.cross_entropy(net(x[row : row + 1]), y[row : row + 1]).item()
        hook.remove()
        return value

    step = 1e-6
    for layer, importance in zip(("relu1", "relu2"), taylor(net, x, y), strict=True):
        for channel in range(len(importance)):
            slopes = [
                (loss(row, layer, channel, 1 + step) - loss(row, layer, channel, 1 - step)) / (2 * step)
                for row in range(3)
            ]
            expected = np.mean(np.abs(slopes)) / 64  # both layers give out maps of 8x8 pixels
            assert importance[channel].item() == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_l1_importance_is_the_sum_of_absolute_weights(net):
    first, second = l1_norm(net)
    assert first[4].item() == pytest.approx(np.abs(net.conv1.weight[4].detach().numpy()).sum(), rel=1e-6)
    assert second.shape == (10,)


def test_the_strongest_channels_stay_in_order_and_of_equals_the_earlier_one():
    assert strongest(torch.tensor([1.0, 5.0, 3.0, 3.0, 3.0]), 3).tolist() == [1, 2, 3]
