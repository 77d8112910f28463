"""What is wrong in Foolbox 3.3.4, one test for each defect: where it can be shown in a second, it is; ours has none."""

import importlib.util
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from attacks.ddn import DecoupledDirectionNorm
from attacks.fmn import FastMinimumNorm
from attacks.foolbox_import import Misclassification, PyTorchModel, exported
from attacks.pgd import ProjectedGradientDescent
from attacks.simba import SimpleBlackBox
from bench import plugins
from bench.contracts import Attack, Bounds, Classifier, Norm, Samples
from bench.contracts import attacks as registry
from bench.measure import attacked
from tests.attacks import digits

plugins.load_built_in()


def records(attack: Attack, epsilons: tuple[float, ...], x: Tensor, y: Tensor, model: Classifier) -> dict[str, Any]:
    """What the engine says of an attack on these samples."""
    samples = Samples(y.numpy(), lambda i: x[torch.from_numpy(i)], tuple(x.shape[1:]), model.bounds, ("",) * 10, "d")
    return attacked(attack, epsilons, "t", model, samples, np.arange(len(x)), 0).to_pydict()


def theirs(model: Classifier) -> PyTorchModel:
    return PyTorchModel(digits.module(), bounds=tuple(model.bounds), device="cpu")


def length(delta: Tensor) -> Tensor:
    return delta.double().flatten(1).norm(dim=1)


def lost(x: Tensor, y: Tensor) -> Tensor:
    return digits.module()(x).argmax(1) != y


def test_no_attack_draws_from_the_global_generators() -> None:
    """Foolbox has no seed: what it finds depends on what was drawn before."""
    x, y = digits.right(4)
    found: dict[int, list[Tensor]] = {}
    for seed in (1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            foreign = exported.LinfPGD(steps=3).run(theirs(digits.model()), x, Misclassification(y), epsilon=0.1)
            ours = registry.build("foolbox.linf_projected_gradient_descent", {"steps": 3})
            found[seed] = [foreign, ours.run(digits.model(), x, y, 0.1, digits.streams(4))]
    assert not torch.equal(found[1][0], found[2][0])
    assert torch.equal(found[1][1], found[2][1])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("foolbox.l2_carlini_wagner", {"steps": 40, "binary_search_steps": 3, "stepsize": 0.05, "initial_const": 0.1}),
        ("cw", {"steps": 40, "binary_search": 3}),
    ],
)
def test_the_distance_of_carlini_and_wagner_does_not_depend_on_companions(name: str, arguments: dict[str, Any]) -> None:
    x, y = digits.right(4)
    attack = registry.build(name, arguments)
    together = length(attack.run(digits.model(), x, y, None, digits.streams(4)) - x)
    alone = [
        length(attack.run(digits.model(), x[i : i + 1], y[i : i + 1], None, digits.streams(1, i)) - x[i : i + 1])
        for i in range(4)
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-3, atol=0)


def test_more_epsilons_cost_passes_only_for_what_still_stands() -> None:
    """Foolbox attacks everything again at each: 41 forward passes for one epsilon, 328 for eight."""
    x, y = digits.right(40)
    attack, epsilons = ProjectedGradientDescent(random_start=False), tuple(0.04 * k for k in range(1, 9))
    found = records(attack, epsilons, x, y, digits.model())
    for forwards, broken in zip(found["forwards"], found["broken"], strict=True):
        assert forwards <= 40 * (8 - sum(broken) + 1)
    assert sum(found["forwards"]) < 0.6 * 40 * 8 * len(x)
    minimal = records(DecoupledDirectionNorm(steps=20), epsilons, x, y, digits.model())
    assert max(minimal["forwards"]) <= 21  # one run for all of them


