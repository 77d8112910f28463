"""One-bit inference equals the float net bit for bit, on every sample, alone and in any batch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from adapters.binarised import Binarised
from adapters.binarised_nets import KERNELS
from adapters.digits import Digits
from adapters.idx import Mnist
from adapters.packed import Packed, PackedClassifier, _Rescaled, float_thresholds, integer_thresholds
from adapters.packed_kernels import kernels, pack_weights
from adapters.reference_nets import Sign, sign
from bench.contracts import Gradients, Realisation
from bench.errors import PluginError
from tests.adapters.test_binarised import adapter, trained


@pytest.mark.parametrize(
    ("channels", "size", "stride"),
    [(3, 3, 1), (64, 1, 1), (65, 2, 2), (128, 5, 1), (130, 4, 3), (256, 6, 2), (512, 5, 1)],
)
def test_the_kernel_is_a_convolution_of_signs(channels, size, stride):
    random = torch.Generator().manual_seed(0)
    x, weight = torch.randn(3, channels, 9, 8, generator=random), torch.randn(7, channels, size, size, generator=random)
    zero = np.zeros(channels, np.float32)
    words = kernels().pack(x.numpy(), zero, np.zeros(channels, np.uint64))
    out = kernels().convolve(words, pack_weights(weight.numpy()), size, stride, channels)
    assert out.dtype == np.int32
    expected = F.conv2d(sign(x).double(), sign(weight).double(), stride=stride)
    assert np.array_equal(out, expected.numpy())


def test_a_comparison_is_packed_with_its_direction():
    values = torch.tensor([[[[-1, 0, 1]], [[5, 6, 7]]]], dtype=torch.int32).numpy()
    words = kernels().pack(values, np.array([0, 7], np.int32), np.array([0, 1], np.uint64))
    assert words.squeeze().tolist() == [0b10, 0b11, 0b01]


def gate(seed: int, channels: int = 40) -> nn.Sequential:
    """ReLU, a scalar and a BatchNorm of any sign, some of which never change theirs."""
    random = torch.Generator().manual_seed(seed)
    norm = nn.BatchNorm2d(channels)
    with torch.no_grad():
        for value in (norm.weight, norm.bias, norm.running_mean):
            value.copy_(torch.randn(channels, generator=random))
        norm.running_var.uniform_(0.1, 2, generator=random)
        norm.weight[0] = 0.0
    return nn.Sequential(nn.ReLU(), norm, Sign()).eval()


@pytest.mark.parametrize("seed", range(3))
def test_thresholds_say_what_the_layers_say_to_the_last_bit(seed):
    made, shape = gate(seed), torch.Size((1, 40, 6, 6))
    limit, flip = float_thresholds(made, shape)
    for values in (torch.randn(50, *shape[1:]), *_neighbours(limit, shape)):
        with torch.no_grad():
            expected = made(values) > 0
        above = values.numpy() >= limit[:, None, None]
        assert np.array_equal(above ^ flip.astype(bool)[:, None, None], expected.numpy())
    of_integers = nn.Sequential(_Rescaled(nn.Conv2d(1, 1, 1)), *made)
    limit, flip = integer_thresholds(of_integers, shape, reach=30)
    integers = torch.arange(-30, 31, dtype=torch.int32)[:, None, None, None].expand(-1, 40, 1, 1)
    with torch.no_grad():
        expected = made(integers.float()) > 0
    assert np.array_equal(
        (integers.numpy() >= limit[:, None, None]) ^ flip.astype(bool)[:, None, None], expected.numpy()
    )


def _neighbours(limit: np.ndarray, shape: torch.Size):
    """Values at the thresholds, and the floats just below them."""
    usable = np.where(np.isfinite(limit), limit, 0.0).astype(np.float32)
    for values in (usable, np.nextafter(usable, np.float32(-np.inf))):
        yield torch.from_numpy(values)[None, :, None, None].expand(shape).contiguous()


def test_a_sign_that_changes_twice_is_refused():
    class Bump(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2.0 - x.float().abs()

    with pytest.raises(PluginError, match="changes more than once"):
        integer_thresholds(nn.Sequential(Bump(), Sign()), torch.Size((1, 2, 1, 1)), reach=5)


@pytest.mark.parametrize("fields", [{"variant": "B"}, {"variant": "C", "width": 20}, {"channel_scaling": True}])
def test_on_the_digits_it_equals_its_reference_on_every_sample_alone_and_together(fields):
    source, _ = trained(**fields, train={"epochs": 3, "learning_rate": 0.01})
    packed = PackedClassifier(source)
    test = Digits(split="test").load()
    x = test.fetch(np.arange(len(test)))
    assert torch.equal(packed.logits(x), source.logits(x))
    for row in x[:100]:
        assert torch.equal(packed.logits(row[None]), source.logits(row[None]))


@pytest.mark.parametrize("width", [64, 128, 256])
def test_the_papers_nets_for_mnist_equal_their_reference_in_every_width(width):
    made = Binarised(variant="C", width=width)
    torch.manual_seed(0)
    net, x = made.net().train(), torch.rand(9, 1, 28, 28)
    with torch.no_grad():
        for _ in range(3):  # so that BatchNorm knows what it is given
            net(x)
    source = made.classifier(net.eval())
    packed = PackedClassifier(source)
    assert torch.equal(packed.logits(x), source.logits(x))
    assert torch.equal(packed.logits(x[:1]), source.logits(x[:1]))


@pytest.mark.slow
def test_on_all_of_mnist_it_equals_its_reference(shared_data, monkeypatch):
    monkeypatch.setenv("GAUNTLET_DATA", str(shared_data))
    made = Binarised(variant="C", width=64)
    torch.manual_seed(0)
    net = made.net().train()
    test = Mnist(split="test").load()
    for start in range(0, 1000, 100):  # so that BatchNorm knows what it is given, as after a training
        net(test.fetch(np.arange(start, start + 100)))
    source = made.classifier(net.eval())
    packed = PackedClassifier(source)
    for rows in np.array_split(np.arange(10_000), 10):
        x = test.fetch(rows)
        assert torch.equal(packed.logits(x), source.logits(x))
    assert KERNELS[28][1].size == 6, "the shapes of the paper's net"


def test_it_is_what_it_says_and_takes_the_weights_over():
    _, weights = trained(train={"epochs": 1})
    fields = {"adapter": "binarised", "args": {"data": {"dataset": "digits"}, "width": 16}}
    packed = Packed(model=fields)
    training = packed.training()
    assert training.parent == adapter(train={})
    assert training.train(Digits(split="train").load(), weights, 0, _Quiet()) == weights
    model = packed.build(weights)
    assert (model.gradients, model.realisation, model.runtime) == (Gradients.NONE, Realisation.PACKED_KERNEL, "numba")
    assert model.source.gradients is Gradients.SURROGATE
    assert not model.logits(torch.rand(2, 1, 8, 8).requires_grad_()).requires_grad


class _Quiet:
    def step(self, done: int, total: int, **figures: float) -> None: ...


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"variant": "A"}, "no binary convolutions"), ({"variant": "S"}, "drawn at every pass cannot be packed")],
)
def test_a_net_without_fixed_bits_is_refused(fields, message):
    source, _ = trained(**fields, train={"epochs": 1})
    with pytest.raises(PluginError, match=message):
        PackedClassifier(source)
