"""How many bytes a model takes."""

from collections.abc import Sequence

from bench.contracts import Classifier, Figure, Probe, Samples, probe
from bench.probes.parameters import NO_MODULE, hidden


@probe("size")
class Size(Probe):
    """Bytes of the stored artefact, and bytes of the parameters in memory."""

    def measure(self, model: Classifier, samples: Samples, artefact: bytes | None) -> Sequence[Figure]:
        return [_stored(model, artefact), _in_memory(model)]

    @classmethod
    def figures(cls) -> tuple[str, ...]:
        return ("size_bytes", "parameter_bytes")


def _stored(model: Classifier, artefact: bytes | None) -> Figure:
    size = model.size_bytes()
    if size is None and artefact is not None:
        size = len(artefact)
    flags = ("unknown: the model has no weights file, and its adapter names no size",) if size is None else ()
    return Figure(name="size_bytes", value=size, unit="B", flags=flags)


def _in_memory(model: Classifier) -> Figure:
    if model.module is None:
        return Figure(name="parameter_bytes", value=None, unit="B", flags=(NO_MODULE,))
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.module.parameters())
    return Figure(name="parameter_bytes", value=size, unit="B", flags=hidden(model.module))
