import numpy as np
import pytest
import torch
from pydantic import ValidationError

import attacks.fgsm  # noqa: F401 - registers the attack
import tests.detectors.plugins  # noqa: F401 - registers a model and its data
from adapters.cnn import Cnn
from adapters.quantised import Quantised
from adapters.refusing import Refusing
from bench import contracts, measure, plugins, resolve
from bench.contracts import DatasetChoice, Norm
from bench.errors import PluginError
from bench.metrics import robustness
from bench.records import REFUSED
from bench.resolve import Resolver
from bench.store import Store
from bench.suite import Suite
from bench.worker import Measured, TrainTask, Worker
from tests.detectors import nets

plugins.load_built_in()
FIT_ON = DatasetChoice(dataset="t_near")


class Silent(contracts.Report):
    def step(self, done: int, total: int, **figures: float) -> None: ...


def refusing(**detector_args) -> contracts.Classifier:
    adapter = Refusing(adapter="t_small", detector_args=detector_args, fit_on=FIT_ON)
    weights = adapter.training().train(contracts.datasets.build("t_near", {"split": "train"}).load(), None, 0, Silent())
    return adapter.build(weights)


def test_it_refuses_what_its_detector_flags_and_answers_the_rest_as_the_model_inside() -> None:
    model, samples = refusing(quantile=0.5), nets.samples(30, seed=4)
    x = samples.fetch(np.arange(30))
    refused = model.refuses(x).numpy()
    assert 0 < refused.sum() < 30
    assert torch.equal(model.logits(x), nets.model().logits(x))
    table = measure.clean(model, samples, np.arange(30)).to_pydict()
    expected = np.where(refused, REFUSED, nets.logits(x).argmax(axis=1))
    assert (np.array(table["prediction"]) == expected).all()


def test_a_refusal_costs_coverage_and_is_no_right_answer() -> None:
    model, samples = refusing(quantile=0.5), nets.samples(60, seed=4)
    table = measure.clean(model, samples, np.arange(60))
    plain = measure.clean(nets.model(), samples, np.arange(60))
    found = robustness.refusals(table)
    refused = model.refuses(samples.fetch(np.arange(60))).numpy()
    right = nets.logits(samples.fetch(np.arange(60))).argmax(axis=1) == samples.labels
    assert found["coverage"].value == (~refused).mean()
    assert found["answered_accuracy"].value == pytest.approx(right[~refused].mean())
    assert robustness.clean_accuracy(table).value == (right & ~refused).mean()
    assert robustness.refusals(plain) == {}


def test_an_adversarial_input_that_is_refused_has_not_broken_the_model() -> None:
    samples = nets.samples(80, seed=4)
    attack = contracts.attacks.build("fgsm", {"norm": Norm.LINF})

    def struck(model: contracts.Classifier) -> dict[str, list]:
        return measure.attacked(attack, (0.4,), "test", model, samples, np.arange(80), 0).to_pydict()

    guarded, plain = struck(refusing(quantile=0.8)), struck(nets.model())
    answered = np.array(guarded["prediction"]) != REFUSED
    noticed = np.array(guarded["adversarial_prediction"]) == REFUSED
    broken, broken_plain = (np.array(found["broken"])[:, 0] for found in (guarded, plain))
    assert broken[~answered].all()  # it had no right answer to begin with
    assert (answered & broken_plain & ~broken).sum() > 0
    assert not (answered & noticed & broken).any()


def test_a_suite_trains_it_as_a_task_and_its_key_knows_the_detector(tmp_path) -> None:
    def resolver(quantile: float) -> Resolver:
        args = {"adapter": "t_small", "detector_args": {"quantile": quantile}, "fit_on": {"dataset": "t_near"}}
        models = [{"name": "guarded", "adapter": "refusing", "args": args}]
        asked = Suite.model_validate({"name": "s", "models": models, "datasets": [{"dataset": "t_near"}]})
        return Resolver(Store(str(tmp_path)), asked, "hardware")

    [task] = resolver(0.5).resolve()[1]
    assert isinstance(task, TrainTask)
    assert task.key != resolver(0.6).resolve()[1][0].key
    store = Store(str(tmp_path))
    made = Worker([], store.blob).train(task, Silent())
    assert isinstance(made, Measured)
    store.set_trained(task.key, store.put_blob(made.data))
    resolved, todo = resolver(0.5).resolve()
    assert todo == []
    outcome = Worker([], store.blob).run(next(next(resolved.cells()).tasks()))
    assert isinstance(outcome, Measured)


def test_what_cannot_refuse_is_told_before_anything_runs() -> None:
    with pytest.raises(ValidationError, match="'energy' has no threshold to refuse by"):
        Refusing(adapter="t_small", detector="energy", fit_on=FIT_ON)
    with pytest.raises(PluginError, match="no adapter 't_smal'"):
        Refusing(adapter="t_smal", fit_on=FIT_ON)
    with pytest.raises(ValidationError, match="already has a detector"):
        Refusing(adapter="refusing", fit_on=FIT_ON)
    with pytest.raises(PluginError, match="without its detector's state"):
        Refusing(adapter="t_small", fit_on=FIT_ON).build(None)
    with pytest.raises(PluginError, match="no weights of adapter 'refusing'"):
        Refusing(adapter="t_small", fit_on=FIT_ON).build(b"something")


TEACHER = {"adapter": "small_cnn", "args": {"epochs": 1}}
MODELS = {
    "the model that refuses": (Refusing, {"adapter": "t_small", "fit_on": FIT_ON}, "t_small"),
    "its detector": (Refusing, {"adapter": "t_small", "fit_on": FIT_ON}, "odin_pca"),
    "a teacher": (Cnn, {"data": {"dataset": "digits"}, "train": {"teacher": TEACHER}}, "small_cnn"),
    "the teacher of what is quantised": (
        Quantised,
        {"model": {"adapter": "cnn"}, "scheme": "b", "train": {"teacher": {"adapter": "small_cnn"}}},
        "small_cnn",
    ),
    "the control of what is quantised": (Quantised, {"model": {"adapter": "cnn"}}, "cnn"),
}


@pytest.mark.parametrize(("adapter", "fields", "inside"), MODELS.values(), ids=MODELS)
def test_the_source_of_what_is_inside_is_a_part_of_the_identity(adapter, fields, inside, monkeypatch) -> None:
    model = adapter(**fields)
    before = resolve._source(model)
    assert resolve._source(adapter(**fields)) == before
    edited = (contracts.adapters if inside in contracts.adapters else contracts.detectors).get(inside)
    real = resolve.source_digest
    monkeypatch.setattr(resolve, "source_digest", lambda cls: "edited" if cls is edited else real(cls))
    assert resolve._source(model) != before
