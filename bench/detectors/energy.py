"""Energy: Liu et al. 2020, Energy-based Out-of-distribution Detection, equation 4."""

from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from bench.contracts import Classifier, Detector, detector
from bench.randomness import SampleRandom


@detector("energy")
class Energy(Detector):
    """-T·logsumexp(logits / T): the free energy, high where no class claims the input."""

    temperature: Annotated[float, Field(gt=0)] = 1.0

    def differentiable(self, model: Classifier, x: Tensor) -> Tensor:
        return -self.temperature * (model.logits(x).double() / self.temperature).logsumexp(dim=1)

    def score(self, model: Classifier, x: Tensor, random: SampleRandom) -> NDArray[np.float64]:
        with torch.no_grad():
            return self.differentiable(model, x).cpu().numpy()
