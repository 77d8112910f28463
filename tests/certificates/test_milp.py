"""The exact certificate: against every vertex of a tiny net's activation regions, attacks, and the linear bounds."""

import itertools

import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor, nn

from attacks.autoattack import AutoAttack
from bench.certificates._bounds import Bounded, Region
from bench.certificates._trace import Unsupported, steps
from bench.certificates.linear_bounds import LinearBounds
from bench.certificates.milp import ExactProgramme, Programme
from bench.contracts import Bounds, Classifier, Norm
from tests.attacks import digits
from tests.certificates.test_linear_bounds import residual

UNIT = Bounds(0.0, 1.0)


def tiny(seed: int) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Flatten(), nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 3))
    return net.double().float().eval().requires_grad_(False)


def by_regions(net: nn.Sequential, x: Tensor, epsilon: float, y: int, other: int) -> float:
    """The least margin by one linear programme for each of the 32 patterns of active ReLUs."""
    w, b = net[1].weight.double().numpy(), net[1].bias.double().numpy()
    v = (net[3].weight[y] - net[3].weight[other]).double().numpy()
    c = float(net[3].bias[y] - net[3].bias[other])
    box = [(max(float(value) - epsilon, 0), min(float(value) + epsilon, 1)) for value in x.flatten()]
    least = float("inf")
    for pattern in itertools.product([0, 1], repeat=5):
        active = torch.tensor(pattern).double().numpy()
        sides = (1 - 2 * active)[:, None] * w  # active: -(w x + b) <= 0
        found = linprog((v * active) @ w, A_ub=sides, b_ub=-(1 - 2 * active) * b, bounds=box)
        if found.status == 0:
            least = min(least, found.fun + float((v * active) @ b) + c)
    return least


@pytest.mark.parametrize("seed", range(4))
def test_the_least_margin_is_that_of_all_activation_regions(seed: int) -> None:
    net, epsilon = tiny(seed), 0.3
    x = torch.rand(1, 1, 3, generator=torch.Generator().manual_seed(seed))
    y = int(net(x[None]).argmax())
    found = steps(net, x[None])
    programme = Programme(found, Bounded(found, Region(x, epsilon, Norm.LINF, UNIT), linear=True))
    for other in {0, 1, 2} - {y}:
        least, where = programme.least_margin(y, other, 60)
        assert least == pytest.approx(by_regions(net, x, epsilon, y, other), abs=1e-4)
        logits = net(torch.from_numpy(where).float().reshape(1, 1, 1, 3))[0]  # reached by a real input
        assert float(logits[y] - logits[other]) == pytest.approx(least, abs=1e-4)


def small() -> nn.Sequential:
    x, y = digits.data()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 10))
        optimizer = torch.optim.Adam(net.parameters(), 5e-3)
        for _ in range(15):
            for rows in torch.randperm(1200).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
                optimizer.step()
    return net.eval().requires_grad_(False)


@pytest.mark.slow
def test_proved_or_broken_and_never_both() -> None:
    """Exact: nothing lies between, up to what the attack misses."""
    model, epsilon, n = digits.DigitsNet(small()), 0.06, 24
    x, y = digits.data()[0][1200 : 1200 + n], digits.data()[1][1200 : 1200 + n]
    right = model.logits(x).argmax(1) == y
    x, y = x[right], y[right]
    proved = ExactProgramme().proves(model, x, y, epsilon)
    by_planes = LinearBounds().proves(model, x, y, epsilon)
    _, broken = AutoAttack().strike(model, x, y, epsilon, digits.streams(len(x)))
    assert not bool((proved & broken).any())
    assert not bool((by_planes & ~proved).any())
    assert int(proved.sum()) > int(by_planes.sum())
    assert int((~proved & ~broken).sum()) <= 1


def test_a_net_with_too_many_open_relus_or_a_maximum_is_left_to_the_planes_or_refused() -> None:
    model = digits.DigitsNet(small())
    x, y = digits.right(4)
    assert torch.equal(ExactProgramme(undecided=0).proves(model, x, y, 0.06), LinearBounds().proves(model, x, y, 0.06))

    class Residual(Classifier):
        input_shape, bounds, classes, module = (1, 8, 8), UNIT, 5, residual()

        def logits(self, x: Tensor) -> Tensor:
            return self.module(x)

    with pytest.raises(Unsupported, match="maximum pooling"):
        ExactProgramme().proves(Residual(), x[:1], Residual().logits(x[:1]).argmax(1), 0.2)
