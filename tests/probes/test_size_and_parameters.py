import warnings

import pytest
import safetensors.torch
import torch
from torch import nn

from bench.probes.parameters import Parameters
from bench.probes.size import Size
from tests.probes.nets import WithoutModule, Wrapped, by_name, noise

DATA = noise((3, 4, 4))


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(20, 2))


def test_parameters_are_weights_and_biases_but_not_running_statistics():
    (figure,) = Parameters().measure(Wrapped(net(), (3, 4, 4)), DATA, None)
    assert figure.value == 5 * 3 * 9 + 2 * 5 + 20 * 2 + 2
    assert figure.flags == ()


def test_a_tensor_that_two_layers_share_counts_once():
    shared = nn.Linear(4, 4)
    (figure,) = Parameters().measure(Wrapped(nn.Sequential(shared, nn.ReLU(), shared), (4,)), DATA, None)
    assert figure.value == 20


def quantised() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces that torch.ao.quantization will move
        return torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)).eval(), {nn.Linear})


def test_packed_weights_of_a_quantised_layer_are_named_instead_of_counted_as_nothing():
    model = Wrapped(quantised(), (3, 4, 4))
    for figure in (*Parameters().measure(model, DATA, None), Size().measure(model, DATA, None)[1]):
        assert figure.flags == ("incomplete: packed weights in 1",)


def test_size_is_that_of_the_stored_bytes_and_parameter_bytes_follow_the_dtype():
    module = net()
    artefact = safetensors.torch.save(module.state_dict())
    figures = by_name(Size().measure(Wrapped(module, (3, 4, 4)), DATA, artefact))
    assert figures["size_bytes"].value == len(artefact)
    assert figures["parameter_bytes"].value == 4 * 187
    half = by_name(Size().measure(Wrapped(net().half(), (3, 4, 4)), DATA, artefact))
    assert half["parameter_bytes"].value == 2 * 187


def test_a_classifier_that_names_its_size_is_believed():
    model = WithoutModule()
    model.size_bytes = lambda: 1234
    assert by_name(Size().measure(model, DATA, b"12"))["size_bytes"].value == 1234


@pytest.mark.parametrize("probe", [Parameters(), Size()], ids=["parameters", "size"])
def test_what_cannot_be_had_is_none_with_a_reason(probe):
    figures = probe.measure(WithoutModule(), DATA, None)
    assert [figure.name for figure in figures] == list(probe.figures())
    assert all(figure.value is None and len(figure.flags) == 1 for figure in figures)
