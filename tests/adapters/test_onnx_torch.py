"""adapters.onnx_torch: every operator of the table against onnxruntime."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper

from adapters.onnx_torch import OPERATORS, UnconvertibleError, convert
from tests.adapters.models import onnx_bytes

RANDOM = np.random.default_rng(0)
F32 = np.float32
KERNEL, BIAS = RANDOM.normal(size=(4, 2, 3, 3)).astype(F32), RANDOM.normal(size=4).astype(F32)
GROUPED, STATISTICS = KERNEL[:, :1], RANDOM.uniform(0.5, 2, (4, 2)).astype(F32)
X = (2, 2, 6, 6)

# operator -> inputs besides x, attributes, shape of x, operator set
CASES: list[tuple[str, list[np.ndarray | None], dict, tuple[int, ...], int]] = [
    ("Add", [KERNEL[:1, :, :1, :1]], {}, X, 17),
    ("AveragePool", [], {"kernel_shape": [2, 2], "strides": [2, 2]}, X, 17),
    ("AveragePool", [], {"kernel_shape": [3, 3], "pads": [1, 0, 2, 1]}, X, 17),
    ("AveragePool", [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, X, 17),
    ("BatchNormalization", list(STATISTICS.T.reshape(2, 2, 2).reshape(4, 2)), {"epsilon": 1e-3}, X, 17),
    ("Clip", [np.array(-0.5, F32), np.array(0.5, F32)], {}, X, 17),
    ("Clip", [np.array(-0.5, F32)], {}, X, 17),
    ("Clip", [None, np.array(0.5, F32)], {}, X, 17),
    ("Clip", [], {"min": -0.3, "max": 0.2}, X, 10),
    ("Concat", [KERNEL[:2, :, :, :1].repeat(2, 2)], {"axis": 3}, X, 17),
    ("Conv", [KERNEL, BIAS], {"kernel_shape": [3, 3]}, X, 17),
    ("Conv", [KERNEL], {"pads": [2, 0, 1, 1], "strides": [2, 1], "dilations": [1, 2]}, X, 17),
    ("Conv", [GROUPED, BIAS], {"group": 2, "pads": [1, 1, 1, 1]}, X, 17),
    ("Conv", [KERNEL[:, :, 0], BIAS], {"strides": [2]}, (2, 2, 6), 17),
    ("Div", [np.array(3.0, F32)], {}, X, 17),
    ("Dropout", [], {}, X, 17),
    ("Flatten", [], {}, X, 17),
    ("Flatten", [], {"axis": -1}, X, 17),
    ("Gather", [np.array([1, -1])], {"axis": 2}, X, 17),
    ("Gather", [np.array(1)], {"axis": 1}, X, 17),
    ("Gemm", [RANDOM.normal(size=(5, 6)).astype(F32), RANDOM.normal(size=5).astype(F32)], {"transB": 1}, (2, 6), 17),
    ("Gemm", [RANDOM.normal(size=(2, 3)).astype(F32)], {"transA": 1, "alpha": 0.5}, (2, 6), 17),
    ("Gemm", [np.eye(6, dtype=F32), np.ones((1, 6), F32)], {"beta": 0.25}, (2, 6), 17),
    ("GlobalAveragePool", [], {}, X, 17),
    ("Identity", [], {}, X, 17),
    ("LeakyRelu", [], {"alpha": 0.2}, X, 17),
    ("MatMul", [RANDOM.normal(size=(6, 3)).astype(F32)], {}, X, 17),
    ("MaxPool", [], {"kernel_shape": [2, 2]}, X, 17),
    ("MaxPool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 0, 1]}, X, 17),
    ("Mul", [KERNEL[:1, :, :1, :1]], {}, X, 17),
    ("Pad", [np.array([0, 0, 1, 2, 0, 0, 3, 0]), np.array(0.7, F32)], {}, X, 17),
    ("Pad", [np.array([0, 0, 1, 2, 0, 0, 3, 0])], {"mode": "reflect"}, X, 17),
    ("Pad", [np.array([0, 0, 1, 2, 0, 0, 3, 0])], {"mode": "edge"}, X, 17),
    ("ReduceMean", [], {"axes": [2, 3], "keepdims": 0}, X, 17),
    ("ReduceMean", [np.array([-1])], {}, X, 18),
    ("Relu", [], {}, X, 17),
    ("Reshape", [np.array([0, -1, 12])], {}, X, 17),
    ("Sigmoid", [], {}, X, 17),
    ("Softmax", [], {"axis": 1}, X, 17),
    ("Softmax", [], {"axis": 1}, X, 11),
    ("Squeeze", [np.array([1, -1])], {}, (2, 1, 3, 1), 17),
    ("Squeeze", [], {"axes": [1]}, (2, 1, 3, 1), 11),
    ("Sub", [KERNEL[:1, :, :1, :1]], {}, X, 17),
    ("Tanh", [], {}, X, 17),
    ("Transpose", [], {"perm": [0, 2, 3, 1]}, X, 17),
    ("Transpose", [], {}, X, 17),
    ("Unsqueeze", [np.array([0, -1])], {}, X, 17),
    ("Unsqueeze", [], {"axes": [2]}, X, 11),
]


def graph(operator: str, inputs, attributes, shape, opset: int) -> bytes:
    names = ["" if value is None else f"input{place}" for place, value in enumerate(inputs)]
    constants = {name: value for name, value in zip(names, inputs, strict=True) if value is not None}
    return onnx_bytes([helper.make_node(operator, ["x", *names], ["out"], **attributes)], constants, shape, opset=opset)


def both(data: bytes, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """What the conversion and what onnxruntime make of the same random input."""
    x = RANDOM.normal(size=shape).astype(F32)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    converted = convert(onnx.load_model_from_string(data), "out")
    return converted(torch.from_numpy(x)).numpy(), session.run(None, {"x": x})[0]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[2]}")
def test_an_operator_gives_what_onnxruntime_gives(case) -> None:
    found, truth = both(graph(*case), case[3])
    assert found.shape == truth.shape
    np.testing.assert_allclose(found, truth, rtol=1e-5, atol=1e-6)


def test_shapes_and_constants_give_what_onnxruntime_gives() -> None:
    node = helper.make_node
    halves = node("Constant", [], ["two"], value_ints=[2])
    nodes = [
        halves,
        node("Shape", ["x"], ["sizes"], start=2),
        node("Div", ["sizes", "two"], ["half"]),  # whole numbers: 7 / 2 is 3
        node("Concat", ["minus", "half"], ["wanted"], axis=0),
        node("Reshape", ["x", "wanted"], ["out"]),
    ]
    found, truth = both(onnx_bytes(nodes, {"minus": np.array([-1])}, (2, 3, 7, 6)), (2, 3, 7, 6))
    assert found.shape == truth.shape == (28, 3, 3)
    np.testing.assert_array_equal(found, truth)


def test_every_operator_of_the_table_is_compared() -> None:
    assert {case[0] for case in CASES} | {"Shape"} == set(OPERATORS)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (("Erf", [], {}, X, 17), "operator 'Erf' .* is not in the table"),
        (("MaxPool", [], {"kernel_shape": [2, 2], "ceil_mode": 1}, X, 17), "ceil_mode=1 is not handled"),
        (("Conv", [KERNEL], {"auto_pad": "SAME_UPPER"}, X, 17), "auto_pad SAME_UPPER is not handled"),
        (("Squeeze", [], {}, (2, 1, 3), 17), "Squeeze without axes"),
    ],
)
def test_what_is_not_handled_is_refused_with_the_reason(case, reason: str) -> None:
    with pytest.raises(UnconvertibleError, match=reason):
        both(graph(*case), case[3])


def test_weights_are_frozen_parameters_and_statistics_are_buffers() -> None:
    case = next(case for case in CASES if case[0] == "BatchNormalization")
    converted = convert(onnx.load_model_from_string(graph(*case)), "out")
    assert len(list(converted.parameters())) == 2
    assert len(list(converted.buffers())) == 2
    assert not any(parameter.requires_grad for parameter in converted.parameters())
