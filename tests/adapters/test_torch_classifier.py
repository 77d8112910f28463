"""adapters.torch_classifier: the lies that classifiers tell, and weights that cannot run code."""

import io
import pickle

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from adapters.torch_classifier import TorchClassifier, load_state, state_from_bytes, state_to_bytes
from bench.contracts import Bounds
from bench.errors import PluginError
from tests.adapters.models import SHAPE, SmallNet, images, small_net


def classifier(module: nn.Module | None = None, **fields: object) -> TorchClassifier:
    return TorchClassifier(module or small_net(), **({"input_shape": SHAPE, "classes": 3} | fields))


def test_batchnorm_and_dropout_are_in_eval_mode_even_if_the_module_was_training() -> None:
    module = small_net()
    expected = module(images(6))
    model = classifier(module.train())
    assert torch.equal(model.logits(images(6)), expected)
    assert torch.equal(model.logits(images(6)), expected), "a second pass must not have moved the statistics"


def test_parameters_are_frozen_and_gradients_still_reach_the_input() -> None:
    model = classifier()
    x = images(2).requires_grad_()
    model.logits(x).sum().backward()
    assert x.grad is not None
    assert x.grad.any()
    assert all(parameter.grad is None for parameter in model.module.parameters())


def test_normalisation_is_inside_so_that_an_epsilon_is_in_input_units() -> None:
    module, mean, std = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), [0.1, 0.2, 0.3], [0.5, 0.25, 0.125]
    model = classifier(module, input_shape=(3, 2, 2), mean=mean, std=std)
    x = images(4, (3, 2, 2)).requires_grad_()
    by_hand = torch.stack([(x[:, c] - mean[c]) / std[c] for c in range(3)], dim=1)
    assert torch.allclose(model.logits(x), module(by_hand), atol=1e-6)
    slope = torch.autograd.grad(model.logits(x)[:, 0].sum(), x)[0][0]
    weight = module[1].weight[0].reshape(3, 2, 2) / torch.tensor(std).reshape(3, 1, 1)
    assert torch.allclose(slope, weight, atol=1e-6), "the slope is per input unit, not per standard deviation"


def test_module_takes_inputs_in_input_units_too() -> None:
    model = classifier(mean=[0.4], std=[0.3])
    assert torch.equal(model.module(images(3)), model.logits(images(3)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.uint8])
def test_inputs_of_other_types_give_the_same_float32_logits(dtype: torch.dtype) -> None:
    x = (images(5) * 4).round()  # numbers that every type holds exactly
    out = classifier(bounds=Bounds(0, 4)).logits(x.to(dtype))
    assert out.dtype == torch.float32
    assert torch.equal(out, classifier(bounds=Bounds(0, 4)).logits(x))


def test_gradients_come_back_in_the_type_of_the_input() -> None:
    x = images(2).double().requires_grad_()
    assert torch.autograd.grad(classifier().logits(x).sum(), x)[0].dtype == torch.float64


def test_a_float64_module_computes_in_float32() -> None:
    assert torch.equal(classifier(small_net().double()).logits(images(3)), classifier().logits(images(3)))


def test_an_empty_batch_gives_no_rows_and_a_gradient_of_no_rows() -> None:
    class Stubborn(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(len(x), -1)[:, :3]

    x = images(2)[:0].requires_grad_()
    out = classifier(Stubborn()).logits(x)
    assert out.shape == (0, 3)
    assert torch.autograd.grad(out.sum(), x)[0].shape == (0, *SHAPE)


def test_features_are_what_the_layer_gave_before_later_layers_overwrote_it() -> None:
    module, x = small_net(), images(3)
    model = classifier(module, feature_layers=("norm", "relu"))
    normed = module.norm(module.conv(x)).clone()
    assert (normed < 0).any(), "the test needs values that the in-place ReLU changes"
    assert torch.equal(model.features(x, "norm"), normed)
    assert torch.equal(model.features(x, "relu"), normed.relu())


def test_features_can_be_differentiated() -> None:
    x = images(2).requires_grad_()
    features = classifier(feature_layers=("norm",)).features(x, "norm")
    assert torch.autograd.grad(features.sum(), x)[0].any()


def test_a_layer_that_is_not_there_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(PluginError, match="no feature layer 'rellu' - did you mean 'relu'"):
        classifier(feature_layers=("rellu",))
    with pytest.raises(PluginError, match=r"no feature layer 'conv' .*named: relu"):
        classifier(feature_layers=("relu",)).features(images(1), "conv")


def test_a_layer_that_runs_twice_is_refused() -> None:
    shared = nn.ReLU()
    module = nn.Sequential(nn.Flatten(), shared, nn.Linear(64, 3))
    module.append(shared)
    with pytest.raises(PluginError, match="ran 2 times"):
        classifier(module, feature_layers=("1",)).features(images(1), "1")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mean": [0.1, 0.2]}, "mean has 2 values, but the input of shape .* has 1 channels"),
        ({"std": [0.0]}, "std must be greater than 0"),
    ],
)
def test_statistics_that_do_not_fit_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(PluginError, match=message):
        classifier(**fields)