def test_a_misclassified_input_is_broken_and_not_attacked_so_that_none_can_repair_it() -> None:
    x, y = digits.data()[0][1200:], digits.data()[1][1200:]
    wrong = lost(x, y).nonzero()[:, 0]
    x, y = x[wrong], y[wrong]
    assert len(x) > 3
    foreign = exported.LinfPGD(steps=20, random_start=False).run(
        theirs(digits.model()), x, Misclassification(y), epsilon=0.3
    )
    assert not bool((foreign == x).all())  # it moves what is wrong already
    found = records(registry.build("foolbox.linf_projected_gradient_descent", {}), (0.3,), x, y, digits.model())
    assert found["distance"] == [0.0] * len(x)
    assert found["broken"] == [[True]] * len(x)
    assert found["forwards"] == [0.0] * len(x)


class Overshot(digits.DigitsNet):
    """Loses the label only where the brightness has risen a little, and finds it again further on."""

    def __init__(self, x: Tensor) -> None:
        super().__init__(digits.module())
        self.start = x.flatten(1).mean(1)

    def logits(self, x: Tensor) -> Tensor:
        risen = x.flatten(1).mean(1) - self.start[: len(x)]
        other = 1.0 - ((risen - 0.02) / 0.01).square()  # above 0 between .01 and .03
        slope = 1e-3 * risen
        return torch.stack([torch.zeros_like(risen), other.clamp(max=1e-4 + slope) + slope], dim=1)


@pytest.mark.parametrize("name", ["pgd", "foolbox.linf_projected_gradient_descent"])
def test_descent_hands_back_what_broke_on_the_way_and_not_its_last_iterate(name: str) -> None:
    x = torch.full((1, 1, 8, 8), 0.5)
    y, model = torch.tensor([0]), Overshot(x)
    size = {"step_size": 0.02} if name == "pgd" else {"abs_stepsize": 0.02}
    attack = registry.build(name, {"steps": 10, "random_start": False, **size})
    moved = attack.run(model, x, y, 0.1, digits.streams(1))
    assert bool((model.logits(moved).argmax(1) != y).all())


@pytest.mark.parametrize("name", ["pgd", "fgsm", "apgd_ce", "square", "foolbox.linf_projected_gradient_descent"])
def test_nothing_leaves_the_ball_by_as_much_as_a_rounding(name: str) -> None:
    """Foolbox overshoots by 2e-8: x + .1 is no float, and the nearest one may lie outside."""
    x, y = digits.data()[0][:300], digits.data()[1][:300]
    budgets: dict[str, dict[str, Any]] = {"fgsm": {}, "square": {"queries": 30}, "apgd_ce": {"steps": 5}}
    budget = budgets.get(name, {"steps": 5, "step_size" if name == "pgd" else "abs_stepsize": 0.05})
    moved = registry.build(name, budget).run(digits.model(), x, y, 0.1, digits.streams(300))
    assert float((moved.double() - x.double()).abs().max()) <= 0.1
    foreign = exported.LinfPGD(steps=5, abs_stepsize=0.05, random_start=False).run(
        theirs(digits.model()), x, Misclassification(y), epsilon=0.1
    )
    assert float((foreign.double() - x.double()).abs().max()) > 0.1


def test_newton_fool_is_refused_since_it_says_nan() -> None:
    x, y = digits.right(64)
    foreign = exported.NewtonFoolAttack().run(theirs(digits.model()), x, Misclassification(y))
    assert not bool(foreign.isfinite().all())
    with pytest.raises(ValidationError, match=r"(?s)newton_fool is refused.*NaN.*use foolbox\.l2_deep_fool"):
        registry.build("foolbox.newton_fool", {})


def test_l2_fmn_is_refused_since_it_never_projects_and_ours_finds_the_distances_of_ddn() -> None:
    x, y = digits.right(30)
    foreign = exported.L2FMNAttack(steps=100).run(theirs(digits.model()), x, Misclassification(y))
    ours = FastMinimumNorm(norm=Norm.L2, steps=100).run(digits.model(), x, y, None, digits.streams(30))
    assert length(foreign - x).median() > 1.2 * length(ours - x).median()
    with pytest.raises(ValidationError, match=r"(?s)l2_fmn is refused.*never projects"):
        registry.build("foolbox.l2_fmn", {"steps": 10})


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_the_iterative_attacks_with_adam_are_refused_since_they_ignore_it(norm: str) -> None:
    name = f"foolbox.{norm}_adam_basic_iterative"
    with pytest.raises(ValidationError, match=rf"(?s)ignores Adam.*foolbox\.{norm}_adam_projected_gradient_descent"):
        registry.build(name, {})


