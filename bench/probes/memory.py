"""How much memory a model takes: to load it, and to answer."""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.contracts import Classifier, Figure, Probe, Samples, probe
from bench.memory import peak
from bench.probes.latency import ready_batches
from bench.probes.parameters import NO_MODULE

UNTOLD = "unavailable: this system does not let a process set back its memory's high-water mark"
NO_GPU = "unavailable: the model runs on the CPU"


@probe("memory")
class Memory(Probe):
    """Peak memory of loading and of inference in a fresh process, and the analytic figure beside it.

    `memory_bytes/load`: host memory above what the process held before the model was built, at the peak; it includes
    the libraries that only this model needs. `memory_bytes/inference`: the same for the first passes over a batch, the
    model being loaded; 0 where they fit into what loading had freed. `memory_bytes/device`: peak of a CUDA device's
    allocations, the model included. `memory_bytes/analytic`: bytes of all parameters plus the largest sum of a layer's
    inputs and outputs, at the same batch size (Apprentice, Mishra and Marr 2018).
    """

    exclusive = True

    batch_size: int = Field(default=1, ge=1, description="inputs of a pass")
    passes: int = Field(default=3, ge=1, description="passes whose peak is taken")

    def measure(self, model: Classifier, samples: Samples, artefact: bytes | None) -> Sequence[Figure]:
        batch = ready_batches(model, samples, self.batch_size)[0]
        on_device = model.device.startswith("cuda")
        if on_device:
            torch.cuda.reset_peak_memory_stats(model.device)
        with torch.no_grad(), peak() as most:
            for _ in range(self.passes):
                model.logits(batch)
        device = torch.cuda.max_memory_allocated(model.device) if on_device else None
        loaded = model.loading.peak_bytes if model.loading else None
        return [
            _bytes("load", loaded, UNTOLD),
            _bytes("inference", most(), UNTOLD),
            _bytes("device", device, NO_GPU),
            _bytes("analytic", None if model.module is None else analytic(model, model.module, batch), NO_MODULE),
        ]

    @classmethod
    def figures(cls) -> tuple[str, ...]:
        return tuple(f"memory_bytes/{name}" for name in ("load", "inference", "device", "analytic"))


def analytic(model: Classifier, module: nn.Module, batch: Tensor) -> int:
    """Bytes of the parameters, plus the largest sum of the input and output maps of one layer without children."""
    largest = 0

    def leaving(layer: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        nonlocal largest
        maps = [one for one in (*inputs, output) if isinstance(one, Tensor)]
        largest = max(largest, sum(one.numel() * one.element_size() for one in maps))

    leaves = [layer for layer in module.modules() if not any(True for _ in layer.children())]
    leaves = [layer for layer in leaves if not isinstance(layer, torch.jit.ScriptModule)]
    hooks = [layer.register_forward_hook(leaving) for layer in leaves]
    try:
        with torch.no_grad():
            model.logits(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return largest + sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())


def _bytes(name: str, value: int | None, otherwise: str) -> Figure:
    return Figure(name=f"memory_bytes/{name}", value=value, unit="B", flags=(otherwise,) if value is None else ())
