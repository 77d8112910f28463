"""bench/certificates against sampled points, a linear programme by hand, attacks, and the published certified error."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from adapters.torch_classifier import TorchClassifier
from attacks.pgd import ProjectedGradientDescent
from bench.certificates._bounds import Bounded, Region
from bench.certificates._trace import Unsupported, steps
from bench.certificates.linear_bounds import IntervalBounds, LinearBounds, QuickBounds
from bench.contracts import Bounds, Norm
from tests.attacks import digits, third_party

UNIT = Bounds(0.0, 1.0)


class Residual(nn.Module):
    """Every layer that has bounds."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.pool = nn.MaxPool2d(2)
        self.mean = nn.AvgPool2d(2)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first((x - 0.5) / 0.3)))
        x = torch.relu(self.second(x) + x)
        x = self.mean(self.pool(x))
        return self.head(torch.flatten(x, 1))


def residual() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = Residual()
        net.norm.running_mean.uniform_(-0.5, 0.5)
        net.norm.running_var.uniform_(0.5, 2.0)
        net.norm.weight.data.uniform_(-1.0, 1.0)
    return net.eval().requires_grad_(False)


def inside(x: Tensor, epsilon: float, norm: Norm, n: int) -> Tensor:
    """Random points of the ball, many of them at its surface, cut by the bounds."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((n, *x.shape), generator=generator)
    if norm is Norm.L1:
        noise = noise * (torch.rand(noise.shape, generator=generator) < 0.05)
    order = {Norm.LINF: float("inf"), Norm.L2: 2.0, Norm.L1: 1.0}[norm]
    size = torch.linalg.vector_norm(noise.flatten(1), order, dim=1).clamp(min=1e-9).reshape(-1, 1, 1, 1)
    direction = noise.sign() if norm is Norm.LINF else noise / size
    return (x + epsilon * direction).clamp(0, 1)


@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2, Norm.L1])
@pytest.mark.parametrize("slope", ["equal", "adaptive"])
def test_no_point_of_the_ball_has_a_smaller_margin_than_the_bound(norm: Norm, slope: str) -> None:
    net, epsilon = residual(), {Norm.LINF: 0.05, Norm.L2: 0.3, Norm.L1: 1.0}[norm]
    for row in range(6):
        x = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(row))
        bounded = Bounded(steps(net, x[None]), Region(x, epsilon, norm, UNIT), linear=True)
        logits = net(inside(x, epsilon, norm, 400))
        margins = (logits[:, :1] - logits).amin(0)
        for bound in (bounded.margins(0, [slope]), bounded.interval_margins(0)):
            assert bool((bound <= margins + 1e-5).all())
        assert bool((bounded.margins(0, [slope])[1:] > bounded.interval_margins(0)[1:]).all())


def test_without_a_ball_the_bound_is_the_margin_itself() -> None:
    net, x = residual(), torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(1))
    logits = net(x[None])[0]
    bounded = Bounded(steps(net, x[None]), Region(x, 1e-9, Norm.LINF, UNIT), linear=True)
    torch.testing.assert_close(bounded.margins(2, ["equal"]), logits[2] - logits, rtol=0, atol=1e-4)


def test_a_linear_net_is_bounded_exactly_in_every_norm() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval().requires_grad_(False)
    x = torch.full((1, 2, 2), 0.5)
    weight, logits = net[1].weight, net(x[None])[0]
    for norm, dual in ((Norm.LINF, 1.0), (Norm.L2, 2.0), (Norm.L1, float("inf"))):
        bounded = Bounded(steps(net, x[None]), Region(x, 0.1, norm, UNIT), linear=True)
        reach = 0.1 * torch.linalg.vector_norm(weight[0] - weight, dual, dim=1)
        torch.testing.assert_close(bounded.margins(0, ["equal"]), logits[0] - logits - reach)


def test_no_attack_breaks_what_is_proved_and_some_of_the_rest_it_does() -> None:
    x, y = digits.right(20)
    epsilon = 0.02
    proved = LinearBounds().proves(digits.model(), x, y, epsilon)
    assert 0 < int(proved.sum()) < 20
    moved = ProjectedGradientDescent().run(digits.model(), x, y, epsilon, digits.streams(20))
    assert not bool((digits.module()(moved).argmax(1) != y)[proved].any())
    intervals = LinearBounds(linear=False).proves(digits.model(), x, y, epsilon)
    quick = QuickBounds().proves(digits.model(), x, y, epsilon)
    assert not bool(((intervals & ~quick) | (quick & ~proved)).any())
    assert int(intervals.sum()) < int(proved.sum())


def test_a_wrong_sample_is_not_proved() -> None:
    x, y = digits.right(4)
    assert not bool(LinearBounds().proves(digits.model(), x, (y + 1) % 10, 1e-6).any())


class Odd(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x.flatten(1))


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) if x.sum() > 0 else -x.flatten(1)


class Listing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) * len(x.tolist())


class Shaping(nn.Module):
    """As users write it: asks the input for its shape."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.linear = how, nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "size":
            x = x.view(x.size(0), -1)
        elif self.how == "shape":
            x = x.reshape(x.shape[0], -1)
        else:
            x = torch.reshape(x, (x.shape[0], x.numel() // x.size()[0]))
        return self.linear(x)


@pytest.mark.parametrize("how", ["size", "shape", "numel"])
def test_a_module_may_ask_its_input_for_the_shape(how: str) -> None:
    torch.manual_seed(0)
    module = Shaping(how).requires_grad_(False)
    plain = nn.Sequential(nn.Flatten(), module.linear)
    x = torch.rand(40, 1, 4, 4)
    y = plain(x).argmax(1)
    models = [TorchClassifier(net, input_shape=(1, 4, 4), classes=3) for net in (module, plain)]
    for certificate in (LinearBounds(norm=Norm.LINF), QuickBounds(norm=Norm.LINF)):
        found = [certificate.proves(model, x, y, 0.1) for model in models]
        assert torch.equal(*found)
        assert 0 < int(found[0].sum()) < 40


class Derived(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).sign()


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Odd(), "no bound is known through 'sin'"),
        (Branching(), "cannot be traced"),
        (Listing(), "cannot be traced|makes no tensor"),
        (nn.Sequential(Derived(1, 1, 3), nn.Flatten()), "no bound is known|cannot be traced"),
        (nn.Sequential(nn.Flatten(), nn.Sigmoid()), r"no bound is known through '_1' \(Sigmoid\)"),
    ],
)
def test_a_layer_without_bounds_is_an_error_that_names_it(module: nn.Module, message: str) -> None:
    with pytest.raises(Unsupported, match=message):
        steps(module, torch.rand(1, 1, 4, 4))


