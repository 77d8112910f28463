"""A converted model is the model: the same scores, its own bytes, gradients of its float original."""

import sys

import pytest
import torch

from adapters.deployed import Deployed, pack, unpack
from adapters.deployed_export import check_agreement, openvino_session, session
from adapters.reference import SmallCnn
from adapters.zeroed import Zeroed, without_the_smallest
from bench import plugins
from bench.contracts import Bounds, Classifier, Gradients, Realisation, Report, datasets
from bench.errors import PluginError
from bench.probes.macs import Macs
from tests.probes.nets import by_name

plugins.load_built_in()
FLOAT = {"adapter": "small_cnn", "args": {"width": 16, "epochs": 3}}


class Silent(Report):
    def step(self, done: int, total: int, **figures: float) -> None:
        pass


@pytest.fixture(scope="module")
def digits():
    return datasets.build("digits", {"split": "train"}).load()


@pytest.fixture(scope="module")
def weights(digits) -> bytes:
    return SmallCnn(**FLOAT["args"]).training().train(digits, None, 0, Silent())


def converted(target: str, digits, weights) -> tuple[Classifier, bytes]:
    adapter = Deployed(model=FLOAT, target=target, calibration={"dataset": "digits"}, calibration_samples=64)
    made = adapter.training().train(digits, weights, 0, Silent())
    return adapter.build(made), made


@pytest.fixture(scope="module")
def int8(digits, weights):
    return converted("onnx_int8", digits, weights)


def inputs(digits) -> torch.Tensor:
    return digits.fetch(torch.arange(40).numpy())


@pytest.mark.parametrize("target", ["eager", "onnx", "openvino"])
def test_a_float_target_has_the_scores_and_gradients_of_the_float_model(target, digits, weights):
    model, _ = converted(target, digits, weights)
    x = inputs(digits)
    assert torch.allclose(model.logits(x), model.source.logits(x), atol=1e-4)
    slopes = []
    for one in (model, model.source):
        moving = x.clone().requires_grad_()
        slopes.append(torch.autograd.grad(one.logits(moving).sum(), moving)[0])
    assert torch.equal(*slopes)
    assert model.gradients is Gradients.EXACT


def test_int8_decides_like_the_float_model_but_not_bit_for_bit_and_is_smaller(digits, weights, int8):
    model, _ = int8
    floating, _ = converted("onnx", digits, weights)
    x = inputs(digits)
    mine, theirs = model.logits(x), floating.logits(x)
    assert not torch.allclose(mine, theirs, atol=1e-4)
    assert (mine.argmax(1) == theirs.argmax(1)).float().mean() >= 0.9
    assert model.size_bytes() < floating.size_bytes()
    assert model.realisation is Realisation.INT8_RUNTIME
    assert model.runtime == floating.runtime == "onnxruntime"


def test_attacks_on_int8_see_its_own_scores_with_a_borrowed_slope(digits, int8):
    model, _ = int8
    x = inputs(digits).requires_grad_()
    found = model.logits(x)
    assert torch.allclose(found, model.logits(x.detach()), atol=1e-5)
    assert torch.autograd.grad(found.sum(), x)[0].abs().sum() > 0
    assert model.gradients is Gradients.SURROGATE


def test_the_same_conversion_gives_the_same_bytes_and_another_model_gives_others(digits, weights, int8):
    assert converted("onnx_int8", digits, weights)[1] == int8[1]
    adapter = Deployed(model=FLOAT | {"args": {"width": 16, "epochs": 4}}, target="eager")
    assert adapter.training().train(digits, weights, 0, Silent()) != converted("eager", digits, weights)[1]


def test_an_int8_model_does_the_multiplications_of_its_source_in_eight_bits(digits, int8):
    model, _ = int8
    mine, floating = (by_name(Macs(inputs=2).measure(one, digits, None)) for one in (model, model.source))
    assert mine["macs"].value == floating["macs"].value
    assert mine["bit_operations"].value == 64 * mine["macs"].value


def test_int8_on_openvino_runs_the_same_file_and_names_its_own_version(digits, weights, int8):
    model, _ = converted("openvino_int8", digits, weights)
    x = inputs(digits)
    assert (model.logits(x).argmax(1) == int8[0].logits(x).argmax(1)).float().mean() >= 0.95
    assert not torch.allclose(model.logits(x), model.source.logits(x), atol=1e-4)
    assert (model.runtime, model.size_bytes()) == ("openvino", int8[0].size_bytes())
    assert model.realisation is Realisation.INT8_RUNTIME
    with_openvino = Deployed(model=FLOAT, target="openvino").distributions()
    assert "openvino" in with_openvino
    assert "openvino" not in Deployed(model=FLOAT, target="onnx").distributions()


def test_a_missing_openvino_is_told_with_the_extra_to_install(monkeypatch, digits, weights):
    _, artefact = converted("onnx", digits, weights)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(PluginError, match=r"gauntlet-bench\[openvino\]"):
        openvino_session(unpack(artefact)[0])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's own code