def test_wrong_shapes_name_what_was_expected_and_what_came() -> None:
    with pytest.raises(PluginError, match=r"takes inputs of shape \(n, 1, 8, 8\), got \(2, 1, 9, 9\)"):
        classifier().logits(images(2, (1, 9, 9)))
    with pytest.raises(PluginError, match=r"returned shape \(2, 3\) for 2 inputs, not \(2, 4\)"):
        classifier(classes=4).logits(images(2))


# --- weights ----------------------------------------------------------------------------------------------------------


def saved(thing: object) -> bytes:
    file = io.BytesIO()
    torch.save(thing, file)
    return file.getvalue()


def test_weights_survive_the_way_through_bytes_and_give_the_same_bytes_again() -> None:
    state = small_net().state_dict()
    data = state_to_bytes(state)
    back = state_from_bytes(data)
    assert all(torch.equal(back[key], value) for key, value in state.items())
    assert state_to_bytes(dict(reversed(back.items()))) == data
    assert safetensors.torch.load(data).keys() == state.keys()


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", None])
def test_a_torch_file_is_read_alone_or_inside_a_checkpoint(key: str | None) -> None:
    state = small_net().state_dict()
    back = state_from_bytes(saved({key: state, "epoch": 3} if key else state))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], value) for name, value in state.items())


EXPLODED: list[str] = []


def explode(what: str) -> None:
    EXPLODED.append(what)


class Bomb:
    """Explodes when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return explode, ("boom",)


@pytest.mark.parametrize("data", [saved({"x": Bomb()}), pickle.dumps(Bomb())], ids=["torch file", "pickle"])
def test_a_pickle_that_needs_code_is_refused_with_what_to_do_instead(data: bytes) -> None:
    EXPLODED.clear()
    with pytest.raises(PluginError, match=r"(?s)without running code.*safetensors\.torch\.save_file"):
        state_from_bytes(data)
    assert EXPLODED == []
    if data[:1] == b"\x80":
        pickle.loads(data)
        assert EXPLODED == ["boom"], "the bomb has to work, or the test shows nothing"


def test_a_whole_pickled_module_is_refused() -> None:
    with pytest.raises(PluginError, match="without running code"):
        state_from_bytes(saved(small_net()))


def test_damaged_and_foreign_files_are_refused() -> None:
    data = state_to_bytes(small_net().state_dict())
    with pytest.raises(PluginError, match="look like safetensors, but are damaged"):
        state_from_bytes(data[:-8])
    with pytest.raises(PluginError, match="neither safetensors nor a torch file"):
        state_from_bytes(b"hello")
    with pytest.raises(PluginError, match="holds no state dict, but dict with the keys epoch"):
        state_from_bytes(saved({"epoch": 3}))


def test_every_key_that_does_not_fit_is_listed() -> None:
    state = small_net().state_dict()
    state["heads.bias"] = state.pop("head.bias")
    state["conv.weight"] = torch.zeros(4, 1, 5, 5)
    with pytest.raises(PluginError) as refusal:
        load_state(SmallNet(), state)
    assert str(refusal.value).splitlines()[:4] == [
        "the weights do not fit SmallNet:",
        "  missing in the file: head.bias",
        "  unexpected in the file: heads.bias - did you mean 'head.bias'?",
        "  of another shape: conv.weight: (4, 1, 5, 5) in the file, (4, 1, 3, 3) in the module",
    ]
