"""The engine, not the attack, decides what is broken: the classic lies of this field, each with a test."""

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.contracts import Attack, Bounds, Classifier, Detector, Gradients, Knowledge, Norm, Samples
from bench.detection import detected
from bench.errors import PluginError
from bench.measure import attacked, clean
from bench.metering import Metered, Passes, Untouched, predictions
from bench.randomness import SampleRandom
from bench.strikes import distances

N = 8


class Threshold(Classifier):
    """Two pixels; class 1 where the first is above a half. Scores are +-(x0 - .5)."""

    input_shape = (2,)
    bounds = Bounds(0, 1)
    classes = 2

    def __init__(self) -> None:
        self.net = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).eval().requires_grad_(False)
        self.net[0].weight.copy_(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
        self.net[0].bias.copy_(torch.tensor([0.5, -0.5]))

    @property
    def module(self) -> nn.Module:
        return self.net

    def logits(self, x: Tensor) -> Tensor:
        return self.net(x)


def samples() -> Samples:
    """First pixels .1 .. .8, labels by the threshold; sample 0 has the wrong label."""
    first = torch.linspace(0.1, 0.8, N)
    labels = (first > 0.5).long().numpy()
    labels[0] = 1
    x = torch.stack([first, torch.full((N,), 0.5)], dim=1)
    return Samples(labels, lambda i: x[torch.from_numpy(i)], (2,), Bounds(0, 1), ("low", "high"), "digest")


class Scripted(Attack):
    """Moves the first pixel across the threshold by what `move` says of epsilon."""

    norms: ClassVar[tuple[Norm, ...]] = tuple(Norm)
    norm: Norm = Norm.LINF
    move: float = 1.0
    log: ClassVar[list[tuple[float | None, int]]] = []

    def run(self, model: Classifier, x: Tensor, y: Tensor, epsilon: float | None, random: SampleRandom) -> Tensor:
        self.log.append((epsilon, len(x)))
        assert len(random) == len(x) == len(y)
        toward = torch.where(y == 1, -1.0, 1.0)
        moved = x.clone()
        moved[:, 0] += toward * (epsilon or 1.0) * self.move
        return moved


class Minimal(Scripted):
    minimal: ClassVar[bool] = True

    def run(self, model: Classifier, x: Tensor, y: Tensor, epsilon: float | None, random: SampleRandom) -> Tensor:
        assert epsilon is None
        moved = x.clone()
        moved[:, 0] = torch.where(y == 1, 0.499, 0.501)
        return moved


def attack_all(attack: Attack, epsilons: tuple[float, ...], model: Classifier | None = None) -> dict[str, list[Any]]:
    attack.log.clear()  # type: ignore[attr-defined]
    return attacked(attack, epsilons, "t", model or Threshold(), samples(), np.arange(N), seed=0).to_pydict()


def test_a_sample_that_is_wrong_untouched_is_broken_at_distance_0_and_is_not_attacked():
    found = attack_all(Scripted(), (0.05, 0.2))
    assert found["broken"][0] == [True, True]
    assert found["distance"][0] == 0
    assert found["forwards"][0] == 0
    assert Scripted.log[0] == (0.05, N - 1)


def test_epsilons_are_walked_upwards_and_only_what_stands_is_attacked():
    found = attack_all(Scripted(), (0.05, 0.15, 0.35))
    x0 = np.linspace(0.1, 0.8, N, dtype=np.float32)
    for row in range(1, N):
        expected = [abs(x0[row] - 0.5) < epsilon for epsilon in (0.05, 0.15, 0.35)]
        # the pixel at exactly the threshold ties, and argmax takes class 0, which is its label
        assert found["broken"][row] == expected, row
    counts = [count for _, count in Scripted.log]
    standing = [sum(not verdict[i] for verdict in found["broken"]) for i in range(3)]
    assert counts == [N - 1, standing[0], standing[1]]


def test_what_leaves_the_ball_or_the_bounds_is_not_counted_and_is_said():
    found = attack_all(Scripted(move=1.5), (0.1,))
    assert [verdict == [True] for verdict in found["broken"]] == [True] + [False] * (N - 1)
    assert found["escaped"] == [False] + [True] * (N - 1)
    assert found["distance"][1:] == [None] * (N - 1)

    class OutOfBounds(Scripted):
        def run(self, model: Classifier, x: Tensor, y: Tensor, epsilon: float | None, random: SampleRandom) -> Tensor:
            return x * 0 - 0.3

    found = attack_all(OutOfBounds(), (5.0,))
    assert found["escaped"] == [False] + [True] * (N - 1)


def test_an_overshoot_of_float32_rounding_counts_and_one_beyond_the_tolerance_does_not():
    near = attack_all(Scripted(move=1 + 5e-7), (0.35,))
    beyond = attack_all(Scripted(move=1 + 1e-4), (0.35,))
    assert sum(map(sum, near["broken"])) > 1
    assert sum(map(sum, beyond["broken"])) == 1


def test_an_attack_that_repairs_a_wrong_prediction_gets_no_say():
    """Foolbox reports such a sample as robust: it is wrong untouched, so it is broken."""

    class Repairs(Scripted):
        def run(self, model: Classifier, x: Tensor, y: Tensor, epsilon: float | None, random: SampleRandom) -> Tensor:
            moved = x.clone()
            moved[:, 0] = torch.where(y == 1, 0.9, 0.1)
            return moved

    found = attack_all(Repairs(), (1.0,))
    assert found["broken"] == [[True]] + [[False]] * (N - 1)


def test_a_minimal_attack_is_run_once_and_its_distance_decides_at_every_epsilon():
    found = attack_all(Minimal(norm=Norm.L2), (0.05, 0.15, 0.35))
    x0 = np.linspace(0.1, 0.8, N)
    for row in range(1, N):
        assert found["distance"][row] == pytest.approx(abs(x0[row] - (0.501 if x0[row] <= 0.5 else 0.499)), abs=1e-6)
        assert found["broken"][row] == [found["distance"][row] <= epsilon + 1e-6 for epsilon in (0.05, 0.15, 0.35)]


def test_an_attack_that_returns_nan_breaks_nothing():
    class Nan(Scripted):
        def run(self, model: Classifier, x: Tensor, y: Tensor, epsilon: float | None, random: SampleRandom) -> Tensor:
            return x * torch.nan

    found = attack_all(Nan(), (1.0,))
    assert sum(map(sum, found["broken"])) == 1


def test_an_attack_that_returns_another_shape_or_dtype_is_an_error():
    class Flat(Scripted):
        def run(self, model: Classifier, x: Tensor, y: Tensor, epsilon: float | None, random: SampleRandom) -> Tensor:
            return x.double()

    with pytest.raises(ValueError, match="float64"):
        attack_all(Flat(), (1.0,))


@pytest.mark.parametrize("meddle", ["weights", "mode", "frozen"])
def test_an_attack_that_changes_the_model_is_caught(meddle: str):
    class Meddles(Scripted):
        def run(self, model: Classifier, x: Tensor, y: Tensor, epsilon: float | None, random: SampleRandom) -> Tensor:
            assert model.module is not None
            if meddle == "weights":
                with torch.no_grad():
                    next(model.module.parameters()).mul_(1.01)
            elif meddle == "mode":
                model.module.train()  # the BatchNorm and dropout lie
            else:
                model.module.requires_grad_(True)
            return x

    with pytest.raises(PluginError, match="changed the model while it ran"):
        attack_all(Meddles(), (1.0,))


def test_a_white_box_attack_on_a_model_without_gradients_is_refused_with_what_to_do():
    model = Threshold()
    model.gradients = Gradients.NONE
    with pytest.raises(PluginError, match="needs gradients"):
        attack_all(Scripted(), (0.1,), model)

    class BlackBox(Scripted):
        knowledge: ClassVar[Knowledge] = Knowledge.DECISION

    assert sum(map(sum, attack_all(BlackBox(), (0.35,), model)["broken"])) > 1


def test_a_model_that_says_nan_is_never_right():
    class Silent(Threshold):
        def logits(self, x: Tensor) -> Tensor:
            return super().logits(x) * torch.nan

    found = clean(Silent(), samples(), np.arange(N)).to_pydict()
    assert found["prediction"] == [-1] * N
    assert predictions(torch.tensor([[0.0, 1.0], [torch.nan, 0.0]])).tolist() == [1, -1]


def test_passes_are_charged_to_the_samples_that_caused_them():
    passes = Passes.zero(4)
    metered = Metered(Threshold(), passes, np.array([0, 2, 3]))
    x = torch.rand(3, 2, requires_grad=True)
    metered.logits(x).sum().backward()
    metered.rows(torch.tensor([1])).logits(x[1:2].detach())
    metered.logits(torch.rand(6, 2))
    assert passes.forwards.tolist() == [3, 0, 4, 3]
    assert passes.backwards.tolist() == [1, 0, 1, 1]


def test_a_backward_pass_is_charged_to_the_samples_whose_scores_get_a_gradient():
    passes = Passes.zero(3)
    metered = Metered(Threshold(), passes, np.arange(3))
    metered.logits(torch.rand(3, 2, requires_grad=True))[[0, 2]].sum().backward()
    assert passes.backwards.tolist() == [1, 0, 1]


def test_the_guard_sees_a_buffer_that_moves():
    net = nn.BatchNorm1d(2).eval()

    class Normed(Threshold):
        @property
        def module(self) -> nn.Module:
            return net

    with pytest.raises(PluginError, match="running_mean"), Untouched(Normed(), "attack 'x'"):
        net.running_mean.add_(1)  # type: ignore[union-attr]


def test_norms_are_those_of_the_textbook():
    difference = torch.tensor([[[3.0, -4.0], [0.0, 0.0]]])
    assert [distances(norm, difference)[0] for norm in (Norm.L0, Norm.L1, Norm.L2, Norm.LINF)] == [2, 7, 5, 4]


def test_a_detector_that_says_nan_is_an_error():
    class Nan(Detector):
        def score(self, model: Classifier, x: Tensor, random: SampleRandom) -> np.ndarray:
            return np.full(len(x), np.nan)

    with pytest.raises(ValueError, match="never NaN"):
        detected(Nan(), False, Threshold(), samples(), np.arange(N), 0)


class Upside(Threshold):
    """Says the opposite: what fools it pushes the first pixel the other way."""

    def logits(self, x: Tensor) -> Tensor:
        return -super().logits(x)


class Descend(Scripted):
    """Follows the gradient of the model that it is given."""

    def run(self, model: Classifier, x: Tensor, y: Tensor, epsilon: float | None, random: SampleRandom) -> Tensor:
        self.log.append((epsilon, len(x)))
        leaf = x.detach().requires_grad_()
        loss = nn.functional.cross_entropy(model.logits(leaf), y, reduction="sum")
        (slope,) = torch.autograd.grad(loss, leaf)
        return (x + (epsilon or 1.0) * slope.sign()).clamp(0, 1)


def transferred(surrogate: Classifier | None) -> dict[str, list[Any]]:
    model = Threshold() if surrogate is None else surrogate
    judge = Threshold()
    found = attacked(
        Descend(), (0.35,), "t", judge, samples(), np.arange(N), 0, surrogate=None if surrogate is None else model
    )
    return found.to_pydict()


def test_what_is_crafted_on_another_model_is_judged_by_this_one():
    own, twin, upside = transferred(None), transferred(Threshold()), transferred(Upside())
    assert own["transferred"] == [None] * N
    assert twin["transferred"] == upside["transferred"] == [True] * N
    assert twin["broken"] == own["broken"]
    assert sum(map(sum, own["broken"])) == N - 1 or sum(map(sum, own["broken"])) > 4
    assert sum(map(sum, upside["broken"])) == 1, "pushed the wrong way, only what was wrong untouched is broken"


def test_the_model_itself_as_its_own_surrogate_is_the_control():
    model = Threshold()
    found = attacked(Descend(), (0.35,), "t", model, samples(), np.arange(N), 0, surrogate=model).to_pydict()
    assert found["transferred"] == [False] * N


def test_a_surrogate_of_other_inputs_is_refused_and_one_with_gradients_serves_a_model_without():
    other = Threshold()
    other.input_shape = (3,)
    with pytest.raises(PluginError, match="craft on a model that takes the same inputs"):
        transferred(other)
    judge = Threshold()
    judge.gradients = Gradients.NONE
    found = attacked(Descend(), (0.35,), "t", judge, samples(), np.arange(N), 0, surrogate=Threshold()).to_pydict()
    assert sum(map(sum, found["broken"])) > 1


@pytest.mark.parametrize("bounds", [Bounds(-1, 1), Bounds(0, 255)])
def test_data_that_reach_beyond_the_models_bounds_are_refused(bounds: Bounds) -> None:
    """Clipped to the model's bounds, an attack would leave the ball, and count as one that found nothing."""
    with pytest.raises(PluginError, match=f"from 0 to 1, and the data lie between {bounds.low} and {bounds.high}"):
        attacked(Scripted(), (0.1,), "t", Threshold(), replace(samples(), bounds=bounds), np.arange(N), 0)
    narrow = replace(samples(), bounds=Bounds(0.25, 0.75))
    assert len(clean(Threshold(), narrow, np.arange(N))) == N


def test_a_label_that_the_model_has_no_class_for_is_a_mistake_and_no_wrong_answer():
    shifted = replace(samples(), labels=samples().labels + 1)
    with pytest.raises(PluginError, match="the label 2 is none of the model's 2 classes, 0 to 1"):
        clean(Threshold(), shifted, np.arange(N))
