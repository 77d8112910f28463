"""The adapters `torchscript` and `torch_export`."""

import pytest
import torch
from pydantic import ValidationError

from adapters.exported import TorchExport, TorchScript
from bench.errors import PluginError
from tests.adapters.models import FIELDS, exported_bytes, images, small_net, torchscript_bytes

WAYS = [(TorchScript, torchscript_bytes), (TorchExport, exported_bytes)]


@pytest.mark.parametrize(("adapter", "save"), WAYS)
@pytest.mark.parametrize("n", [1, 3, 7])
def test_gives_the_logits_and_gradients_of_the_module_it_was_made_from(adapter, save, n: int) -> None:
    net = small_net()
    expected_x, x = (images(n).requires_grad_() for _ in range(2))
    expected = net((expected_x - 0.4) / 0.3)
    logits = adapter(trusted=True, **FIELDS).build(save(net)).logits(x)
    assert torch.allclose(logits, expected, atol=1e-6)
    (expected**2).sum().backward()
    (logits**2).sum().backward()
    assert torch.allclose(x.grad, expected_x.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("adapter", "save"), WAYS)
def test_a_program_can_run_code_so_it_has_to_be_trusted(adapter, save) -> None:
    with pytest.raises(PluginError, match=r"(?s)can run code.*trusted: true.*safetensors"):
        adapter(**FIELDS).build(save(small_net()))


@pytest.mark.parametrize(("adapter", "save"), WAYS)
def test_a_file_that_is_no_program_is_refused(adapter, save) -> None:
    with pytest.raises(PluginError, match=r"(?s)is no .* program that torch .* reads.*save it with"):
        adapter(trusted=True, **FIELDS).build(b"PK\x03\x04 but nothing else")


def test_a_fixed_batch_size_is_found_out() -> None:
    with pytest.raises(PluginError, match=r"(?s)batches of exactly 5.*dynamic_shapes"):
        TorchExport(trusted=True, **FIELDS).build(exported_bytes(small_net(), dynamic=False))


def test_a_program_that_was_exported_in_training_mode_is_found_out() -> None:
    with pytest.raises(PluginError, match=r"(?s)exported in training mode.*model.eval\(\)"):
        TorchExport(trusted=True, **FIELDS).build(exported_bytes(small_net().train()))


def test_dropout_exported_in_training_mode_is_found_out() -> None:
    net = small_net()
    net.dropout.train()
    with pytest.raises(PluginError, match=r"'dropout' is aten\.dropout"):
        TorchExport(trusted=True, **FIELDS).build(exported_bytes(net))


def test_a_script_saved_in_training_mode_is_put_into_eval_mode() -> None:
    logits = TorchScript(trusted=True, **FIELDS).build(torchscript_bytes(small_net().train())).logits(images(4))
    assert torch.allclose(logits, small_net()((images(4) - 0.4) / 0.3), atol=1e-6)


def test_an_exported_program_has_feature_layers() -> None:
    net = small_net()
    model = TorchExport(trusted=True, feature_layers=("norm", "relu"), **FIELDS).build(exported_bytes(net))
    normed = net.norm(net.conv((images(3) - 0.4) / 0.3)).clone()
    assert torch.allclose(model.features(images(3), "norm"), normed, atol=1e-6)
    assert torch.allclose(model.features(images(3), "relu"), normed.relu(), atol=1e-6)


def test_torchscript_says_that_it_has_no_feature_layers() -> None:
    with pytest.raises(ValidationError, match="does not let hooks in"):
        TorchScript(trusted=True, feature_layers=("relu",), **FIELDS)
