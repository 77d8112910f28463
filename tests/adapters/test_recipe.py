"""Trainings: the same bits when killed and resumed, schedules and adversaries as their sources have them."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from scipy import special, stats
from torch import nn

from adapters import recipe as recipes
from adapters.digits import Digits
from adapters.family import tensors
from adapters.recipe import Recipe, noisy, rate, train
from adapters.recipe_adversary import Adversary, craft, epsilons
from bench.contracts import Bounds, Report
from bench.errors import PluginError

UNIT = Bounds(0.0, 1.0)


class Killed(Exception):
    pass


class Keeping(Report):
    """Keeps states, and dies at the `dies`-th one."""

    def __init__(self, state: bytes | None = None, dies: int | None = None) -> None:
        self.state, self.dies, self.saves = state, dies, 0
        self.curves: list[dict[str, float]] = []
        self.steps: list[tuple[int, int]] = []

    def step(self, done: int, total: int, **figures: float) -> None:
        self.steps.append((done, total))
        if figures:
            self.curves.append(figures)

    def saved(self) -> bytes | None:
        return self.state

    def save(self, state: bytes) -> None:
        self.state, self.saves = state, self.saves + 1
        if self.saves == self.dies:
            raise Killed


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [nn.Conv2d(1, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(72, 10))


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    found = Digits(split="train").load()
    return found.fetch(np.arange(400)), torch.from_numpy(found.labels[:400])


def trained(digits, recipe: Recipe, report: Report, **options) -> nn.Sequential:
    made = net()
    train(made, *digits, recipe, seed=3, report=report, **options)
    assert not any(module.training for module in made.modules())
    return made


def same(a: nn.Module, b: nn.Module) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("optimiser", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("adversary", [None, {"kind": "fgsm", "spread": 0.1}, {"kind": "pgd", "steps": 2}])
def test_a_training_killed_midway_ends_with_the_bits_of_an_undisturbed_one(digits, optimiser, adversary, monkeypatch):
    recipe = Recipe(epochs=3, batch_size=100, optimiser=optimiser, adversary=adversary, learning_rate=0.02)
    monkeypatch.setattr(recipes, "CHECKPOINT", float("inf"))
    undisturbed, never = trained(digits, recipe, whole := Keeping()), whole.saves
    assert never == 0, "checkpoints come by the clock"
    monkeypatch.setattr(recipes, "CHECKPOINT", 0.0)
    for dies in (2, 4, 7):  # in the middle of an epoch, and at the end of one
        report = Keeping(dies=dies)
        with pytest.raises(Killed):
            trained(digits, recipe, report)
        resumed = Keeping(report.state, dies=2)
        with pytest.raises(Killed):
            trained(digits, recipe, resumed)
        last = Keeping(resumed.state)
        assert same(trained(digits, recipe, last), undisturbed)
        assert last.curves == whole.curves, "the curves are whole, whoever began them"
        assert last.steps[-1] == (12, 12)
    assert len(whole.curves) == 3
    assert whole.curves[-1]["loss"] < whole.curves[0]["loss"]


def test_another_seed_or_recipe_gives_other_weights(digits):
    recipe = Recipe(epochs=1)
    other = net()
    train(other, *digits, recipe, seed=4, report=Keeping())
    assert not same(trained(digits, recipe, Keeping()), other)
    assert not same(trained(digits, recipe, Keeping()), trained(digits, Recipe(epochs=1, weight_decay=1), Keeping()))


def scheduled(name: str, optimiser: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    if name == "one_cycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.2, 60, cycle_momentum=False)
    return torch.optim.lr_scheduler.CyclicLR(optimiser, 0.05, 0.2, step_size_up=10, cycle_momentum=False)


@pytest.mark.parametrize("name", ["one_cycle", "cyclic"])
def test_learning_rates_are_those_of_torch(name):
    recipe = Recipe(schedule=name, learning_rate=0.2, cycle_epochs=4)
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.2)
    torchs = scheduled(name, optimiser)
    for step in range(60):
        assert rate(recipe, step, 60, epoch_steps=5) == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-9)
        optimiser.step()
        torchs.step()


def test_the_radii_follow_the_truncated_normal():
    adversary = Adversary(kind="fgsm", epsilon=0.3, spread=0.15)
    drawn = epsilons(adversary, 20_000, torch.Generator().manual_seed(0)).numpy()
    assert drawn.min() >= 0
    assert drawn.max() <= 0.3
    expected = stats.truncnorm(0, 2, scale=0.15)  # the positive half is |N| given |N| <= 2 sigma
    assert stats.kstest(drawn, expected.cdf).pvalue > 0.01
    assert stats.kstest(drawn, stats.truncnorm(0, 2, scale=0.16).cdf).pvalue < 0.01
    assert (epsilons(Adversary(kind="fgsm", epsilon=0.3), 5, torch.Generator()) == 0.3).all()


def prepared(digits) -> nn.Sequential:
    """A net in training mode whose running statistics are not those of any batch."""
    made = trained(digits, Recipe(epochs=10, learning_rate=0.01), Keeping())
    return made.train()


@pytest.mark.parametrize("kind", ["fgsm", "pgd"])
def test_examples_are_crafted_in_eval_mode_and_leave_the_net_as_it_was(digits, kind):
    made = prepared(digits)
    made[3].eval()  # a layer that its family keeps in eval mode
    before, modes = copy.deepcopy(made), [module.training for module in made.modules()]
    x, y = digits[0][:50], digits[1][:50]
    moved = craft(made, x, y, adversary := Adversary(kind=kind, epsilon=0.1), UNIT, torch.Generator().manual_seed(0))
    assert same(made, before)
    assert [module.training for module in made.modules()] == modes
    assert all(parameter.grad is None for parameter in made.parameters())
    as_attacked = craft(before.eval(), x, y, adversary, UNIT, torch.Generator().manual_seed(0))
    assert torch.equal(moved, as_attacked)
    assert (moved - x).abs().max() <= 0.1 + 1e-6
    assert moved.min() >= 0
    assert moved.max() <= 1
    with torch.no_grad():
        assert F.cross_entropy(before(moved), y) > F.cross_entropy(before(x), y) + 0.1


def test_batchnorm_learns_from_the_adversarial_batch_and_from_nothing_else(digits, monkeypatch):
    recipe = Recipe(epochs=1, batch_size=400, adversary={"kind": "fgsm", "epsilon": 0.1}, learning_rate=1e-9)
    made = trained(digits, recipe, Keeping())
    plain = net()
    order = torch.randperm(400, generator=recipes._stream(3, "order", 0))
    x, y = digits[0][order], digits[1][order]
    moved = craft(plain, x, y, recipe.adversary, UNIT, torch.Generator())
    maps = plain[0](moved)
    expected = 0.9 * 0 + 0.1 * maps.mean((0, 2, 3))
    torch.testing.assert_close(made[1].running_mean, expected, rtol=1e-4, atol=1e-6)
    assert (made[1].running_mean - 0.1 * plain[0](x).mean((0, 2, 3))).abs().max() > 1e-4


def test_fgsm_moves_away_from_the_prediction_so_that_no_label_leaks(digits):
    made = prepared(digits)
    x, adversary = digits[0][:50], Adversary(kind="fgsm", epsilon=0.1)
    wrong = (digits[1][:50] + 1) % 10
    examples = [craft(made, x, y, adversary, UNIT, torch.Generator()) for y in (digits[1][:50], wrong)]
    assert torch.equal(*examples)
    pgd = Adversary(kind="pgd", epsilon=0.1)
    stepped = [craft(made, x, y, pgd, UNIT, torch.Generator().manual_seed(0)) for y in (digits[1][:50], wrong)]
    assert not torch.equal(*stepped)


def test_adversarial_training_makes_a_net_more_robust(digits):
    def broken(adversary) -> float:
        made = trained(digits, Recipe(epochs=30, learning_rate=0.01, adversary=adversary), Keeping())
        attacked = craft(made, *digits, Adversary(kind="pgd", epsilon=0.1, steps=10), UNIT, torch.Generator())
        return float((made(attacked).argmax(1) != digits[1]).float().mean())

    assert broken({"kind": "pgd", "epsilon": 0.1, "steps": 5}) < broken(None) - 0.1


def test_the_last_epochs_alone_are_adversarial(digits):
    seen = []

    def loss(made, x, y, rows):
        seen.append(torch.equal(x, digits[0][rows]))
        return F.cross_entropy(made(x), y)

    adversary = {"kind": "fgsm", "last_epochs": 1, "clean_weight": 0.5}
    train(net(), *digits, Recipe(epochs=3, batch_size=400, adversary=adversary), seed=0, report=Keeping(), loss=loss)
    assert seen == [True, True, False, True]


def test_a_student_learns_what_its_teacher_says_against_the_labels(digits):
    x, y = digits
    teacher = trained(digits, Recipe(epochs=20, learning_rate=0.01), Keeping())
    says = teacher(x).argmax(1)
    recipe = Recipe(epochs=20, learning_rate=0.01, distillation=1.0, temperature=2)
    student = net(1)
    train(student, x, (y + 1) % 10, recipe, seed=0, report=Keeping(), teacher=teacher)
    assert (student(x).argmax(1) == says).float().mean() > 0.9


def test_the_loss_of_a_student_is_hintons_with_the_soft_part_times_t_squared(digits):
    """In NumPy: w T² H(softmax(t / T), softmax(s / T)) + (1 - w) H(y, softmax(s))."""
    x, y = digits[0][:32], digits[1][:32]
    student, teacher = net(1).eval(), net(2).eval()
    recipe = Recipe(temperature=3.0, distillation=0.7)
    found = recipes._loss(recipe, teacher)(student, x, y, torch.arange(32)).item()
    with torch.no_grad():
        s, t = (made(x).double().numpy() for made in (student, teacher))
    soft = -(special.softmax(t / 3, 1) * special.log_softmax(s / 3, 1)).sum(1).mean()
    hard = -special.log_softmax(s, 1)[np.arange(32), y.numpy()].mean()
    assert found == pytest.approx(0.7 * 9 * soft + 0.3 * hard, rel=1e-5)
    assert recipes._loss(recipe, None)(student, x, y, torch.arange(32)).item() == pytest.approx(hard, rel=1e-5)


def test_pgd_starts_anywhere_in_the_ball_and_inside_the_bounds():
    """One step that moves nothing shows the start: uniform between the ends that ball and bounds leave."""
    made, x = net().eval(), torch.full((400, 1, 8, 8), 0.5)
    x[:200] = 0.95
    still = Adversary(kind="pgd", epsilon=0.2, steps=1, step_size=1e-12)
    labels = torch.zeros(400, dtype=torch.int64)
    start = craft(made, x, labels, still, UNIT, torch.Generator().manual_seed(0)).flatten(1)
    for rows, low, high in ((start[200:], 0.3, 0.7), (start[:200], 0.75, 1.0)):
        assert stats.kstest(rows.flatten().numpy(), stats.uniform(low, high - low).cdf).pvalue > 0.01
    other = craft(made, x, labels, still, UNIT, torch.Generator().manual_seed(1)).flatten(1)
    assert not torch.equal(start, other)


def test_pgd_takes_the_steps_that_a_plain_loop_takes(digits):
    made, x, y = prepared(digits).eval(), digits[0][:20], digits[1][:20]
    found = craft(made, x, y, Adversary(kind="pgd", epsilon=0.1, steps=5), UNIT, torch.Generator().manual_seed(7))
    low, high = (x - 0.1).clamp(min=0), (x + 0.1).clamp(max=1)
    moved = low + (high - low) * torch.rand(x.shape, generator=torch.Generator().manual_seed(7))
    for _ in range(5):
        moved.requires_grad_()
        F.cross_entropy(made(moved), y).backward()
        moved = torch.minimum(torch.maximum(moved.detach() + 2.5 * 0.1 / 5 * moved.grad.sign(), low), high)
    torch.testing.assert_close(found, moved)


def test_so_many_labels_are_noisy_and_none_of_them_by_chance_right():
    y = torch.arange(1000) % 10
    changed = noisy(y, 0.25, seed=0)
    assert (changed != y).sum() == 250
    assert changed.max() == 9
    assert torch.equal(noisy(y, 0.0, seed=0), y)
    assert not torch.equal(noisy(y, 0.25, seed=1), changed)


def test_where_all_labels_are_equal_none_can_be_noisy():
    y = torch.zeros(8, dtype=torch.int64)
    assert torch.equal(noisy(y, 0.0, seed=0), y)
    assert torch.equal(noisy(y, 0.1, seed=0), y), "a tenth of eight, rounded down, is none"
    with pytest.raises(PluginError, match="two classes or more"):
        noisy(y, 0.5, seed=0)


def test_a_name_is_an_adversary_and_fgsm_takes_no_steps():
    assert Recipe(adversary="pgd").adversary == Adversary(kind="pgd")
    with pytest.raises(ValueError, match="fgsm takes one step: remove `steps`"):
        Recipe(adversary={"kind": "fgsm", "steps": 7})


def test_data_outside_the_unit_box_are_refused_before_a_net_is_trained_on_them():
    wide = dataclasses.replace(Digits(split="train").load(), bounds=Bounds(-1.0, 1.0))
    with pytest.raises(PluginError, match="from 0 to 1, but the training data lie between -1 and 1"):
        tensors(wide, wide.input_shape, 10)
