"""Interval bound propagation: sound bounds, and a training that makes them tight."""

import numpy as np
import pytest
import torch

from adapters.certified import Certified, _Objective, interval, proved, worst_logits
from adapters.digits import Digits
from adapters.torch_classifier import state_to_bytes
from bench.certificates._bounds import Bounded, Region
from bench.certificates._trace import steps
from bench.certificates.linear_bounds import LinearBounds
from bench.certificates.milp import Programme
from bench.contracts import Bounds, Norm, Report
from bench.errors import PluginError

UNIT, EPSILON = Bounds(0.0, 1.0), 0.1


class Quiet(Report):
    def step(self, done: int, total: int, **figures: float) -> None: ...


def adapter(**fields: object) -> Certified:
    recipe = {"epochs": 20, "learning_rate": 0.005}
    return Certified.model_validate({"data": {"dataset": "digits"}, "epsilon": EPSILON, "train": recipe, **fields})


def built(**fields: object):
    made = adapter(**fields)
    return made.build(made.training().train(Digits(split="train").load(), None, 0, Quiet()))


@pytest.fixture(scope="module")
def model():
    return built()


@pytest.fixture(scope="module")
def digits():
    test = Digits(split="test").load()
    return test.fetch(np.arange(100)), torch.from_numpy(test.labels[:100])


def test_it_is_proved_where_the_same_net_trained_plainly_is_not(model, digits):
    x, y = digits
    plainly = built(worst_weight=0.0)
    linear = LinearBounds(norm=Norm.LINF)
    right = model.logits(x).argmax(1) == y
    certified = (linear.proves(model, x, y, EPSILON) & right).float().mean()
    assert right.float().mean() > 0.75
    assert certified > 0.3
    assert (linear.proves(plainly, x, y, EPSILON) & (plainly.logits(x).argmax(1) == y)).float().mean() < certified / 2
    assert proved(model.module, x, y, EPSILON, UNIT).float().mean() > 0.2


def test_no_input_of_the_ball_leaves_the_bounds(model, digits):
    x, y = digits[0][:20], digits[1][:20]
    worst = worst_logits(model.module, x, y, 0.05, UNIT)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        moved = (x + 0.05 * torch.randn(x.shape, generator=generator).sign()).clamp(0, 1)
        logits = model.logits(moved)
        assert (logits - logits.gather(1, y[:, None]) <= worst + 1e-4).all()
    at_once = worst_logits(model.module, x, y, 0.0, UNIT)
    logits = model.logits(x)
    torch.testing.assert_close(at_once, logits - logits.gather(1, y[:, None]), rtol=1e-4, atol=1e-4)


def test_it_proves_what_intervals_prove_and_the_certificate_proves_it_too(model, digits):
    x, y = digits
    alone = proved(model.module, x, y, EPSILON, UNIT)
    intervals = LinearBounds(norm=Norm.LINF, linear=False).proves(model, x, y, EPSILON)  # without elision: weaker
    linear = LinearBounds(norm=Norm.LINF).proves(model, x, y, EPSILON)
    assert intervals.any()
    assert (intervals <= alone).all()
    assert (alone & ~linear).float().mean() <= 0.02, "planes are not always tighter, but nearly"


@pytest.mark.parametrize("seed", range(3))
def test_worst_logits_are_never_better_than_the_exact_worst_of_a_tiny_net_and_reach_it_in_a_small_ball(seed):
    """The exact one by mixed-integer programming."""
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))
    net.eval().requires_grad_(False)
    x = 0.2 + 0.6 * torch.rand(1, 1, 2, 2)
    y = net(x).argmax(1)
    for epsilon, tight in ((1e-4, True), (0.05, False), (0.2, False)):
        worst = worst_logits(net, x, y, epsilon, UNIT)[0]
        found = steps(net, x)
        programme = Programme(found, Bounded(found, Region(x[0], epsilon, Norm.LINF, UNIT), linear=True))
        for other in {0, 1, 2} - {int(y)}:
            exact = -programme.least_margin(int(y), other, 60)[0]  # of z_other - z_y
            assert worst[other] >= exact - 1e-5
            assert not tight or worst[other] == pytest.approx(exact, abs=1e-4)


def test_a_net_of_this_shape_that_was_trained_elsewhere_is_loaded_from_its_file(tmp_path):
    """Layers numbered as torch numbers a Sequential: what convex layer-wise training leaves, say."""
    layers = [
        torch.nn.Conv2d(1, 16, 4, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(16, 32, 4, 2, 1), torch.nn.ReLU(),
        torch.nn.Flatten(), torch.nn.Linear(1568, 100), torch.nn.ReLU(), torch.nn.Linear(100, 10),
    ]  # fmt: skip
    net, file = torch.nn.Sequential(*layers).eval(), tmp_path / "elsewhere.safetensors"
    file.write_bytes(state_to_bytes(net.state_dict()))
    made = Certified(weights=file)  # MNIST
    assert made.training() is None
    x = torch.rand(4, 1, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(made.build(file.read_bytes()).logits(x), net(x))
    file.write_bytes(state_to_bytes(net[:4].state_dict()))
    with pytest.raises(PluginError, match=r"5\.weight"):
        made.build(file.read_bytes())


def test_the_interval_of_a_layer_is_that_of_its_corners():
    layer = torch.nn.Linear(3, 2)
    low, high = torch.tensor([[0.0, -1.0, 0.5]]), torch.tensor([[0.2, 1.0, 0.5]])
    corners = torch.cartesian_prod(*(torch.stack(pair) for pair in zip(low[0], high[0], strict=True)))
    with torch.no_grad():
        found, values = interval(layer, low, high), layer(corners)
    torch.testing.assert_close(found[0][0], values.amin(0))
    torch.testing.assert_close(found[1][0], values.amax(0))
    with pytest.raises(PluginError, match="no interval bounds for the layer Sigmoid"):
        interval(torch.nn.Sigmoid(), low, high)


def test_radius_and_weight_grow_between_warm_up_and_ramp():
    objective = _Objective(adapter(warm_up=0.2, ramp=0.6), UNIT)
    grown = []
    for done in (0, 20, 40, 60, 99):
        objective.begin(done, 100)
        grown.append(objective.grown)
    assert grown == pytest.approx([0, 0, 0.5, 1, 1])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"warm_up": 0.7}, "`warm_up` must end before `ramp`"),
        ({"train": {"adversary": "pgd"}}, "take the place of `train.adversary`"),
        ({"input_shape": (1, 10, 10)}, "sides of multiples of 4"),
    ],
)
def test_fields_that_do_not_fit_are_an_error(fields, message):
    with pytest.raises(ValueError, match=message):
        adapter(**fields)
