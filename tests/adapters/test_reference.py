import numpy as np
import pytest
import torch

import adapters.digits
from adapters.reference import SmallCnn, SmallCnnBinarised, SmallCnnPruned
from adapters.reference_nets import binary_weights, unpack
from adapters.torch_classifier import state_from_bytes, state_to_bytes
from bench.contracts import Gradients, Realisation, Report, Samples, datasets
from bench.contracts import adapters as registry
from bench.errors import PluginError
from bench.probes.macs import Macs

MODELS = [SmallCnn, SmallCnnBinarised, SmallCnnPruned]


class Quiet(Report):
    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []

    def step(self, done: int, total: int, **figures: float) -> None:
        assert np.isfinite(figures["loss"])
        self.steps.append((done, total))


def train(model, samples: Samples, parent: bytes | None = None, seed: int = 0) -> bytes:
    training = model.training()
    assert (training.parent is None) == (parent is None)
    return training.train(samples, parent, seed, Quiet())


@pytest.fixture(scope="module")
def digits() -> Samples:
    return datasets.build("digits", {"split": "train"}).load()


@pytest.fixture(scope="module")
def trained(digits) -> dict[str, bytes]:
    """The weights of all three, made as the quickstart makes them."""
    dense = train(SmallCnn(), digits)
    return {
        "small_cnn": dense,
        "small_cnn_binarised": train(SmallCnnBinarised(), digits),
        "small_cnn_pruned": train(SmallCnnPruned(), digits, dense),
    }


def accuracy(model, weights: bytes) -> float:
    test = datasets.build("digits", {"split": "test"}).load()
    with torch.no_grad():
        predicted = model.build(weights).logits(test.fetch(np.arange(len(test)))).argmax(1)
    return float((predicted.numpy() == test.labels).mean())


def test_on_held_out_digits_they_are_as_accurate_as_the_documentation_says(trained):
    dense = accuracy(SmallCnn(), trained["small_cnn"])
    assert dense >= 0.98
    assert accuracy(SmallCnnBinarised(), trained["small_cnn_binarised"]) >= 0.95
    assert accuracy(SmallCnnPruned(), trained["small_cnn_pruned"]) >= dense - 0.02


@pytest.mark.parametrize("model", [SmallCnn(epochs=2), SmallCnnBinarised(epochs=2), SmallCnnPruned(epochs=2)])
def test_training_twice_gives_the_same_bytes_whatever_the_global_generator_does(model, digits, trained):
    parent = trained["small_cnn"] if model.name == "small_cnn_pruned" else None
    torch.manual_seed(1)
    once = train(model, digits, parent)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    with torch.no_grad():
        assert train(model, digits, parent) == once
    assert torch.equal(torch.get_rng_state(), before)
    assert train(model, digits, parent, seed=1) != once


@pytest.mark.parametrize("model", MODELS)
def test_training_sees_nothing_but_the_samples_it_is_given(model, digits, trained, monkeypatch):
    def forbidden():
        raise AssertionError("training opened the data set by itself")

    monkeypatch.setattr(adapters.digits, "load_digits", forbidden)
    asked = []

    def fetch(indices):
        asked.append(indices)
        return digits.fetch(indices)

    few = Samples(digits.labels[:100], fetch, (1, 8, 8), digits.bounds, digits.class_names, "few")
    parent = trained["small_cnn"] if model is SmallCnnPruned else None
    assert model().training().data.split == "train"
    assert train(model(epochs=1), few, parent) != trained[model.name]
    assert np.concatenate(asked).max() == 99


@pytest.mark.parametrize("model", MODELS)
def test_every_field_is_a_part_of_the_recipe(model):
    recipe = model().training().recipe()
    assert recipe["model"] == model.name
    assert set(model.model_fields) - {"weights"} <= set(recipe)
    assert model(epochs=3).training().recipe() != recipe


def test_the_pruned_model_starts_from_the_small_cnn_of_its_width():
    assert SmallCnnPruned(width=8).training().parent == SmallCnn(width=8)


@pytest.mark.parametrize("model", MODELS)
def test_given_weights_are_not_trained_and_missing_ones_are_an_error(model):
    assert model(weights="some.safetensors").training() is None
    with pytest.raises(PluginError, match=f"model '{model.name}' was built without weights"):
        model().build(None)


