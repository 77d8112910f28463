"""attacks/foolbox.py: parameters, starting points, starts per sample, strength against Foolbox itself."""

import importlib.util
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from pydantic import ValidationError

import attacks.foolbox  # noqa: F401 - registers the attacks
from attacks.foolbox_import import Misclassification, PyTorchModel, exported
from attacks.foolbox_random import SampleDraws
from bench.contracts import attacks as registry
from bench.errors import PluginError
from tests.attacks import digits


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("ddn", {"step": 3}, "Extra inputs are not permitted"),
        ("ddn", {"steps": "10"}, "valid integer"),
        ("ddn", {"steps": 0}, "greater than or equal to 1"),
        ("ddn", {"gamma": float("nan")}, "finite"),
        ("ddn", {"norm": "linf"}, "has no norm 'linf'"),
        ("virtual_adversarial", {}, "Field required"),
        ("boundary", {"init_attack": "foolbox.salt_and_peper_noise"}, "did you mean 'foolbox.salt_and_pepper_noise'"),
        ("boundary", {"tensorboard": "logs"}, "nothing is written"),
        ("hop_skip_jump", {"stepsize_search": "grid_search"}, "mixes the samples"),
        ("hop_skip_jump", {"constraint": "linf"}, "set `norm`"),
    ],
)
def test_a_wrong_parameter_is_a_clear_error(name: str, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        registry.build(f"foolbox.{name}", wrong)


def test_every_class_that_foolbox_exports_has_a_name() -> None:
    classes = {cls.__name__ for cls in vars(exported).values() if isinstance(cls, type) and cls.__name__ != "Attack"}
    made = {registry.get(name).__name__ for name in registry if name.startswith("foolbox.")}
    assert made == {f"Foolbox{name}" for name in classes}


@pytest.mark.parametrize(("name", "theirs"), [("l2_deep_fool", exported.L2DeepFoolAttack), ("ddn", exported.DDNAttack)])
def test_finds_the_distances_that_foolbox_finds(name: str, theirs: Any) -> None:
    x, y = digits.right(24)
    found = registry.build(f"foolbox.{name}", {}).run(digits.model(), x, y, None, digits.streams(24))
    expected = theirs().run(PyTorchModel(digits.module(), bounds=(0, 1), device="cpu"), x, Misclassification(y))
    torch.testing.assert_close(
        (found - x).flatten(1).norm(dim=1), (expected - x).flatten(1).norm(dim=1), rtol=1e-4, atol=0
    )


class Stubborn(digits.DigitsNet):
    """Says class 3 to everything: a 3 has no starting point, and any other digit is its own."""

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.full((len(x),), 3), 10).float()


@pytest.mark.parametrize("name", ["boundary", "hop_skip_jump", "pointwise"])
def test_a_sample_without_a_starting_point_comes_back_as_it_was(name: str) -> None:
    x, _ = digits.right(2)
    init = {"init_attack": None} if name == "pointwise" else {}
    attack = registry.build(f"foolbox.{name}", init)
    moved = attack.run(Stubborn(digits.module()), x, torch.tensor([3, 3]), None, digits.streams(2))
    assert torch.equal(moved, x)


@pytest.mark.parametrize("name", ["boundary", "hop_skip_jump"])
def test_walks_nearer_than_its_start(name: str) -> None:
    x, y = digits.right(6)
    size = {}
    for steps in (1, 400 if name == "boundary" else 6):
        budget = {"steps": steps} | ({"initial_gradient_eval_steps": 30} if name == "hop_skip_jump" else {})
        moved = registry.build(f"foolbox.{name}", budget).run(digits.model(), x, y, None, digits.streams(6))
        assert bool((digits.module()(moved).argmax(1) != y).all())
        size[steps] = (moved - x).flatten(1).norm(dim=1).median()
    assert min(size) == 1
    assert size[max(size)] < 0.95 * size[1]


@pytest.mark.skipif(importlib.util.find_spec("numba") is not None, reason="numba is here")
def test_an_attack_that_needs_a_missing_package_names_it() -> None:
    with pytest.raises(ValidationError, match="needs the package numba: run `pip install numba` on every node"):
        registry.build("foolbox.l2_brendel_bethge", {})


def test_draws_belong_to_samples_and_others_are_refused() -> None:
    with SampleDraws(digits.streams(4), alone=False):
        whole = torch.rand((4, 3))
        with pytest.raises(PluginError, match="not one slice for each"):
            torch.randn(3, dtype=torch.float32, device="cpu")
        with pytest.raises(PluginError, match="randperm"):
            torch.randperm(4)
    with SampleDraws(digits.streams(2, 2), alone=False) as draws:
        part = torch.rand((2, 3))
        state = torch.get_rng_state()
        with draws.outside():
            torch.rand(3)
        assert not torch.equal(state, torch.get_rng_state())
    assert torch.equal(whole[2:], part)


class Fickle(digits.DigitsNet):
    """Answers one time in two with any class."""

    stochastic = True

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        other = torch.rand(len(x), 1, device=x.device) < 0.5
        return torch.where(other, torch.rand(len(x), 10, device=x.device), super().logits(x))


def test_a_model_that_changes_its_mind_about_a_starting_point_ends_no_batch() -> None:
    x, y = digits.right(6)
    torch.manual_seed(0)
    moved = registry.build("foolbox.boundary", {"steps": 3}).run(Fickle(digits.module()), x, y, None, digits.streams(6))
    assert moved.shape == x.shape
    assert (moved >= 0).all()
    assert (moved <= 1).all()


def test_no_program_called_git_is_needed() -> None:
    """GitPython, which Foolbox imports, refuses to be imported without one, as in a container."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_PYTHON")}
    words = [sys.executable, "-c", "import attacks.foolbox"]
    done = subprocess.run(words, env={**environment, "PATH": ""}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
