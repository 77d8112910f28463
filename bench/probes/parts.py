"""Which parts of itself a dynamic model really runs, over real inputs."""

from collections.abc import Sequence
from statistics import fmean

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from bench.contracts import Classifier, Figure, Probe, Samples, probe
from bench.probes._spread import STATISTICS, spread_indices
from bench.probes._timing import percentile

BATCH = 256
FIXED = "unavailable: this model always runs as a whole: its adapter names no parts"


@probe("parts")
class Parts(Probe):
    """How many of its parts a dynamic model runs per input (mean, sd, p50, p90, max), and how often each of them.

    Parts are what the adapter names: exits of an anytime network, residual blocks. Empty for a model without any.
    """

    inputs: int = Field(default=1000, ge=1, description="real inputs, evenly spread over the data")

    def measure(self, model: Classifier, samples: Samples, artefact: bytes | None) -> Sequence[Figure]:
        if not model.part_names:
            return [Figure(name=name, value=None, flags=(FIXED,)) for name in self.figures()]
        ran = self._ran(model, samples)
        n = len(ran)
        counts = sorted(float(count) for count in ran.sum(1))
        values = {
            "sd": float(np.std(counts, ddof=1)) if n > 1 else None,
            "p50": percentile(counts, 0.5),
            "p90": percentile(counts, 0.9),
            "max": counts[-1],
        }
        shares = dict(zip(model.part_names, ran.double().mean(0).tolist(), strict=True))
        return [
            Figure(name="parts", value=fmean(counts), n=n),
            *(Figure(name=f"parts/{key}", value=values[key], n=n) for key in STATISTICS),
            *(Figure(name=f"part/{name}", value=share, n=n) for name, share in shares.items()),
        ]

    def _ran(self, model: Classifier, samples: Samples) -> Tensor:
        """(n, parts) bool."""
        chosen = spread_indices(samples, self.inputs)
        with torch.no_grad():
            return torch.cat(
                [
                    model.parts(samples.fetch(chosen[start : start + BATCH]).to(model.device))
                    for start in range(0, len(chosen), BATCH)
                ]
            )

    @classmethod
    def figures(cls) -> tuple[str, ...]:
        return ("parts", *(f"parts/{key}" for key in STATISTICS))
