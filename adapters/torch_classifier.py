"""A Classifier around a torch module, and its weights as bytes: what every torch adapter is built on."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from bench.contracts import Bounds, Classifier, Gradients, Realisation
from bench.errors import PluginError, did_you_mean

CHECKPOINT_KEYS = ("state_dict", "model_state_dict", "model")  # where training scripts put the weights in a checkpoint
UNIT = Bounds(0.0, 1.0)


class Normalised(nn.Module):
    """`inner` after (x - mean) / std per channel, so that callers stay in input units."""

    mean: Tensor
    std: Tensor

    def __init__(self, inner: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, x: Tensor) -> Any:
        return self.inner((x - self.mean) / self.std)


class TorchClassifier(Classifier):
    """A torch module in eval mode with frozen float32 parameters.

    module: maps (n, *input_shape) float32 to (n, classes). mean, std: one value, or one per channel (the first
    dimension of `input_shape`), in input units; None leaves the input as it is. feature_layers: dotted names of
    submodules of `module`. Raises PluginError for a mean or std that does not fit, and for a layer that is not there.
    """

    input_dtype = torch.float32  # that the module is given

    def __init__(
        self,
        module: nn.Module,
        *,
        input_shape: Sequence[int],
        bounds: Bounds = UNIT,
        classes: int,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        gradients: Gradients = Gradients.EXACT,
        stochastic: bool = False,
        realisation: Realisation = Realisation.DENSE,
        feature_layers: Sequence[str] = (),
    ) -> None:
        self.input_shape = tuple(input_shape)
        self.bounds = bounds
        self.classes = classes
        self.gradients = gradients
        self.stochastic = stochastic
        self.realisation = realisation
        self.feature_layers = tuple(feature_layers)
        self._layers = {name: _submodule(module, name) for name in self.feature_layers}
        if mean is not None or std is not None:
            module = Normalised(module, *statistics(self.input_shape, mean, std))
        self._module = module.float().eval().requires_grad_(False)

    @property
    def module(self) -> nn.Module:
        """The module with its normalisation: takes inputs in input units."""
        return self._module

    def logits(self, x: Tensor) -> Tensor:
        """(n, classes) float32 for x (n, *input_shape) of any real dtype; gradients come back in the dtype of x.

        Raises PluginError where x, or what the module returns, has another shape.
        """
        check_input(x, self.input_shape)
        if not len(x):
            return no_rows(x, self.classes)
        return check_output(self._module(x.to(self.input_dtype)), len(x), self.classes)

    def features(self, x: Tensor, layer: str) -> Tensor:
        """Output (n, ...) float32 of the submodule `layer`, differentiable as `logits` is.

        Raises PluginError where the submodule does not run exactly once per pass, or gives no row per input.
        """
        if layer not in self._layers:
            return super().features(x, layer)
        check_input(x, self.input_shape)
        seen: list[Any] = []
        hook = self._layers[layer].register_forward_hook(lambda _module, _inputs, out: seen.append(_copy(out)))
        try:
            self._module(x.to(self.input_dtype))
        finally:
            hook.remove()
        if len(seen) != 1:
            raise PluginError(
                f"feature layer '{layer}' ran {len(seen)} times in one pass, not once",
                "name a submodule that the forward pass calls exactly once",
            )
        if not isinstance(seen[0], Tensor) or len(seen[0]) != len(x):
            raise PluginError(
                f"feature layer '{layer}' does not give one tensor with a row per input", "name another submodule"
            )
        return seen[0].to(torch.float32)


def statistics(
    input_shape: tuple[int, ...], mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[Tensor, Tensor]:
    """Mean and std as float32 tensors that broadcast over (n, *input_shape); 0 and 1 where None.

    Raises PluginError for a number of values that is neither 1 nor the number of channels, and for a std of 0 or less.
    """
    tensors = []
    for what, values in (("mean", [0.0] if mean is None else mean), ("std", [1.0] if std is None else std)):
        if len(values) not in (1, input_shape[0] if input_shape else 1):
            raise PluginError(
                f"{what} has {len(values)} values, but the input of shape {input_shape} has {input_shape[0]} channels",
                f"give {what} one value, or one per channel",
            )
        tensors.append(torch.tensor(values, dtype=torch.float32).reshape(-1, *[1] * (len(input_shape) - 1)))
    if not (tensors[1] > 0).all():
        raise PluginError(f"std must be greater than 0, got {list(std or ())}", "give it in input units")
    return tensors[0], tensors[1]


# --- shapes -----------------------------------------------------------------------------------------------------------


def check_input(x: Tensor, input_shape: tuple[int, ...]) -> None:
    """Raises PluginError where x is not (n, *input_shape)."""
    if tuple(x.shape[1:]) != input_shape or x.ndim == 0:
        raise PluginError(
            f"the model takes inputs of shape (n, {', '.join(map(str, input_shape))}), got {tuple(x.shape)}",
            "correct `input_shape` of the model, or evaluate it on a data set of that shape",
        )


def check_output(out: Any, n: int, classes: int) -> Tensor:
    """`out` as (n, classes) float32. Raises PluginError for anything else."""
    if not isinstance(out, Tensor):
        raise PluginError(
            f"the model returned {type(out).__name__}, not a tensor of logits",
            "wrap it in a module whose forward returns the logits alone",
        )
    if tuple(out.shape) != (n, classes):
        raise PluginError(
            f"the model returned shape {tuple(out.shape)} for {n} inputs, not ({n}, {classes})",
            f"correct `classes` of the model (it is {classes}), or let forward return one row of logits per input",
        )
    return out.to(torch.float32)


def no_rows(x: Tensor, classes: int) -> Tensor:
    """(0, classes) float32 for an empty batch, connected to x: many modules cannot reshape zero rows."""
    return x.to(torch.float32).flatten(1).sum(1, keepdim=True).expand(-1, classes)


def _submodule(module: nn.Module, name: str) -> nn.Module:
    known: dict[str, nn.Module] = dict(module.named_modules(remove_duplicate=False))
    known.pop("")
    if name not in known:
        raise PluginError(
            f"no feature layer '{name}'{did_you_mean(name, known)}", f"the module has: {', '.join(known) or 'none'}"
        )
    return known[name]


def _copy(out: Any) -> Any:
    """A copy, since a later in-place activation may overwrite the layer's output."""
    return out.clone() if isinstance(out, Tensor) else out


