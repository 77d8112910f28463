"""Ensembles, snapshots and Outlier Exposure: trained in a second on digits."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import adapters.binarised
import adapters.cnn
import adapters.digits
import adapters.outlier_sets  # noqa: F401 - both register data sets
from adapters.ensemble import EnsembleAdapter, EnsembleClassifier, opened
from adapters.odin_cnn import OdinCnn
from adapters.outlier_exposure import Exposure, to_uniform
from adapters.recipe import Recipe, train
from adapters.smoothed import SmoothedClassifier
from bench.contracts import DatasetChoice, Gradients, Report, datasets
from bench.errors import PluginError
from bench.randomness import seed_of

KNOWN = DatasetChoice(dataset="classes_of", args={"dataset": "digits", "classes": [0, 1, 2]})
NET = {"data": KNOWN.model_dump(), "classes": 3, "size": 8, "padding": 1, "epochs": 2}
NOISE = DatasetChoice(dataset="noise", split="test", args={"kind": "gaussian", "input_shape": [1, 8, 8], "size": 200})


class Noted(Report):
    def __init__(self, saved: bytes | None = None) -> None:
        self.kept, self.steps = saved, []

    def step(self, done: int, total: int, **figures: float) -> None:
        self.steps.append((done, total))

    def saved(self) -> bytes | None:
        return self.kept

    def save(self, state: bytes) -> None:
        self.kept = state


def samples(split: str = "train"):
    return datasets.build("classes_of", {**KNOWN.args, "split": split}).load()


@pytest.fixture(scope="module")
def made() -> tuple[bytes, Noted]:
    report = Noted()
    return EnsembleAdapter(adapter="odin_cnn", args=NET, members=2).training().train(samples(), None, 3, report), report


def test_an_ensemble_is_the_mean_of_nets_trained_from_seeds_of_their_own(made) -> None:
    weights, report = made
    model = EnsembleAdapter(adapter="odin_cnn", args=NET, members=2).build(weights)
    x = samples("test").fetch(np.arange(20))
    alone = OdinCnn(**NET)
    for number, part in enumerate(opened(weights)):
        assert part == alone.training().train(samples(), None, seed_of(3, "member", number), Noted())
    with torch.no_grad():
        each = [alone.build(part).logits(x).softmax(dim=1) for part in opened(weights)]
        assert torch.allclose(model.logits(x).exp(), torch.stack(each).mean(dim=0), atol=1e-6)
        assert torch.equal(model.members()[1].logits(x).softmax(dim=1), each[1])
    assert not torch.equal(each[0], each[1])
    assert report.steps == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_training_of_an_ensemble_that_was_killed_keeps_the_members_it_has(made) -> None:
    weights, report = made
    again = Noted(report.kept)
    assert len(opened(report.kept)) == 1
    adapter = EnsembleAdapter(adapter="odin_cnn", args=NET, members=2)
    assert adapter.training().train(samples(), None, 3, again) == weights
    assert again.steps == [(3, 4), (4, 4)]


def test_mistakes_of_an_ensemble_are_told(made) -> None:
    with pytest.raises(ValidationError, match="is not trained here"):
        EnsembleAdapter(adapter="odin_cnn", args={**NET, "weights": "net.safetensors"})
    with pytest.raises(PluginError, match="weights of 2 members, not of 3"):
        EnsembleAdapter(adapter="odin_cnn", args=NET, members=3).build(made[0])
    with pytest.raises(PluginError, match="no weights of adapter 'ensemble'"):
        EnsembleAdapter(adapter="odin_cnn", args=NET).build(b"abc\n")


def test_an_ensemble_of_different_models_trains_each_by_its_own_recipe_and_is_as_differentiable_as_the_worst() -> None:
    data = {"dataset": "digits"}
    train = {"epochs": 1, "batch_size": 200}
    of = [
        {"adapter": "cnn", "args": {"data": data, "channels": [2], "hidden": [4], "train": train}},
        {"adapter": "binarised", "args": {"data": data, "width": 2, "train": train}},
    ]
    adapter = EnsembleAdapter.model_validate(EnsembleAdapter(of=of).model_dump(mode="json"))  # as a worker builds it
    digits = datasets.build("digits", {"split": "train"}).load()
    weights = adapter.training().train(digits, None, 3, Noted())
    model = adapter.build(weights)
    for number, (kind, part) in enumerate(zip(adapter.kinds(), opened(weights), strict=True)):
        assert part == kind.training().train(digits, None, seed_of(3, "member", number), Noted())
    x = digits.fetch(np.arange(5))
    with torch.no_grad():
        each = torch.stack([member.logits(x).softmax(1) for member in model.members()])
        torch.testing.assert_close(model.logits(x).exp(), each.mean(0))
    assert model.gradients is Gradients.SURROGATE
    assert {plugin.name for plugin in adapter.inner_plugins()} == {"cnn", "binarised"}
    other = [of[0], {"adapter": "cnn", "args": {"data": {"dataset": "mnist"}}}]
    for wrong, message in (
        ({"of": of, "adapter": "cnn"}, "either `adapter:`"), ({}, "either `adapter:`"), ({"of": of[:1]}, "two members"),
        ({"of": of, "members": 2}, "two members"), ({"of": other}, "has other data than the first"),
    ):  # fmt: skip
        with pytest.raises(ValidationError, match=message):
            EnsembleAdapter(**wrong)


def test_an_ensemble_does_not_lose_what_members_refuse_or_the_noise_they_add(made) -> None:
    member = EnsembleAdapter(adapter="odin_cnn", args=NET, members=2).build(made[0]).members()[0]
    with pytest.raises(PluginError, match="would be lost"):
        EnsembleClassifier([member, SmoothedClassifier(member, 0.1)])
    assert len(SmoothedClassifier(EnsembleClassifier([member, member]), 0.1).members()) == 2


def test_snapshots_are_the_nets_of_shorter_trainings_and_leave_the_last_one_as_it_was() -> None:
    args = {**NET, "epochs": 5}
    grown = OdinCnn(**args, snapshots=3)
    assert grown.kept() == [2, 4, 5]
    model = grown.build(grown.training().train(samples(), None, 1, Noted()))
    x = samples("test").fetch(np.arange(10))
    for member, epochs in zip(model.members(), (2, 4, 5), strict=True):
        other = OdinCnn(**{**args, "epochs": epochs})
        same = other.build(other.training().train(samples(), None, 1, Noted()))
        with torch.no_grad():
            assert torch.equal(member.logits(x), same.logits(x))
    assert model.members()[-1] is model
    assert other.build(other.training().train(samples(), None, 1, Noted())).members() == ()
    for wrong in (1, 5):
        with pytest.raises(ValidationError, match="0, or 2 to 4 for 5 epochs"):
            OdinCnn(**args, snapshots=wrong)


def test_the_outliers_loss_is_the_papers() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 0.0, 0.0]])
    uniform = torch.full((2, 3), 1 / 3)
    assert to_uniform(logits) == pytest.approx(float(torch.nn.functional.cross_entropy(logits, uniform)))
    net = torch.nn.Linear(4, 3)
    exposed = Exposure(outliers=NOISE, weight=0.25).loss(lambda net, x, y, rows: net(x).sum(), torch.ones(7, 4))
    x = torch.zeros(2, 4)
    with torch.no_grad():
        expected = float(net(x).sum() + 0.25 * to_uniform(net(torch.ones(2, 4))))
        assert float(exposed(net, x, x, x)) == pytest.approx(expected)


def test_a_net_that_was_shown_outliers_is_unsure_of_others_of_their_kind() -> None:
    entropy = {}
    other = datasets.build("noise", {**NOISE.args, "seed": 5, "split": "test"}).load().fetch(np.arange(100))
    for name, exposure in {"plain": None, "exposed": Exposure(outliers=NOISE)}.items():
        adapter = OdinCnn(**{**NET, "epochs": 15}, exposure=exposure)
        model = adapter.build(adapter.training().train(samples(), None, 0, Noted()))
        with torch.no_grad():
            entropy[name] = float(torch.special.entr(model.logits(other).softmax(dim=1)).sum(dim=1).mean())
    assert entropy["exposed"] > 0.9 * np.log(3)
    assert entropy["exposed"] > entropy["plain"] + 0.2
    assert adapter.training().also == (NOISE,)


def test_every_family_can_be_shown_outliers_and_resumes_with_the_same_bits() -> None:
    x, y = samples().fetch(np.arange(200)), torch.from_numpy(samples().labels[:200])

    def trained(report: Report, exposure: Exposure | None) -> torch.Tensor:
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
        train(net, x, y, Recipe(epochs=2, batch_size=50, exposure=exposure), seed=0, report=report)
        return net[1].weight.detach()

    exposed = trained(Noted(), Exposure(outliers=NOISE))
    assert torch.equal(exposed, trained(Noted(), Exposure(outliers=NOISE)))
    assert not torch.equal(exposed, trained(Noted(), None))


def test_outliers_of_another_shape_are_refused_before_the_training() -> None:
    wrong = NOISE.model_copy(update={"args": {**NOISE.args, "input_shape": [1, 9, 9]}})
    with pytest.raises(PluginError, match=r"shape \(1, 8, 8\), the outliers of the training are \(1, 9, 9\)"):
        OdinCnn(**NET, exposure=Exposure(outliers=wrong)).training().train(samples(), None, 0, Noted())
