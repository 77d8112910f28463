import copy

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from adapters.cnn import Cnn
from adapters.deployed_export import check_agreement, export, quantise, session
from adapters.quantisation import QuantisedReLU, bits_of, codes, inner_layers, lower, pack, quantised, unpack
from adapters.quantised import Quantised, _Apprenticeship, _Taught
from bench.contracts import Gradients, Realisation
from bench.errors import PluginError
from bench.probes.macs import Macs
from bench.probes.packed_size import PackedSize
from tests.adapters.families import MODEL, SMALL, Quiet, accuracy, digits, resumed, small_cnn, trained

TRAIN = {"epochs": 6, "batch_size": 64, "learning_rate": 0.01}
TEACHER = TRAIN | {"teacher": MODEL}
PLAIN = {"model": MODEL, "train": TRAIN}


@pytest.mark.parametrize("precision", ["ternary", 2, 3, 4, 8])
def test_codes_are_whole_few_and_survive_packing_and_quantising_again(precision):
    weight = torch.randn(7, 5, 3, generator=torch.Generator().manual_seed(0))
    found, unit = codes(weight, precision)
    largest = 1 if precision == "ternary" else 2 ** (precision - 1) - 1
    assert set(found.unique().tolist()) <= set(range(-largest, largest + 1))
    packed = pack(found, precision)
    assert len(packed) == -(-105 * bits_of(precision) // 8)
    assert torch.equal(unpack(packed, precision, weight.shape), found)
    again, unit_again = codes(found * unit, precision)
    assert torch.equal(again, found)
    assert unit_again == pytest.approx(unit)


def test_k_bits_round_to_the_nearest_of_evenly_spaced_values():
    weight = torch.tensor([-1.0, 0.16, 0.17, 0.5, 0.9])
    assert quantised(weight, 3).tolist() == pytest.approx([-1, 0, 1 / 3, 2 / 3, 1])  # levels k / 3; .5 is 1.5 levels
    assert quantised(weight, 8).tolist() == pytest.approx([*np.rint(weight.numpy() * 127) / 127])


def test_ternary_weights_are_close_to_the_best_ones():
    """Li and Liu 2016, equation 3: the threshold of 0.7 E|w| is nearly the one with the least squared error."""
    weight = torch.randn(5000, generator=torch.Generator().manual_seed(1)).double()
    error = float((quantised(weight, "ternary") - weight).square().sum())
    errors = []
    for threshold in np.linspace(0.1, 2, 100):
        kept = weight.abs() > threshold
        unit = weight[kept].abs().mean()
        errors.append(float((torch.where(kept, weight.sign() * unit, 0.0) - weight).square().sum()))
    assert error <= 1.03 * min(errors)


def test_the_gradient_passes_straight_through_weights_and_is_that_of_clipping_for_activations():
    weight = torch.randn(20, requires_grad=True)
    (slope,) = torch.autograd.grad(quantised(weight, 2).sum(), weight)
    assert torch.equal(slope, torch.ones(20))
    x = torch.tensor([-0.5, 0.2, 0.6, 1.5], requires_grad=True)
    out = QuantisedReLU(2)(x)
    assert out.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    (slope,) = torch.autograd.grad(out.sum(), x)
    assert slope.tolist() == [0, 1, 1, 0]


def test_the_first_and_the_last_layer_and_the_last_activation_stay_as_they_are():
    net = Cnn(**SMALL).net()
    whole = copy.deepcopy(net)
    lower(net, "ternary", 4)
    assert inner_layers(net) == ["conv2", "linear1"]
    assert type(net.get_submodule("conv1")) is nn.Conv2d
    assert type(net.get_submodule("logits")) is nn.Linear
    kinds = [type(net.get_submodule(name)) for name in ("relu1", "relu2", "active1")]
    assert kinds == [QuantisedReLU, QuantisedReLU, nn.ReLU]
    assert net.state_dict().keys() == whole.state_dict().keys()


@pytest.mark.parametrize(("bits", "activation_bits"), [("ternary", None), (4, 4), (8, 8)])
def test_what_is_stored_computes_what_was_trained(bits, activation_bits):
    model = Quantised(**PLAIN, bits=bits, activation_bits=activation_bits)
    nets = []

    class Watched(Quantised):
        def stored(self, net):
            nets.append(net)
            return super().stored(net)

    weights = trained(Watched.model_validate(model.model_dump()))
    classifier = model.build(weights)
    x = digits("test").fetch(np.arange(100))
    with torch.no_grad():
        assert torch.allclose(classifier.logits(x), nets[0](x), atol=1e-4)
    assert accuracy(model, weights) > (0.9 if activation_bits is None else 0.8)  # clipped at 1, it learns more slowly
    assert classifier.realisation is Realisation.SIMULATED
    assert classifier.gradients is (Gradients.EXACT if activation_bits is None else Gradients.SURROGATE)
    assert len(weights) < len(small_cnn())


def test_probes_see_the_bits():
    model = Quantised(**PLAIN, bits="ternary", activation_bits=4)
    weights = trained(model)
    classifier = model.build(weights)
    figures = {each.name: each.value for each in Macs(inputs=1).measure(classifier, digits("test"), weights)}
    first, second, hidden, last = 64 * 9 * 6, 16 * 9 * 6 * 10, 40 * 24, 240
    assert figures["macs"] == first + second + hidden + last
    assert figures["bit_operations"] == 32 * 32 * (first + last) + 2 * 4 * (second + hidden)
    packed = {each.name: each.value for each in PackedSize().measure(classifier, digits("test"), weights)}
    assert packed["packed_bytes/weights"] <= 4 * (54 + 240) + -(-540 * 2 // 8) + -(-960 * 2 // 8)


def test_it_is_deployed_with_real_integers():
    model = Quantised(**PLAIN, bits=8, activation_bits=8)
    classifier = model.build(trained(model))
    exported = export(classifier)
    check_agreement(classifier, session(exported))
    run, x = session(quantise(exported, digits(), 64)), digits("test").fetch(np.arange(300))
    agree = run(x).argmax(1) == classifier.logits(x).argmax(1)
    assert agree.double().mean() > 0.97


# --- the schemes ------------------------------------------------------------------------------------------------------


def test_the_loss_is_apprentices_and_the_teacher_learns_from_the_labels_alone():
    torch.manual_seed(0)
    student, teacher = nn.Linear(4, 3), nn.Linear(4, 3)
    x, y = torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    s, t = (torch.log_softmax(net(x), 1).detach().double().numpy() for net in (student, teacher))
    rows = np.arange(6)
    own, taught = -s[rows, y].mean(), -(np.exp(t) * s).sum(1).mean()
    together = _Taught(student, teacher).loss(student, x, y, rows)
    assert together.item() == pytest.approx(0.5 * own + 0.5 * taught - t[rows, y].mean(), rel=1e-5)
    (slope,) = torch.autograd.grad(together, teacher.weight, retain_graph=True)
    (alone,) = torch.autograd.grad(nn.functional.cross_entropy(teacher(x), y), teacher.weight)
    assert torch.allclose(slope, alone)
    still = _Taught(student, lambda inputs: teacher(inputs).detach()).loss(student, x, y, rows)
    assert still.item() == pytest.approx(0.5 * own + 0.5 * taught, rel=1e-5)


@pytest.mark.parametrize("scheme", ["a", "b", "c"])
def test_every_scheme_learns_and_a_killed_training_ends_with_the_same_bytes(scheme, monkeypatch):
    model = Quantised(model=MODEL, train=TEACHER, scheme=scheme)
    parent = small_cnn() if scheme in "bc" else None
    assert (model.training().parent is None) == (parent is None)
    weights = trained(model, parent)
    assert accuracy(model, weights) > 0.9
    monkeypatch.setattr("adapters.recipe.CHECKPOINT", 0)
    for after in (30, 150) if scheme == "c" else (40,):  # in each of its trainings
        assert resumed(model, parent, after) == weights


def test_scheme_c_begins_in_full_precision():
    model = Quantised(model=MODEL, train=TEACHER | {"epochs": 1, "learning_rate": 1e-6}, scheme="c")
    report = Quiet()
    weights = _Apprenticeship(model).train(digits(), small_cnn(), 0, report)
    assert max(figures.get("accuracy", 0) for figures in report.figures) > 0.95
    assert 0.3 < accuracy(model, weights) < 0.99  # hardly trained after it was lowered


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scheme": "b"}, "needs `train: {teacher"),
        ({"train": TEACHER}, "no `scheme` by which it teaches"),
        ({"bits": 1}, "greater than or equal to 2"),
        ({"bits": "binary"}, "ternary"),
    ],
)
def test_a_scheme_and_its_teacher_belong_together(fields, message):
    with pytest.raises(ValidationError, match=message):
        Quantised(**{"model": MODEL} | fields)


def test_weights_of_other_bits_are_an_error():
    weights = trained(Quantised(**PLAIN, bits="ternary"))
    with pytest.raises(PluginError, match="'conv2' are not those of 4 bits"):
        Quantised(**PLAIN, bits=4).build(weights)


def test_a_net_without_inner_layers_is_an_error_before_anything_is_trained():
    model = {"adapter": "cnn", "args": SMALL | {"channels": [], "hidden": [8]}}
    with pytest.raises(ValidationError, match="no layer between"):
        Quantised(model=model)
