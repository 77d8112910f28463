"""How many numbers a model has learnt."""

from collections.abc import Sequence

from torch import nn

from bench.contracts import Classifier, Figure, Probe, Samples, probe

NO_MODULE = "incomplete: the classifier has no torch module to look into"


def packed_layers(module: nn.Module) -> list[str]:
    """Names of the layers that keep weights where `parameters()` does not look: torch's quantised ones do."""
    return [name for name, layer in module.named_modules() if callable(getattr(layer, "weight", None))]


def hidden(module: nn.Module) -> tuple[str, ...]:
    """The flag for what `parameters()` does not see, if there is such a thing."""
    packed = packed_layers(module)
    return (f"incomplete: packed weights in {', '.join(packed)}",) if packed else ()


@probe("parameters")
class Parameters(Probe):
    """Learnt numbers of the model: elements of its parameters, each tensor once, zeros included, buffers not."""

    def measure(self, model: Classifier, samples: Samples, artefact: bytes | None) -> Sequence[Figure]:
        if model.module is None:
            return [Figure(name="parameters", value=None, flags=(NO_MODULE,))]
        count = sum(parameter.numel() for parameter in model.module.parameters())
        return [Figure(name="parameters", value=count, flags=hidden(model.module))]

    @classmethod
    def figures(cls) -> tuple[str, ...]:
        return ("parameters",)