def test_a_compiled_model_has_the_scores_of_the_float_model(digits, weights):
    model, _ = converted("compile", digits, weights)
    x = inputs(digits)
    with torch.no_grad():
        assert torch.allclose(model.logits(x), model.source.logits(x), atol=1e-4)
        assert torch.allclose(model.logits(x[:1]), model.source.logits(x[:1]), atol=1e-4)


def test_a_conversion_that_computes_something_else_is_refused(digits, weights):
    model, _ = converted("onnx", digits, weights)
    with pytest.raises(PluginError, match="differs from the torch model"):
        check_agreement(model.source, lambda x: 1.01 * model.logits(x))


def test_a_model_without_a_torch_module_is_refused_with_the_reason(digits):
    class Foreign(Classifier):
        input_shape, bounds, classes = (1, 8, 8), Bounds(0, 1), 10

        def logits(self, x):
            return x.flatten(1)[:, :10]

    from adapters.deployed_export import export

    with pytest.raises(PluginError, match="no torch module"):
        export(Foreign())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target": "onnx_int8"}, "needs `calibration"),
        ({"target": "onnx", "weights": "w.bin"}, "under `model.args`"),
        ({"target": "onnx", "model": {"adapter": "deployed"}}, "cannot be deployed again"),
    ],
)
def test_what_makes_no_sense_is_told_before_anything_runs(fields, message):
    with pytest.raises(ValueError, match=message):
        Deployed(**({"model": FLOAT} | fields))


@pytest.mark.parametrize("target", ["eager", "compile", "onnx"])
@pytest.mark.parametrize(
    ("adapter", "args", "reason"),
    [
        ("lstm", {}, "token ids"),
        ("doubly_nested", {}, "stops at another network for each input"),
        ("block_drop", {}, "its policy picks other blocks"),
        ("ensemble", {"adapter": "block_drop"}, "its policy picks other blocks"),
        ("bpda", {"model": {"adapter": "lstm"}}, "token ids"),
        ("refusing", {"adapter": "small_cnn", "fit_on": {"dataset": "digits"}}, "what it refuses"),
        ("smoothed", {"model": {"adapter": "small_cnn"}}, "noise"),
    ],
)
def test_what_another_runtime_cannot_follow_is_refused_before_it_is_trained(target, adapter, args, reason):
    with pytest.raises(ValueError, match=rf"'{adapter}' cannot be converted, because .*{reason}"):
        Deployed(model={"adapter": adapter, "args": args}, target=target)


@pytest.mark.parametrize(
    ("adapter", "fixed"), [("doubly_nested", {"subnet": [2, 1]}), ("block_drop", {"policy": False})]
)
def test_one_network_of_a_dynamic_family_is_converted(adapter, fixed, digits):
    args = {"data": {"dataset": "digits"}, "train": {"epochs": 1}, **fixed}
    deployed = Deployed(model={"adapter": adapter, "args": args}, target="onnx")
    weights = deployed.original().training().train(digits, None, 0, Silent())
    model = deployed.build(deployed.training().train(digits, weights, 0, Silent()))
    x = inputs(digits)
    assert torch.allclose(model.logits(x), model.source.logits(x), atol=1e-4)
    assert model.runtime == "onnxruntime"


def test_an_unknown_float_model_is_told_with_the_nearest_name():
    with pytest.raises(PluginError, match="did you mean 'small_cnn'"):
        Deployed(model={"adapter": "small_cn"}, target="onnx")


def test_packed_parts_come_back_and_anything_else_is_refused():
    facts = {"classes": 3}
    assert unpack(pack(b"a\nb", b"\nw", facts)) == (b"a\nb", b"\nw", facts)
    assert unpack(pack(b"", None, facts)) == (b"", None, facts)
    for wrong in (b"", b"{}\nrest", b"[1]\n", b"\x80\x02"):
        with pytest.raises(PluginError, match="no deployed model"):
            unpack(wrong)
    with pytest.raises(PluginError, match="onnxruntime"):
        session(b"not an onnx file")


# --- zeros ------------------------------------------------------------------------------------------------------------


def test_the_smallest_weights_of_each_layer_become_zero_and_nothing_else_changes(digits, weights):
    adapter = Zeroed(model=FLOAT, share=0.75)
    model = adapter.build(adapter.training().train(digits, weights, 0, Silent()))
    dense = SmallCnn(**FLOAT["args"]).build(weights)
    assert model.realisation is Realisation.DENSE_WITH_ZEROS
    for name, value in model.module.state_dict().items():
        before = dense.module.state_dict()[name]
        if value.ndim < 2:
            assert torch.equal(value, before)
        else:
            gone = (value == 0) & (before != 0)
            assert int((value == 0).sum()) == int(0.75 * value.numel())
            assert before[gone].abs().max() <= value[value != 0].abs().min()


def test_of_equal_weights_the_first_become_zero():
    assert without_the_smallest(torch.ones(2, 2), 0.5).tolist() == [[0, 0], [1, 1]]
