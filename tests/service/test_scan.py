"""What a file of weights may be, and what gives it away."""

import io
import json
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.numpy
import torch
from onnx import TensorProto, helper, numpy_helper

from bench.errors import PluginError
from bench.service.scan import scan


def torch_file(content: object, **more: object) -> bytes:
    out = io.BytesIO()
    torch.save(content, out, **more)  # type: ignore[arg-type]
    return out.getvalue()


def safe_file(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def zipped(entries: dict[str, bytes], change: Callable[[zipfile.ZipInfo], None] = lambda entry: None) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # two entries of one name
        for name, content in entries.items():
            entry = zipfile.ZipInfo(name)
            change(entry)
            archive.writestr(entry, content)
    return out.getvalue()


def link(entry: zipfile.ZipInfo) -> None:
    if entry.filename.endswith("0"):
        entry.external_attr = 0o120777 << 16


def deflated(entry: zipfile.ZipInfo) -> None:
    entry.compress_type = zipfile.ZIP_DEFLATED


class Exploit:
    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        import os

        return os.system, ("touch /tmp/gauntlet-was-here",)


def graph(*, external: bool = False, inside: bool = False) -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    if external:
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value="../../../etc/passwd")
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy")
    if inside:
        nodes = [helper.make_node("Constant", [], ["w"], value=weight), helper.make_node("MatMul", ["x", "w"], ["y"])]
        made = helper.make_graph(nodes, "g", [x], [y])
    else:
        made = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])


def unknown_operator() -> bytes:
    model = graph()
    model.graph.node[0].op_type = "RunShell"
    return model.SerializeToString()


def scripted() -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), out)
    return out.getvalue()


PICKLE = pickle.dumps({}, protocol=2)
GOOD = {
    "safetensors": safetensors.numpy.save({"w": np.eye(3, dtype=np.float32)}),
    "onnx": graph().SerializeToString(),
    "torch": torch_file({"w": torch.eye(3), "more": [torch.zeros(2, dtype=torch.int8)]}),
}
FLOATS = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
HOSTILE = {
    "a pickle that runs code": (torch_file({"w": Exploit()}), "asks for posix.system"),
    "a pickle without a zip": (pickle.dumps(Exploit()), "bare pickle"),
    "an old file of torch": (torch_file({"w": torch.eye(2)}, _use_new_zipfile_serialization=False), "bare pickle"),
    "a whole module": (torch_file(torch.nn.Linear(2, 2)), "asks for torch.nn"),
    "a TorchScript program": (scripted(), "TorchScript"),
    "a zip bomb": (zipped({"a/data.pkl": PICKLE, "a/data/0": b"\0" * 10_000_000}, deflated), "compressed"),
    "a traversal": (zipped({"a/data.pkl": PICKLE, "a/../../../etc/cron.d/x": b"x"}), "leads elsewhere"),
    "an absolute name": (zipped({"a/data.pkl": PICKLE, "/etc/passwd": b"x"}), "leads elsewhere"),
    "a name for Windows": (zipped({"a/data.pkl": PICKLE, "a\\..\\x": b"x"}), "leads elsewhere"),
    "a link": (zipped({"a/data.pkl": PICKLE, "a/data/0": b"/etc/passwd"}, link), "link"),
    "a second pickle": (zipped({"a/data.pkl": PICKLE, "b/data.pkl": PICKLE}), "other pickles"),
    "a zip of something else": (zipped({"word/document.xml": b"<x/>"}), "no data.pkl"),
    "a zip that is cut": (torch_file({"w": torch.eye(9)})[:-40], "cannot be read"),
    "a pickle that is cut": (zipped({"a/data.pkl": torch_file({"w": torch.eye(2)})[80:120]}), "pickle cannot be read"),
    "a header longer than the file": (safe_file({"w": FLOATS}, b"\0" * 8, 1 << 40), "does not fit"),
    "a header of 2^64": (safe_file({"w": FLOATS}, b"\0" * 8, 2**64 - 1), "does not fit"),
    "a header that is no JSON": (struct.pack("<Q", 8) + b"{nothing", "safetensors"),
    "tensors beyond the file": (safe_file({"w": {**FLOATS, "data_offsets": [0, 1 << 40]}}, b"\0" * 8), "safetensors"),
    "tensors that overlap": (safe_file({"v": FLOATS, "w": FLOATS}, b"\0" * 8), "safetensors"),
    "a shape that does not fit": (safe_file({"w": {**FLOATS, "shape": [1 << 40]}}, b"\0" * 8), "safetensors"),
    "a shape that overflows": (safe_file({"w": {**FLOATS, "shape": [1 << 62, 4]}}, b"\0" * 8), "safetensors"),
    "data behind the tensors": (safe_file({"w": FLOATS}, b"\0" * 8 + b"#!/bin/sh"), "safetensors"),
    "no tensors": (safe_file({}), "no tensor"),
    "tensors in another file": (graph(external=True).SerializeToString(), "other files"),
    "constants in another file": (graph(external=True, inside=True).SerializeToString(), "other files"),
    "an unknown operator": (unknown_operator(), "RunShell"),
    "an empty graph": (onnx.ModelProto(ir_version=8).SerializeToString(), "neither"),
    "a script": (b"#!/bin/sh\nrm -rf /\n", "neither"),
    "a page": (b"<html><script>alert(1)</script></html>", "neither"),
    "one byte": (b"\x00", "neither"),
}


@pytest.mark.parametrize("kind", GOOD)
def test_the_three_kinds_are_told_apart(kind: str, tmp_path: Path):
    (tmp_path / "file").write_bytes(GOOD[kind])
    assert scan(tmp_path / "file") == kind


@pytest.mark.parametrize("what", HOSTILE)
def test_what_could_run_code_or_is_damaged_is_refused_with_the_reason(what: str, tmp_path: Path):
    content, told = HOSTILE[what]
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(PluginError, match=told):
        scan(tmp_path / "file")
    assert not Path("/tmp/gauntlet-was-here").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_the_scan_lets_through_loads_with_tensors_alone(tmp_path: Path):
    for kind in ("torch", "safetensors"):
        (tmp_path / kind).write_bytes(GOOD[kind])
    found = torch.load(tmp_path / "torch", weights_only=True)
    assert torch.equal(found["w"], torch.eye(3))
    assert (safetensors.numpy.load_file(tmp_path / "safetensors")["w"] == np.eye(3)).all()
