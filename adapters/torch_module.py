"""Any torch module by import path, with weights that cannot run code."""

import importlib
import sys
from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import nn

from adapters.described import TorchDescribed, required
from adapters.torch_classifier import TorchClassifier, load_state, state_from_bytes
from bench.contracts import adapter
from bench.errors import PluginError, did_you_mean


@adapter("torch")
class TorchModule(TorchDescribed):
    """A torch.nn.Module by import path, with weights from safetensors or a state dict.

    factory: `package.module:Name`, a class or function that returns the module when called with `args`; it may live in
    a module that the suite names under `plugins:`. weights: safetensors, or a torch file of tensors alone; its keys
    and shapes have to be those of the module.
    """

    local: ClassVar[bool] = True

    factory: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")]
    args: dict[str, Any] = Field(default_factory=dict)

    def build(self, weights: bytes | None) -> TorchClassifier:
        module = _make(self.factory, self.args)
        if weights is not None or module.state_dict():
            data = required(self, weights, f"the weights of {self.factory}, as safetensors or a state dict")
            load_state(module, state_from_bytes(data))
        return TorchClassifier(module, **self.description())


def _make(factory: str, args: dict[str, Any]) -> nn.Module:
    try:
        module = find(factory)(**args)
    except PluginError:
        raise
    except Exception as problem:  # whatever the factory raises becomes our error
        raise PluginError(
            f"factory '{factory}' raised {type(problem).__name__} when called with {args}: {problem}",
            "correct `args` of the model, or the factory",
        ) from problem
    if not isinstance(module, nn.Module):
        raise PluginError(
            f"factory '{factory}' returned {type(module).__name__}, not a torch.nn.Module",
            "name a class derived from torch.nn.Module, or a function that returns one",
        )
    return module


def find(factory: str) -> Any:
    """The object behind `package.module:Name`. Raises PluginError with the nearest name."""
    path, _, name = factory.partition(":")
    try:
        found: Any = importlib.import_module(path)
    except ModuleNotFoundError as problem:
        if not f"{path}.".startswith(f"{problem.name}."):
            raise PluginError(
                f"factory '{factory}': module '{path}' needs '{problem.name}', which is not installed",
                f"install '{problem.name}' on every node",
            ) from problem
        raise PluginError(
            f"factory '{factory}': there is no module '{problem.name}'{did_you_mean(path, sys.modules)}",
            "install it, or name its file under `plugins:` in the suite",
        ) from problem
    except Exception as problem:  # whatever a foreign module raises becomes our error
        raise PluginError(
            f"factory '{factory}': importing '{path}' raised {problem!r}", "correct the module"
        ) from problem
    for part in name.split("."):
        if not hasattr(found, part):
            raise PluginError(
                f"factory '{factory}': '{path}' has no '{part}'{did_you_mean(part, vars(found))}",
                "write `package.module:Name`, with the name of a class or function of that module",
            )
        found = getattr(found, part)
    if not callable(found):
        raise PluginError(
            f"factory '{factory}' is a {type(found).__name__}, not a class or function", "name one of them"
        )
    return found