def test_weights_of_another_width_are_an_error_that_names_the_tensors(trained):
    with pytest.raises(PluginError, match=r"conv1\.weight: \(16, 1, 3, 3\) in the file, \(8, 1, 3, 3\) in the module"):
        SmallCnn(width=8).build(trained["small_cnn"])


def test_data_of_another_shape_are_an_error(digits):
    wide = Samples(digits.labels, digits.fetch, (3, 32, 32), digits.bounds, digits.class_names, "wide")
    with pytest.raises(PluginError, match=r"the training data have \(3, 32, 32\)"):
        train(SmallCnn(), wide)


@pytest.mark.parametrize("model", MODELS)
def test_a_model_is_frozen_in_eval_mode_and_no_batch_moves_its_running_statistics(model, trained, digits):
    classifier = model().build(trained[model.name])
    before = {name: value.clone() for name, value in classifier.module.state_dict().items()}
    x = digits.fetch(np.arange(64))
    alone = classifier.logits(x[:1])
    assert torch.allclose(classifier.logits(x)[:1], alone, atol=1e-5)
    assert not any(layer.training for layer in classifier.module.modules())
    assert not any(parameter.requires_grad for parameter in classifier.module.parameters())
    assert all(torch.equal(value, before[name]) for name, value in classifier.module.state_dict().items())


@pytest.mark.parametrize("model", MODELS)
def test_its_feature_layers_and_its_gradient_can_be_had(model, trained, digits):
    classifier = model().build(trained[model.name])
    x = digits.fetch(np.arange(4)).requires_grad_()
    assert all(len(classifier.features(x, layer)) == 4 for layer in classifier.feature_layers)
    (gradient,) = torch.autograd.grad(classifier.logits(x).square().sum(), x)
    assert gradient.abs().sum() > 0


def test_each_says_how_its_speed_and_its_gradient_are_real(trained):
    dense, binarised, pruned = (model().build(trained[model.name]) for model in MODELS)
    assert (dense.realisation, dense.gradients) == (Realisation.DENSE, Gradients.EXACT)
    assert (binarised.realisation, binarised.gradients) == (Realisation.SIMULATED, Gradients.SURROGATE)
    assert (pruned.realisation, pruned.gradients) == (Realisation.REAL_SHAPES, Gradients.EXACT)


def macs(model, weights: bytes, samples: Samples) -> dict[str, float | None]:
    return {figure.name: figure.value for figure in Macs(inputs=1).measure(model.build(weights), samples, weights)}


def test_they_cost_the_operations_that_their_shapes_say(trained, digits):
    dense = 64 * 9 * 1 * 16 + 64 * 9 * 16 * 32 + 16 * 32 * 10
    assert macs(SmallCnn(), trained["small_cnn"], digits)["macs"] == dense
    assert macs(SmallCnnPruned(), trained["small_cnn_pruned"], digits)["macs"] == (
        64 * 9 * 1 * 8 + 64 * 9 * 8 * 16 + 16 * 16 * 10
    )
    binarised = macs(SmallCnnBinarised(), trained["small_cnn_binarised"], digits)
    assert (binarised["macs"], binarised["binary_macs"]) == (dense, dense - 64 * 9 * 16)


def test_the_binarised_artefact_holds_one_bit_per_binary_weight(trained):
    model, weights = SmallCnnBinarised(), trained["small_cnn_binarised"]
    net = model.net()
    stored = state_from_bytes(weights)
    shapes = {name: net.get_parameter(name).shape for name in binary_weights(net)}
    assert {name: stored[name].numel() for name in shapes} == {"conv2.weight": 16 * 32 * 9 / 8, "linear.weight": 640}
    assert len(trained["small_cnn"]) > 8 * len(weights)
    opened = unpack(stored, shapes)
    assert all(set(opened[name].unique().tolist()) == {-1.0, 1.0} for name in shapes)
    x = torch.rand(5, 1, 8, 8)
    assert torch.equal(model.build(weights).logits(x), model.build(state_to_bytes(opened)).logits(x))


def test_they_are_registered_under_their_names():
    names = ("small_cnn", "small_cnn_binarised", "small_cnn_pruned")
    assert [registry.get(name) for name in names] == MODELS
