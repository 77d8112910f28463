"""What a file of weights is, found out without running any of it.

| kind | how it is told | refused |
|---|---|---|
| safetensors | its header, as the format's own library reads it | a header that does not fit the file, gaps, overlaps |
| onnx | its protobuf message | tensors in other files, no graph, an operator that its version does not have |
| torch | a zip of stored entries, one pickle that needs tensors alone | code, compression, links, other globals |

Every other file is refused, pickles of old torch and TorchScript programs among them.
"""

import stat
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from bench.errors import PluginError

HEADER = 16 << 20  # bytes of a safetensors header: some hundred thousand tensors
ENTRIES = 100_000  # of a torch file
PICKLE = 64 << 20  # bytes of its pickle, which holds names and shapes
HINT = "save the tensors with `safetensors.torch.save_file(model.state_dict(), path)`"


def scan(path: Path) -> str:
    """`safetensors`, `onnx` or `torch`. Raises PluginError for anything else, and for what is damaged."""
    with path.open("rb") as file:
        head = file.read(9)
    if head[8:] == b"{":
        _safetensors(path, head)
        return "safetensors"
    if head.startswith(b"PK"):
        _torch(path)
        return "torch"
    if head.startswith(b"\x80"):
        raise PluginError("a bare pickle: reading it can run code", HINT)
    _onnx(path)
    return "onnx"


def _safetensors(path: Path, head: bytes) -> None:
    from safetensors import SafetensorError, safe_open

    (length,) = struct.unpack("<Q", head[:8])
    if length > min(HEADER, path.stat().st_size - 8):
        raise PluginError(f"safetensors: a header of {length} bytes does not fit", "copy the file again")
    try:
        with safe_open(path, "numpy") as file:
            names = list(file.keys())
    except SafetensorError as problem:
        raise PluginError(f"safetensors: {problem}", "copy the file again") from None
    if not names:
        raise PluginError("safetensors: no tensor in it", HINT)


def _torch(path: Path) -> None:
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as problem:
        raise PluginError(f"a zip that cannot be read: {problem}", HINT) from None
    if len(entries) > ENTRIES:
        raise PluginError(f"{len(entries)} entries are more than {ENTRIES}", HINT)
    names = [entry.filename for entry in entries]
    if len(set(names)) < len(names):
        raise PluginError("two entries have the same name", HINT)
    tails = [name.partition("/")[2] for name in names]
    if any(tail == "constants.pkl" or tail.startswith("code/") for tail in tails):
        raise PluginError("a TorchScript program: it brings code of its own", HINT)
    for entry in entries:
        if wrong := _wrong(entry):
            raise PluginError(f"entry {entry.filename[:100]!r}: {wrong}", HINT)
    if sum(entry.file_size for entry in entries) > size:
        raise PluginError("its entries overlap: they hold more than the file", HINT)
    pickles = [entry for entry in entries if entry.filename.endswith(".pkl")]
    if [entry.filename.partition("/")[2] for entry in pickles] != ["data.pkl"]:
        raise PluginError("not a file of torch.save: it has no data.pkl, or other pickles beside it", HINT)
    if pickles[0].file_size > PICKLE:
        raise PluginError(f"a pickle of {pickles[0].file_size} bytes holds more than names and shapes", HINT)
    from torch.serialization import get_unsafe_globals_in_checkpoint

    try:
        unsafe = get_unsafe_globals_in_checkpoint(str(path))
    except Exception as problem:  # noqa: BLE001 - foreign bytes: torch raises whatever the damage leads to
        raise PluginError(f"its pickle cannot be read: {str(problem).partition(chr(10))[0][:200]}", HINT) from None
    if unsafe:
        raise PluginError(f"its pickle asks for {', '.join(sorted(unsafe)[:5])}: only tensors are taken", HINT)


def _wrong(entry: zipfile.ZipInfo) -> str:
    name = PurePosixPath(entry.filename)
    if name.is_absolute() or ".." in name.parts or "\\" in entry.orig_filename or "\x00" in entry.orig_filename:
        return "its name leads elsewhere"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "it is a link"
    if entry.flag_bits & 1:
        return "it is encrypted"
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
        return "it is compressed, which torch.save never does"
    return ""


def _onnx(path: Path) -> None:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except (DecodeError, ValueError):
        raise PluginError("neither safetensors, nor ONNX, nor a file of torch.save", HINT) from None
    if model.ir_version < 1 or not model.graph.node or not model.opset_import:
        raise PluginError("neither safetensors, nor ONNX with a graph, nor a file of torch.save", HINT)
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data for tensor in _tensors(model)):
        raise PluginError("ONNX: its tensors lie in other files", "save it as one file")
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as problem:
        raise PluginError(f"ONNX: {str(problem).partition(chr(10))[0][:200]}", "export it again") from None


def _tensors(model: Any) -> Iterator[Any]:
    """Every tensor of a model: of its graph, of the graphs inside its nodes, of its functions."""
    graphs, nodes = [model.graph], [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            nodes += graph.node
        while nodes:
            for attribute in nodes.pop().attribute:
                yield attribute.t
                yield from attribute.tensors
                for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                    yield from (sparse.values, sparse.indices)
                graphs += [attribute.g] if attribute.HasField("g") else []
                graphs += attribute.graphs
