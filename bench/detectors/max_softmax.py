"""Maximum softmax probability: Hendrycks and Gimpel 2017, A Baseline for Detecting Misclassified and OOD Examples."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.contracts import Classifier, Detector, detector
from bench.randomness import SampleRandom


@detector("max_softmax")
class MaxSoftmax(Detector):
    """Minus the largest softmax probability: an unsure classifier finds an input outlying."""

    def differentiable(self, model: Classifier, x: Tensor) -> Tensor:
        return -model.logits(x).double().softmax(dim=1).amax(dim=1)

    def score(self, model: Classifier, x: Tensor, random: SampleRandom) -> NDArray[np.float64]:
        """In [-1, -1/classes]. In float64: near 1, float32 maxima saturate and tie."""
        with torch.no_grad():
            return self.differentiable(model, x).cpu().numpy()
