"""bench/swift.py: the same numbers up to rounding, or the model itself."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

import attacks.fgsm  # noqa: F401 - registers it
from attacks.apgd_ce import AutoPGDCrossEntropy
from attacks.pgd import ProjectedGradientDescent
from bench.contracts import GradientPasses, Gradients, Samples
from bench.errors import PluginError
from bench.measure import attacked
from bench.plan import EvaluationRef
from bench.records import Kind
from bench.suite_parts import AttackSpec
from bench.swift import Swift, swift
from bench.swift_layers import Convolution, replaced, simplified
from tests.attacks import digits


def test_logits_and_gradients_are_those_of_the_model_for_every_size_of_batch() -> None:
    x, _ = digits.right(40)
    model = digits.model()
    fast = swift(model, x)
    assert isinstance(fast, Swift)
    for n in (1, 7, 40):
        torch.testing.assert_close(fast.logits(x[:n]), model.logits(x[:n]), rtol=1e-4, atol=1e-4)
        slopes = []
        for classifier in (fast, model):
            leaf = x[:n].clone().requires_grad_()
            slopes.append(torch.autograd.grad(classifier.logits(leaf).square().sum(), leaf)[0])
        torch.testing.assert_close(*slopes, rtol=1e-3, atol=1e-3)
    assert fast.logits(x[:0]).shape == (0, 10)


def test_the_model_is_left_as_it_was() -> None:
    x, _ = digits.right(8)
    net = digits.module()
    before = {name: (value.clone(), value.stride(), value._version) for name, value in net.state_dict().items()}
    swift(digits.model(), x)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name][0])
        assert (value.stride(), value._version) == before[name][1:]


def slope(net: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(net(leaf).square().sum(), leaf)
    return found


@pytest.mark.parametrize("size", [(8, 8), (6, 10), (7, 9)])
@pytest.mark.parametrize(
    ("colours", "kernel", "padding"),
    [(1, 3, 1), (1, 5, 2), (1, 5, 0), (2, 3, 2), (3, 3, 1), (3, (3, 1), (1, 0)), (4, 1, 0), (16, 3, 1), (20, 4, 1)],
)
def test_a_convolution_has_the_gradient_that_torch_has(
    size: tuple[int, int], colours: int, kernel: int | tuple[int, int], padding: int | tuple[int, int]
) -> None:
    layer = nn.Conv2d(colours, 12, kernel, padding=padding).requires_grad_(False)
    x = torch.rand(3, colours, *size, generator=torch.Generator().manual_seed(0))
    ours = Convolution(layer)
    torch.testing.assert_close(ours(x), layer(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(slope(ours, x), slope(layer, x), rtol=1e-4, atol=1e-4)


class Varied(nn.Module):
    """What may be rewritten, and beside it what may not: a ReLU that is used twice, a BatchNorm behind no convolution,
    a strided and a grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.other = nn.Conv2d(8, 8, 3, padding=1, groups=2, bias=False), nn.BatchNorm2d(8)
        self.third, self.relu, self.pool = nn.Conv2d(8, 6, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(2)
        self.head = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(torch.relu(self.norm(self.first(x))))
        twice = self.relu(self.second(x))
        x = self.pool(twice) + self.other(twice)[:, :, ::2, ::2]
        return self.head(torch.flatten(self.third(x), 1))


def varied() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Varied()
        for norm in (net.norm, net.other):
            norm.running_mean.uniform_(-0.5, 0.5)
            norm.running_var.uniform_(0.5, 2.0)
            norm.weight.data.uniform_(-1.0, 1.0)
    return net.eval().requires_grad_(False)


def test_a_net_is_rewritten_where_its_scores_and_gradients_stay_the_same() -> None:
    net, x = varied(), torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    lean = simplified(net)
    assert [type(part).__name__ for part in lean.modules()].count("BatchNorm2d") == 1
    order = [node.name for node in lean.graph.nodes]  # type: ignore[union-attr]
    assert order.index("pool") < order.index("relu_1")
    for other in (lean, replaced(lean)):
        torch.testing.assert_close(other(x), net(x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(slope(other, x), slope(net, x), rtol=1e-3, atol=1e-4)
    assert [type(part).__name__ for part in lean.modules()].count("Convolution") == 1
    assert type(net.first) is nn.Conv2d


def test_it_is_made_once_and_anew_when_a_weight_changes() -> None:
    x, _ = digits.right(8)
    model = digits.DigitsNet(copy.deepcopy(digits.module()))
    first, again = swift(model, x), swift(model, x)
    assert isinstance(first, Swift)
    assert isinstance(again, Swift)
    assert again._program is first._program
    model.net[6].bias.add_(1.0)
    torch.testing.assert_close(swift(model, x).logits(x), first.logits(x) + 1, rtol=1e-4, atol=1e-4)
    assert not torch.equal(swift(model, x).logits(x), first.logits(x))


def test_gradients_in_bfloat16_find_what_is_broken_in_float32() -> None:
    x, y = digits.right(60)
    model = digits.model()
    rough = swift(model, x, GradientPasses.BFLOAT16)
    assert isinstance(rough, Swift)
    leaf = x.clone().requires_grad_()
    scores = rough.logits(leaf)
    exact, pulled, scores = model.logits(x), torch.autograd.grad(scores.sum(), leaf)[0], scores.detach()
    assert float((scores - exact).abs().max()) > 1e-3  # bfloat16 it is
    assert torch.equal(scores.argmax(1), exact.argmax(1))
    assert pulled.dtype == torch.float32
    torch.testing.assert_close(rough.logits(x), exact, rtol=1e-4, atol=1e-4)  # without a gradient nothing is rough
    robust = {}
    for name, asked in (("exact", model), ("rough", rough)):
        moved, broken = AutoPGDCrossEntropy(steps=30).strike(asked, x, y, 0.1, digits.streams(60))
        assert torch.equal(model.logits(moved).argmax(1) != y, broken), name
        robust[name] = 60 - int(broken.sum())
    assert 5 < robust["exact"] < 55
    assert abs(robust["rough"] - robust["exact"]) <= 2


def test_near_ties_of_bfloat16_are_settled_in_float32() -> None:
    """Two classes whose scores differ by less than bfloat16 can tell."""
    x = torch.linspace(0.4999, 0.5001, 41)[:, None, None, None].repeat(1, 1, 2, 2)
    head = nn.Linear(4, 2)
    head.weight.data = torch.stack([torch.full((4,), 1.0), torch.full((4,), 0.5)])
    head.bias.data = torch.tensor([0.0, 1.0])
    model = digits.DigitsNet(nn.Sequential(nn.Flatten(), head).eval().requires_grad_(False))
    rough = swift(model, x, GradientPasses.BFLOAT16)
    assert isinstance(rough, Swift)
    leaf = x.clone().requires_grad_()
    assert torch.equal(rough.logits(leaf).argmax(1), model.logits(x).argmax(1))
    bare = rough._copied(x.to(torch.bfloat16)).argmax(1)
    assert not torch.equal(bare, model.logits(x).argmax(1))


@pytest.mark.slow  # torch.compile takes most of a minute
@pytest.mark.filterwarnings("ignore")  # of torch's own code
def test_compiled_gradients_are_those_of_the_model() -> None:
    x, _ = digits.right(20)
    model = digits.model()
    fast = swift(model, x, GradientPasses.COMPILED)
    assert isinstance(fast, Swift)
    for n in (1, 7, 20):
        torch.testing.assert_close(slope(fast.logits, x[:n]), slope(model.logits, x[:n]), rtol=1e-3, atol=1e-3)


def test_what_a_model_does_not_bear_is_an_error_that_says_so() -> None:
    x, _ = digits.right(8)
    scaled = digits.model()
    scaled.logits = lambda x: 2 * digits.module()(x)  # type: ignore[method-assign]
    with pytest.raises(PluginError, match=r"(?s)gradient_passes: bfloat16 does not work.*leave gradient_passes out"):
        swift(scaled, x, GradientPasses.BFLOAT16)


def test_the_option_belongs_to_the_attack_of_a_suite_and_to_the_key_of_its_records() -> None:
    entry: dict[str, Any] = {"attack": "pgd", "norm": "linf", "epsilons": [0.1]}
    assert AttackSpec.model_validate(entry | {"gradient_passes": "bfloat16"}).build().swift
    with pytest.raises(ValidationError, match="gradient_passes"):
        AttackSpec.model_validate(entry | {"gradient_passes": "float64"})
    refs = [EvaluationRef(label="a", plugin="pgd", kind=Kind.ATTACK, gradient_passes=kind) for kind in GradientPasses]
    assert refs[0].identity == EvaluationRef(label="a", plugin="pgd", kind=Kind.ATTACK).identity
    assert len({repr(ref.identity) for ref in refs}) == 3


def test_the_engine_judges_what_rough_gradients_find() -> None:
    x, y = digits.right(30)
    model = digits.model()
    data = Samples(y.numpy(), lambda i: x[torch.from_numpy(i)], (1, 8, 8), model.bounds, ("",) * 10, "digest")
    verdicts = []
    for kind in (GradientPasses.FLOAT32, GradientPasses.BFLOAT16):
        attack = ProjectedGradientDescent(steps=20)
        found = attacked(attack, (0.1,), "t", model, data, np.arange(30), 0, gradient_passes=kind).to_pydict()
        verdicts.append([broken[0] for broken in found["broken"]])
        assert not any(found["escaped"])
    assert 3 < sum(verdicts[0]) < 27
    assert sum(a != b for a, b in zip(*verdicts, strict=True)) <= 2


class Counting(nn.Module):
    """Depends on the size of its batch in a way that no trace keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1)) * (2.0 if x.shape[0] > 1 else 1.0)


def test_equal_inputs_of_a_maximum_are_no_disagreement_and_a_wrong_gradient_is_one() -> None:
    x, _ = digits.right(8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Conv2d(1, 8, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10)
    flat = x.clone()
    flat[:2] = 0.5  # inside, all windows of the pooling hold four equal values
    tied = digits.DigitsNet(nn.Sequential(*layers).eval().requires_grad_(False))
    assert isinstance(swift(tied, flat), Swift)

    class Steeper(digits.DigitsNet):
        def logits(self, x: Tensor) -> Tensor:
            return super().logits(0.9 * x.detach() + 0.1 * x + 0.9 * (x - x.detach()) * 1.01)

    steeper = Steeper(tied.net)
    torch.testing.assert_close(steeper.logits(x), tied.logits(x))
    assert swift(steeper, x) is steeper


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_model_that_cannot_be_imitated_is_attacked_as_it_is() -> None:
    x, _ = digits.right(8)
    odd = digits.DigitsNet(Counting().eval().requires_grad_(False))
    assert swift(odd, x) is odd
    scaled = digits.model()
    scaled.logits = lambda x: 2 * digits.module()(x)  # type: ignore[method-assign]
    assert swift(scaled, x) is scaled
    for name, value in (("stochastic", True), ("gradients", Gradients.SURROGATE), ("device", "cuda:0")):
        other = digits.model()
        setattr(other, name, value)
        assert swift(other, x) is other