def test_the_data_set_attack_is_refused_since_it_looks_at_a_batch_of_what_it_was_fed() -> None:
    with pytest.raises(ValidationError, match=r"(?s)dataset is refused.*no more of it than the batch"):
        registry.build("foolbox.dataset", {})


def test_no_estimated_gradient_shares_a_loss_over_the_batch() -> None:
    """Foolbox's estimators make a new class of an attack: none is registered. Attacks on scores judge rows alone."""
    assert not [name for name in registry if "estimator" in name or "evolution" in name]
    x, y = digits.right(12)
    attack = SimpleBlackBox(queries=100)
    together = attack.strike(digits.model(), x, y, 1.0, digits.streams(12))[1]
    alone = [attack.strike(digits.model(), x[i : i + 1], y[i : i + 1], 1.0, digits.streams(1, i))[1] for i in range(12)]
    assert together.tolist() == torch.cat(alone).tolist()


class Unmoved(digits.DigitsNet):
    """Says 3 to whatever is no digit at all, so that a 3 has no starting point among noise, and others do."""

    def logits(self, x: Tensor) -> Tensor:
        threes = torch.nn.functional.one_hot(torch.full((len(x),), 3), 10).float() * 100
        crisp = (x.flatten(1) < 0.05).float().mean(1) > 0.3
        return torch.where(crisp[:, None], super().logits(x), threes)


@pytest.mark.parametrize("name", ["boundary", "hop_skip_jump"])
def test_one_input_without_a_starting_point_does_not_stop_its_companions(name: str) -> None:
    x, y = digits.right(60)
    rows = torch.cat([(y == 3).nonzero()[:1, 0], (y != 3).nonzero()[:3, 0]])
    x, y = x[rows], y[rows]
    assert y[0] == 3
    model = Unmoved(digits.module())
    steps = {"steps": 20} if name == "boundary" else {"steps": 2, "initial_gradient_eval_steps": 10}
    moved = registry.build(f"foolbox.{name}", steps).run(model, x, y, None, digits.streams(4))
    assert torch.equal(moved[0], x[0])
    assert bool((model.logits(moved[1:]).argmax(1) != y[1:]).all())


@pytest.mark.timeout(300)
def test_hop_skip_jump_comes_back_on_bounds_of_minus_one_and_one() -> None:
    bounds = Bounds(-1.0, 1.0)
    x, y = digits.right(4, bounds)
    budget = {"steps": 2, "initial_gradient_eval_steps": 10}
    moved = registry.build("foolbox.hop_skip_jump", budget).run(digits.model(bounds), x, y, None, digits.streams(4))
    assert bool((digits.model(bounds).logits(moved).argmax(1) != y).all())


def test_pointwise_is_judged_at_an_epsilon() -> None:
    x, y = digits.right(3)
    found = records(registry.build("foolbox.pointwise", {"norm": "l0"}), (5.0, 64.0), x, y, digits.model())
    assert [broken[1] for broken in found["broken"]] == [True] * 3
    for far, broken in zip(found["distance"], found["broken"], strict=True):
        assert broken[0] == (far <= 5)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba is not installed")
def test_brendel_bethge_in_l0_is_judged_at_an_epsilon() -> None:
    x, y = digits.right(2)
    attack = registry.build("foolbox.l0_brendel_bethge", {"steps": 30})
    found = records(attack, (5.0, 64.0), x, y, digits.model())
    assert [broken[1] for broken in found["broken"]] == [True] * 2