# --- weights ----------------------------------------------------------------------------------------------------------


def state_to_bytes(state: Mapping[str, Tensor]) -> bytes:
    """The tensors as safetensors bytes: the same tensors give the same bytes."""
    data: bytes = safetensors.torch.save(
        {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}
    )
    return data


def state_from_bytes(data: bytes) -> dict[str, Tensor]:
    """The tensors, on the CPU, of safetensors bytes or of a torch file that holds nothing but tensors.

    A checkpoint that keeps its weights under `state_dict`, `model_state_dict` or `model` is opened there. Raises
    PluginError for a pickle that needs code (it is never run), for damaged bytes, and for a file without weights.
    """
    if data[8:9] == b"{":
        try:
            return dict(safetensors.torch.load(data))
        except safetensors.SafetensorError as error:
            raise PluginError(
                f"the weights look like safetensors, but are damaged: {error}", "copy the file again"
            ) from error
    if data[:4] != b"PK\x03\x04" and data[:1] != b"\x80":
        raise PluginError(
            "the weights are neither safetensors nor a torch file",
            "save them with `safetensors.torch.save_file(model.state_dict(), path)`",
        )
    try:
        found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # foreign bytes: torch.load raises whatever the damage leads to
        raise PluginError(
            f"the weights cannot be read without running code from the file, which Gauntlet never does "
            f"({str(error).strip().partition(chr(10))[0]})",
            "where you trust the file, load it yourself and save its tensors with "
            "`safetensors.torch.save_file(model.state_dict(), path)`; a TorchScript program belongs to the adapter "
            "'torchscript', a torch.export program to 'torch_export'",
        ) from error
    return _tensors(found)


def load_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put `state` into `module`. Raises PluginError that lists every missing, unexpected and ill-shaped key."""
    own = module.state_dict()
    missing = [key for key in own if key not in state]
    unexpected = [f"{key}{did_you_mean(key, missing)}" for key in state if key not in own]
    shapes = [
        f"{key}: {tuple(state[key].shape)} in the file, {tuple(own[key].shape)} in the module"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    wrong = {"missing in the file": missing, "unexpected in the file": unexpected, "of another shape": shapes}
    if any(wrong.values()):
        lines = [f"  {what}: {', '.join(keys)}" for what, keys in wrong.items() if keys]
        raise PluginError(
            "\n".join([f"the weights do not fit {type(module).__name__}:", *lines]),
            "give the arguments the weights were trained with, or rename the keys of the file",
        )
    module.load_state_dict(dict(state))


def _tensors(found: Any) -> dict[str, Tensor]:
    if isinstance(found, Mapping):
        for key in CHECKPOINT_KEYS:
            if isinstance(found.get(key), Mapping):
                return _tensors(found[key])
        if found and all(isinstance(value, Tensor) for value in found.values()):
            return {str(key): value for key, value in found.items()}
    keys = f" with the keys {', '.join(map(str, found))}" if isinstance(found, Mapping) else ""
    raise PluginError(
        f"the weights file holds no state dict, but {type(found).__name__}{keys}",
        f"save `model.state_dict()` alone, or under one of {', '.join(CHECKPOINT_KEYS)}",
    )
