"""The adapter `onnx`: values of onnxruntime, gradients of the conversion to torch."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from adapters.onnx_model import OnnxModel
from bench.contracts import Gradients, Realisation
from bench.errors import PluginError
from tests.adapters.models import FIELDS, images, onnx_bytes, onnx_of, small_net

NODE = helper.make_node
HEAD = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)


def linear(*after: onnx.NodeProto, output: str = "out") -> bytes:
    """Flatten and a linear layer, whose output the nodes `after` may change."""
    return onnx_bytes(
        [NODE("Flatten", ["x"], ["flat"]), NODE("MatMul", ["flat", "head"], [output]), *after], {"head": HEAD}
    )


def test_values_are_those_of_onnxruntime_and_agree_with_the_torch_net() -> None:
    net, data, x = small_net(), onnx_of(small_net()), images(6)
    model = OnnxModel(**FIELDS).build(data)
    prepared = ((x - 0.4) / 0.3).numpy()
    truth = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": prepared})[0]
    assert np.array_equal(model.logits(x).numpy(), truth)
    assert torch.allclose(model.logits(x), net((x - 0.4) / 0.3), atol=1e-5)


def test_gradients_are_those_of_the_torch_net() -> None:
    net, model = small_net(), OnnxModel(**FIELDS).build(onnx_of(small_net()))
    assert model.gradients is Gradients.EXACT
    assert model.gradients_reason == ""
    expected_x, x = (images(6).requires_grad_() for _ in range(2))
    (net((expected_x - 0.4) / 0.3) ** 2).sum().backward()
    (model.logits(x) ** 2).sum().backward()
    assert torch.allclose(x.grad, expected_x.grad, rtol=1e-4, atol=1e-5)
    assert not model.logits(images(2)).requires_grad


def test_values_come_from_onnxruntime_under_no_grad() -> None:
    model = OnnxModel(**FIELDS).build(onnx_of(small_net()))
    with torch.no_grad():
        assert torch.equal(model.logits(images(3).requires_grad_()), model.logits(images(3)))


def test_an_operator_without_counterpart_leaves_a_black_box_that_says_why() -> None:
    model = OnnxModel(**FIELDS).build(linear(NODE("Erf", ["scores"], ["out"]), output="scores"))
    assert model.gradients is Gradients.NONE
    assert "operator 'Erf'" in model.gradients_reason
    assert model.module is None
    assert not model.logits(images(2).requires_grad_()).requires_grad


def test_a_conversion_that_differs_from_onnxruntime_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from adapters import onnx_torch

    wrong = {**onnx_torch.OPERATORS, "MatMul": lambda v, at: 1.01 * (v[0] @ v[1])}
    monkeypatch.setattr(onnx_torch, "OPERATORS", wrong)
    model = OnnxModel(**FIELDS).build(linear())
    assert model.gradients is Gradients.NONE
    assert "differs from onnxruntime by 0.01" in model.gradients_reason


def test_feature_layers_are_intermediate_tensors() -> None:
    net = small_net()
    model = OnnxModel(feature_layers=("normed", "activated"), **FIELDS).build(onnx_of(net))
    normed = net.norm(net.conv((images(3) - 0.4) / 0.3)).clone()
    assert torch.allclose(model.features(images(3), "normed"), normed, atol=1e-5)
    assert torch.allclose(model.features(images(3), "activated"), normed.relu(), atol=1e-5)


def test_it_uses_as_many_threads_as_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[onnxruntime.SessionOptions] = []
    start = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda data, options, **kw: seen.append(options) or start(data, options, **kw)
    )
    OnnxModel(**FIELDS).build(linear())
    assert [options.intra_op_num_threads for options in seen] == [torch.get_num_threads()]


def test_it_stays_on_the_cpu() -> None:
    adapter = OnnxModel(**FIELDS)
    assert adapter.place(adapter.build(linear()), "cuda:0").device == "cpu"


def test_a_quantised_graph_is_marked_as_such() -> None:
    quantise = [
        NODE("QuantizeLinear", ["scores", "scale", "zero"], ["small"]),
        NODE("DequantizeLinear", ["small", "scale", "zero"], ["out"]),
    ]
    nodes = [NODE("Flatten", ["x"], ["flat"]), NODE("MatMul", ["flat", "head"], ["scores"]), *quantise]
    constants = {"head": HEAD, "scale": np.float32(0.1), "zero": np.int8(0)}
    model = OnnxModel(**FIELDS).build(onnx_bytes(nodes, constants))
    assert model.realisation is Realisation.INT8_RUNTIME
    assert model.gradients is Gradients.NONE


def test_the_output_has_to_be_named_where_there_are_several() -> None:
    nodes = [
        NODE("Flatten", ["x"], ["flat"]),
        NODE("MatMul", ["flat", "head"], ["scores"]),
        NODE("Tanh", ["scores"], ["out"]),
    ]
    data = onnx_bytes(nodes, {"head": HEAD}, outputs=("scores", "out"))
    with pytest.raises(PluginError, match=r"(?s)2 outputs.*scores, out"):
        OnnxModel(**FIELDS).build(data)
    with pytest.raises(PluginError, match="no output 'score' - did you mean 'scores'"):
        OnnxModel(output="score", **FIELDS).build(data)
    scores = OnnxModel(output="scores", **FIELDS).build(data).logits(images(3))
    assert torch.allclose(scores.tanh(), OnnxModel(output="out", **FIELDS).build(data).logits(images(3)), atol=1e-6)


def external() -> bytes:
    model = onnx.load_model_from_string(linear())
    head = numpy_helper.from_array(HEAD, "head")
    head.ClearField("raw_data")
    head.data_location = TensorProto.EXTERNAL
    head.external_data.add(key="location", value="/etc/passwd")
    del model.graph.initializer[:]
    model.graph.initializer.append(head)
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"hello", "no valid ONNX model"),
        (onnx_bytes([NODE("Nonsense", ["x"], ["out"])]), "onnxruntime .* cannot load the model"),
        (onnx_bytes([NODE("Flatten", ["x"], ["out"])], shape=(1, 1, 8, 8)), "batches of exactly 1"),
        (external(), "weights in a second file"),
        (None, "there are no weights"),
    ],
    ids=["garbage", "unknown operator", "fixed batch", "external weights", "nothing"],
)
def test_files_that_cannot_be_right_are_refused(data: bytes | None, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        OnnxModel(**FIELDS).build(data)


def test_a_feature_layer_that_is_not_there_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(PluginError, match="no feature layer 'flatt' - did you mean 'flat'"):
        OnnxModel(feature_layers=("flatt",), **FIELDS).build(linear())
