"""Averaged early stopping: Geifman, Uziel and El-Yaniv 2019, Bias-Reduced Uncertainty Estimation, section 5.2."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.contracts import Classifier, Detector, detector
from bench.detectors._members import confidences
from bench.randomness import SampleRandom


@detector("aes")
class AveragedEarlyStopping(Detector):
    """Minus the mean softmax that the snapshots of a training give to the class that the final model predicts.

    Which snapshots, the adapter says: the paper takes 10 to 50, evenly spaced in the last 60 % of the epochs.
    """

    def differentiable(self, model: Classifier, x: Tensor) -> Tensor:
        return -confidences(model, x, self.name).mean(dim=1)

    def score(self, model: Classifier, x: Tensor, random: SampleRandom) -> NDArray[np.float64]:
        """In [-1, 0]."""
        with torch.no_grad():
            return self.differentiable(model, x).cpu().numpy()