def certified_error(root: Path, n: int) -> float:
    """As published: equal slopes, and a ball that the bounds do not cut."""
    model = third_party.wong_kolter(root)
    x, y = third_party.images(root, n)
    certificate = LinearBounds(box=False, adaptive=False)
    proved = torch.cat([certificate.proves(model, x[rows], y[rows], 0.1) for rows in torch.arange(n).split(500)])
    return 1 - float(proved.double().mean())


def test_twenty_images_of_the_certified_net_are_certified_about_as_published(shared_data: Path) -> None:
    assert certified_error(shared_data, 20) <= 3 / 20  # 1.2 are expected


def test_intervals_prove_a_block_as_they_do_one_by_one_and_as_by_hand() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval().requires_grad_(False)
        x = torch.rand(40, 1, 2, 3)
    model = third_party.Net(net)
    model.input_shape, model.classes = (1, 2, 3), 3
    y, first, last = net(x).argmax(1), net[1], net[3]
    for epsilon in (0.003, 0.03, 0.1):
        low, high = (x - epsilon).clamp(min=0).flatten(1), (x + epsilon).clamp(max=1).flatten(1)
        for layer in (first, last):
            up, down = layer.weight.clamp(min=0), layer.weight.clamp(max=0)
            low, high = low @ up.T + high @ down.T + layer.bias, high @ up.T + low @ down.T + layer.bias
            if layer is first:
                low, high = low.relu(), high.relu()
        by_hand = [all(low[i, y[i]] > high[i, j] for j in range(3) if j != y[i]) for i in range(len(x))]
        at_once = IntervalBounds().proves(model, x, y, epsilon)
        assert at_once.tolist() == by_hand
        assert at_once.tolist() == LinearBounds(linear=False).proves(model, x, y, epsilon).tolist()
        assert at_once.sum() > 0 or epsilon > 0.01


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_certified_error_of_the_certified_net_is_the_published_one(shared_data: Path) -> None:
    assert certified_error(shared_data, 10_000) == pytest.approx(0.0582, abs=0.0002)
