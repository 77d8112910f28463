"""What every registered attack promises (bench.contracts.Attack), on a small net and with small budgets."""

import random as python_random
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import attacks.autoattack
import attacks.fgsm
import attacks.foolbox
import attacks.orthogonal_pgd
import attacks.pgd  # noqa: F401 - registers the attack
from bench.contracts import Attack, Bounds
from bench.contracts import attacks as registry
from tests.attacks import digits

OURS = [name for name in registry if registry.get(name).__module__.startswith("attacks.")]  # not those of other tests
REFUSED = [name for name in OURS if registry.get(name).summary().startswith("Refused: ")]
NUMBA = [name for name in OURS if "numba" in registry.get(name).requires]
USABLE = [name for name in OURS if name not in REFUSED + NUMBA and not registry.get(name).tokens]
EPSILON = {"linf": 0.1, "l2": 0.6, "l1": 3.0}

# Small budgets, so that all attacks together run in a minute.
BUDGET: dict[str, dict[str, Any]] = {
    "apgd_ce": {"steps": 10},
    "apgd_dlr": {"steps": 10},
    "apgd_t": {"steps": 5, "targets": 2},
    "autoattack": {"prove": False},
    "fab": {"steps": 5},
    "fab_t": {"steps": 5, "targets": 2},
    "square": {"queries": 60},
    "pgd": {"steps": 5},
    "orthogonal_pgd": {"steps": 5},
    "foolbox.binarization_refinement": {},
    "foolbox.boundary": {"steps": 30},
    "foolbox.ddn": {"steps": 10},
    "foolbox.ead": {"steps": 10, "binary_search_steps": 2, "initial_const": 1.0},
    "foolbox.gaussian_blur": {"steps": 10},
    "foolbox.gen": {"steps": 4, "population": 4},
    "foolbox.hop_skip_jump": {"steps": 2, "initial_gradient_eval_steps": 8, "max_gradient_eval_steps": 16},
    "foolbox.l0_fmn": {"steps": 80},
    "foolbox.l1_fmn": {"steps": 10},
    "foolbox.l2_fmn": {"steps": 10},
    "foolbox.linf_fmn": {"steps": 10},
    "foolbox.l2_carlini_wagner": {"steps": 10, "binary_search_steps": 2, "stepsize": 0.1, "initial_const": 1.0},
    "foolbox.linear_search_blended_uniform_noise": {"steps": 10, "directions": 20},
    "foolbox.linear_search_contrast_reduction": {"steps": 10},
    "foolbox.salt_and_pepper_noise": {"steps": 20},
    "foolbox.virtual_adversarial": {"steps": 3, "xi": 0.01},
}


def attack(name: str) -> Attack:
    return registry.build(name, BUDGET.get(name, {}))


def run(name: str, x: torch.Tensor, y: torch.Tensor, start: int = 0, bounds: Bounds = Bounds(0, 1)) -> torch.Tensor:  # noqa: B008
    made = attack(name)
    epsilon = None if made.minimal else EPSILON[made.norm] * (bounds.high - bounds.low)
    return made.run(digits.model(bounds), x, y, epsilon, digits.streams(len(x), start))


def distance(a: torch.Tensor, b: torch.Tensor, norm: str) -> torch.Tensor:
    order = {"l0": 0, "l1": 1, "l2": 2, "linf": float("inf")}[norm]
    return torch.linalg.vector_norm((a.double() - b.double()).flatten(1), order, dim=1)


@pytest.fixture(scope="module")
def whole() -> dict[str, torch.Tensor]:
    """Each attack's result on one batch of eight, made once."""
    return {}


def result(name: str, whole: dict[str, torch.Tensor]) -> torch.Tensor:
    if name not in whole:
        whole[name] = run(name, *digits.right(8))
    return whole[name]


@pytest.mark.parametrize("name", USABLE)
def test_stays_in_bounds_and_in_the_ball(name: str, whole: dict[str, torch.Tensor]) -> None:
    x, _ = digits.right(8)
    adversarial = result(name, whole)
    assert adversarial.shape == x.shape
    assert adversarial.dtype == x.dtype
    assert not adversarial.requires_grad
    assert adversarial.isfinite().all()
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    made = attack(name)
    if not made.minimal:
        assert distance(adversarial, x, made.norm).max() <= EPSILON[made.norm] + 1e-7


@pytest.mark.parametrize("name", USABLE)
def test_a_split_batch_gives_the_same_results(name: str, whole: dict[str, torch.Tensor]) -> None:
    x, y = digits.right(8)
    halves = torch.cat([run(name, x[:4], y[:4]), run(name, x[4:], y[4:], start=4)])
    together = result(name, whole)
    verdicts = [digits.module()(a).argmax(1) != y for a in (halves, together)]
    near = distance(halves, together, "linf") < 2e-3  # sums are rounded differently in batches of other sizes
    assert int(near.sum()) >= 7, distance(halves, together, "linf")
    assert torch.equal(*verdicts)


@pytest.mark.parametrize("name", USABLE)
def test_is_deterministic_and_leaves_model_inputs_and_generators_alone(
    name: str, whole: dict[str, torch.Tensor]
) -> None:
    x, y = digits.right(8)
    expected = result(name, whole)
    net, kept = digits.module(), x.clone()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state(), python_random.getstate()
    again = run(name, x, y)
    assert torch.equal(again, expected)
    assert torch.equal(x, kept)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not net.training
    assert torch.equal(torch.get_rng_state(), states[0])
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), states[1], strict=True))
    assert python_random.getstate() == states[2]


@pytest.mark.parametrize("name", USABLE)
def test_takes_an_empty_batch_and_a_batch_of_one(name: str) -> None:
    x, y = digits.right(1)
    assert run(name, x, y).shape == x.shape
    assert run(name, x[:0], y[:0]).shape == (0, *x.shape[1:])


@pytest.mark.parametrize("name", USABLE)
def test_means_the_same_in_other_bounds(name: str, whole: dict[str, torch.Tensor]) -> None:
    bounds = Bounds(-1.0, 3.0)
    x, y = digits.right(8, bounds)
    adversarial = run(name, x, y, bounds=bounds)
    made = attack(name)
    assert adversarial.min() >= bounds.low
    assert adversarial.max() <= bounds.high
    if not made.minimal:
        assert distance(adversarial, x, made.norm).max() <= 4 * EPSILON[made.norm] + 4e-7
    broken = digits.model(bounds).logits(adversarial).argmax(1) != y
    reference = digits.module()(result(name, whole)).argmax(1) != y
    assert int((broken == reference).sum()) >= 6  # a descent in other units is rounded differently


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_attack_says_why_and_what_to_use(name: str) -> None:
    with pytest.raises(ValidationError, match=rf"(?s){name} is refused: it .*use foolbox\."):
        registry.build(name, {})


@pytest.mark.parametrize("name", OURS)
def test_has_a_help_line_and_norms(name: str) -> None:
    cls = registry.get(name)
    assert cls.summary().endswith(".")
    assert cls.norms
    assert "torch" in cls.requires
