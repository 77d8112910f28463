"""How much energy an answer takes, where the machine counts it."""

from collections.abc import Sequence
from itertools import cycle
from time import perf_counter

import torch
from pydantic import Field

from bench.contracts import Classifier, Figure, Probe, Realisation, Samples, probe
from bench.disturbance import synchronise
from bench.errors import PluginError
from bench.probes._meters import nvml, rapl
from bench.probes.latency import ready_batches


@probe("energy")
class Energy(Probe):
    """Joules per input, from a counter of the machine: NVML on a GPU, RAPL on a CPU; otherwise empty, never estimated.

    `energy_j/input` is all that the counter saw over `seconds` of queries, divided by the inputs; idle power is in it.
    `energy_w` is the mean power. The counter's name stands in the flag `source: ...`.
    """

    exclusive = True

    seconds: float = Field(default=5.0, gt=0, description="length of the measurement, at least")
    batch_size: int = Field(default=1, ge=1, description="inputs per query")

    def measure(self, model: Classifier, samples: Samples, artefact: bytes | None) -> Sequence[Figure]:
        try:
            meter = nvml(model.device) if model.device.startswith("cuda") else rapl()
        except PluginError as problem:
            why = (f"unavailable: {problem.message}",)
            return [Figure(name="energy_j/input", value=None, unit="J", flags=why), _power(None, why)]
        batches = cycle(ready_batches(model, samples, self.batch_size))
        queries = 0
        with torch.no_grad():
            synchronise(model.device)
            begun, before = perf_counter(), meter.read()
            while (took := perf_counter() - begun) < self.seconds or not queries:
                model.logits(next(batches))
                synchronise(model.device)
                queries += 1
            spent = meter.read() - before
        flags: tuple[str, ...] = (f"source: {meter.source}",)
        if model.realisation is Realisation.SIMULATED:
            flags = ("simulated: the energy is that of float arithmetic which imitates another", *flags)
        inputs = queries * self.batch_size
        return [
            Figure(name="energy_j/input", value=spent / inputs, unit="J", n=inputs, flags=flags),
            _power(spent / max(took, self.seconds), flags),
        ]

    @classmethod
    def figures(cls) -> tuple[str, ...]:
        return ("energy_j/input", "energy_w")


def _power(value: float | None, flags: tuple[str, ...]) -> Figure:
    return Figure(name="energy_w", value=value, unit="W", flags=flags)
