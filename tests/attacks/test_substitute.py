"""The substitute attack: what it asks, what it learns from, and that a suite's line is all it needs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import attacks.fgsm  # registers the attack inside
import tests.detectors.plugins  # noqa: F401 - registers a model and its data
from attacks.substitute import Imitation, Substitute
from bench import plugins
from bench.contracts import Bounds, Classifier, Samples
from bench.errors import GauntletError, PluginError
from bench.measure import attacked
from bench.records import decode
from bench.resolve import Resolver
from bench.store import Store
from bench.suite import Suite
from bench.worker import Measured, Worker
from tests.attacks import digits
from tests.detectors.nets import Quiet

plugins.load_built_in()


def samples(x: Tensor, y: Tensor) -> Samples:
    return Samples(y.numpy(), lambda i: x[torch.from_numpy(i)], (1, 8, 8), Bounds(0, 1), ("",) * 10, "digest")


def training_half() -> Samples:
    x, y = digits.data()
    return samples(x[:1200], y[:1200])


class Spied(digits.DigitsNet):
    """Keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(digits.module())
        self.asked: list[Tensor] = []

    def logits(self, x: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        self.asked.append(x)
        return super().logits(x)


def test_it_asks_for_150_images_and_for_as_many_variations_as_there_are_inputs_between_two_trainings() -> None:
    model, data = Spied(), training_half()
    attack = Substitute(attack="fgsm", epochs=1)
    learnt = attack.restore(attack.fit(model, data, 0))
    asked = torch.cat(model.asked)
    assert len(asked) == learnt.fit_queries == 150 * 2**5
    seeds = asked[:150]
    assert all((data.fetch(np.arange(1200)) == seed).flatten(1).all(1).any() for seed in seeds)
    moved = (asked[150:300] - seeds).abs()  # the first variations: .1 up or down, unless the bounds are in the way
    free = ((seeds > 0.1) & (seeds < 0.9)) & (moved > 0)
    torch.testing.assert_close(moved[free], torch.full_like(moved[free], 0.1))
    assert float(free.sum() / ((seeds > 0.1) & (seeds < 0.9)).sum()) > 0.95
    assert float(asked.min()) >= 0
    assert float(asked.max()) <= 1


def test_the_variations_lower_or_raise_the_inputs_own_class_along_its_gradient() -> None:
    attack, (x, _) = Substitute(attack="fgsm"), digits.right(20)
    torch.manual_seed(0)
    pupil = Imitation(digits.model(), (30,))
    y = pupil.logits(x).argmax(1)
    moved = attack._varied(pupil, x, y)
    leaf = x.clone().requires_grad_()
    own = pupil.logits(leaf).softmax(1).gather(1, y[:, None]).sum()  # the paper's: of the probability itself
    (slope,) = torch.autograd.grad(own, leaf)
    assert torch.equal(moved, (x + 0.1 * slope.sign()).clamp(0, 1))


def test_the_substitute_agrees_with_the_model_and_its_examples_transfer_better_than_noise() -> None:
    model, (x, y) = digits.model(), digits.right(200)
    attack = Substitute(attack="fgsm")
    learnt = attack.restore(attack.fit(model, training_half(), 0))
    pupil = Imitation(model, attack.hidden)
    pupil.net.load_state_dict({name: value for name, value in learnt._state.items() if name != "queries"})
    with torch.no_grad():
        assert float((pupil.logits(x).argmax(1) == y).float().mean()) > 0.8  # of ten classes, from 150 images
    found = attacked(learnt, (0.3,), "t", model, samples(x, y), np.arange(200), 0).to_pydict()
    noise = (x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).sign()).clamp(0, 1)
    by_noise = int((model.logits(noise).argmax(1) != y).sum())
    assert sum(map(sum, found["broken"])) > 1.5 * by_noise
    assert set(found["forwards"]) == {0.0}  # the model is not asked again
    assert set(found["fit_queries"]) == {4800}


def test_it_is_taught_alike_for_one_seed_and_leaves_generators_and_model_alone() -> None:
    attack = Substitute(attack="fgsm", epochs=1, rounds=2)
    before = torch.get_rng_state()
    once, again = (attack.fit(digits.model(), training_half(), 3) for _ in range(2))
    assert once == again
    assert once != attack.fit(digits.model(), training_half(), 4)
    assert torch.equal(torch.get_rng_state(), before)


