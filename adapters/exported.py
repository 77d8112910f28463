"""Saved torch programs: TorchScript and torch.export. They bring their own code, so they have to be trusted."""

import io
import warnings
from typing import Any, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn

from adapters.described import TorchDescribed, required
from adapters.torch_classifier import TorchClassifier
from bench.contracts import adapter
from bench.errors import PluginError

# aten operators whose argument says that they work in training mode, and the position of that argument
TRAINING_ARGUMENT = {"aten.dropout.default": 2, "aten.batch_norm.default": 5}


class SavedProgram(TorchDescribed):
    """A program and its weights in one file. `trusted: true` says that you trust whoever made the file.

    Loading such a file can run code: torch looks operators up by name, evaluates shape expressions and unpickles
    constants. Nothing short of not loading it makes a stranger's program safe, so the default is to refuse.
    """

    trusted: bool = False

    def program(self, weights: bytes | None, what: str) -> io.BytesIO:
        """The file's bytes. Raises PluginError where it is missing or not trusted."""
        data = required(self, weights, what)
        if not self.trusted:
            raise PluginError(
                f"adapter '{self.name}': a saved program can run code on this machine, and this one is not trusted",
                "set `trusted: true` if you made the file or trust who did; otherwise use the adapter 'torch' with "
                "safetensors, or 'onnx'",
            )
        return io.BytesIO(data)


@adapter("torchscript")
class TorchScript(SavedProgram):
    """A TorchScript program, saved with torch.jit.save."""

    @model_validator(mode="after")
    def _has_no_layers(self) -> Self:
        if self.feature_layers:
            raise ValueError(
                "feature_layers: TorchScript does not let hooks in; use the adapter 'torch' or 'torch_export'"
            )
        return self

    def build(self, weights: bytes | None) -> TorchClassifier:
        file = self.program(weights, "a file of torch.jit.save")
        try:
            with warnings.catch_warnings():  # the format is deprecated; this adapter is for the files that exist
                warnings.filterwarnings("ignore", r".*torch\.jit\.load.* is deprecated", DeprecationWarning)
                module = torch.jit.load(file, map_location="cpu")
        except Exception as problem:  # foreign bytes: torch raises whatever the damage leads to
            raise _unreadable("TorchScript program", "torch.jit.save(program, path)", problem) from problem
        return TorchClassifier(module, **self.description())


@adapter("torch_export")
class TorchExport(SavedProgram):
    """A torch.export program, saved with torch.export.save, with a dynamic batch dimension."""

    def build(self, weights: bytes | None) -> TorchClassifier:
        file = self.program(weights, "a file of torch.export.save")
        try:
            program = torch.export.load(file)
        except Exception as problem:  # foreign bytes: torch raises whatever the damage leads to
            raise _unreadable("torch.export program", "torch.export.save(program, path)", problem) from problem
        _check_batch(program)
        _check_mode(program)
        return TorchClassifier(self._module(program), **self.description())

    def _module(self, program: torch.export.ExportedProgram) -> nn.Module:
        """The tree of submodules where some are asked for; otherwise the flat graph, which is faster."""
        if not self.feature_layers:
            return Flat(program.module())
        with warnings.catch_warnings():  # torch 2.13 uses a class that it has deprecated itself
            warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
            return torch.export.unflatten(program)


class Flat(nn.Module):
    """The graph of an exported program, whose own `train` and `eval` raise: its mode was fixed by the export."""

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, x: Tensor) -> Any:
        return self.graph(x)

    def train(self, mode: bool = True) -> Self:
        for module in self.modules():
            module.training = False
        return self


def _check_batch(program: torch.export.ExportedProgram) -> None:
    names = program.graph_signature.user_inputs
    inputs = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    if len(inputs) != 1 or not isinstance(inputs[0], Tensor):
        raise PluginError(
            f"the exported program takes {len(inputs)} inputs, not one tensor", "export a module that takes x alone"
        )
    batch = inputs[0].shape[0]
    if isinstance(batch, int):
        raise PluginError(
            f"the program was exported for batches of exactly {batch}",
            "export it with a dynamic batch: "
            "torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim('n')},))",
        )


def _check_mode(program: torch.export.ExportedProgram) -> None:
    for node in program.graph.nodes:
        position = TRAINING_ARGUMENT.get(str(node.target))
        if position is not None and node.args[position] is True:
            raise PluginError(
                f"the program was exported in training mode ('{node.name}' is {node.target} with train=True)",
                "call model.eval() before torch.export.export",
            )


def _unreadable(what: str, how: str, problem: Exception) -> PluginError:
    line = str(problem).strip().partition("\n")[0]
    return PluginError(f"the file is no {what} that torch {torch.__version__} reads: {line}", f"save it with {how}")