class Shy(digits.DigitsNet):
    """Refuses bright images, or all."""

    can_refuse = True
    limit = 0.3

    def refuses(self, x: Tensor) -> Tensor:
        return x.flatten(1).mean(1).cpu() > self.limit


def test_what_is_refused_is_a_query_that_teaches_nothing() -> None:
    attack = Substitute(attack="fgsm", epochs=1, rounds=1)
    x, _ = digits.data()
    dark = x.flatten(1).mean(1) <= Shy.limit
    assert 0 < int(dark[:1200].sum()) < 1200
    learnt = attack.restore(attack.fit(Shy(digits.module()), training_half(), 0))
    assert learnt.fit_queries == 150
    two = attack.model_copy(update={"rounds": 2})
    assert 150 < two.restore(two.fit(Shy(digits.module()), training_half(), 0)).fit_queries < 300
    silent = Shy(digits.module())
    silent.limit = -1.0
    with pytest.raises(PluginError, match="refused every input"):
        attack.fit(silent, training_half(), 0)


def test_it_says_what_is_wrong_before_it_asks() -> None:
    with pytest.raises(PluginError, match="starts from 150 images, and there are 20"):
        Substitute().fit(digits.model(), samples(*digits.right(20)), 0)
    with pytest.raises(PluginError, match="has not been taught"):
        Substitute().run(digits.model(), *digits.right(1), 0.1, digits.streams(1))
    with pytest.raises(PluginError, match="smallest distance"):
        Substitute(attack="cw", norm="l2")


# --- in a suite


def suite(**attack: object) -> Suite:
    args = {"attack": "fgsm", "images": 30, "rounds": 2, "epochs": 2, "hidden": [16]}
    entry = {"attack": "substitute", "norm": "linf", "epsilons": [0.1, 0.3], "args": args, **attack}
    return Suite.model_validate(
        {
            "name": "learns",
            "models": [{"name": "net", "adapter": "t_small"}],
            "datasets": [{"dataset": "t_near"}],
            "evaluations": {"attacks": [entry]},
            "resources": {"batch_size": 16},
        }
    )


def test_a_line_in_a_suite_is_fitted_once_per_model_on_the_training_split_and_tasks_share_it(tmp_path: Path) -> None:
    store, asked = Store(str(tmp_path)), suite()
    [task] = Resolver(store, asked, "hardware").resolve()[1]
    assert (task.label, task.data.split) == ("substitute on net", "train")
    outcome = Worker([], store.blob).fit(task, Quiet())
    assert isinstance(outcome, Measured), outcome
    assert outcome.data == Worker([], store.blob).fit(task, Quiet()).data
    store.set_trained(task.key, store.put_blob(outcome.data), outcome.seconds)
    resolved, todo = Resolver(store, asked, "hardware").resolve()
    assert todo == []
    [plan] = resolved.cells("*/substitute")
    assert plan.fit is not None
    tasks = list(plan.tasks())
    assert len(tasks) > 1
    worker = Worker([], store.blob)
    made = [worker.run(task) for task in tasks]
    assert all(isinstance(one, Measured) for one in made), made
    assert [Worker([], store.blob).run(task).data for task in reversed(tasks)] == [one.data for one in made][::-1]
    assert set(decode(made[0].data)["fit_queries"].to_pylist()) == {60}
    assert {"fit_queries/substitute", "fit_seconds/substitute"} <= set(asked.metric_names())


def test_it_does_not_learn_from_what_it_attacks(tmp_path: Path) -> None:
    same = suite(fit_on={"dataset": "t_near", "split": "test"})
    with pytest.raises(GauntletError, match="would learn from the samples of 't_near' that it attacks"):
        Resolver(Store(str(tmp_path)), same, "hardware").resolve()


class Unasked(Classifier):
    """A model that must not be asked."""

    input_shape, bounds, classes = (1, 8, 8), Bounds(0, 1), 10

    def logits(self, x: Tensor) -> Tensor:
        raise AssertionError


def test_an_attack_in_progress_puts_no_query_to_the_model() -> None:
    attack = Substitute(attack="fgsm", epochs=1, rounds=1)
    learnt = attack.restore(attack.fit(digits.model(), training_half(), 0))
    x, y = digits.right(5)
    moved = learnt.run(Unasked(), x, y, 0.1, digits.streams(5))
    assert float((moved - x).abs().max()) <= 0.1 + 1e-6
    assert attacks.fgsm.FastGradientSign in {type(part) for part in learnt.inner_plugins()}
