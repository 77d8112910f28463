"""Entropy of the predicted distribution (Shannon 1948), in nats."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.contracts import Classifier, Detector, detector
from bench.randomness import SampleRandom


@detector("entropy")
class Entropy(Detector):
    """Entropy of the softmax: 0 for a certain classifier, log(classes) for one that has no idea."""

    def differentiable(self, model: Classifier, x: Tensor) -> Tensor:
        entropy: Tensor = torch.special.entr(model.logits(x).double().softmax(dim=1)).sum(dim=1)
        return entropy

    def score(self, model: Classifier, x: Tensor, random: SampleRandom) -> NDArray[np.float64]:
        with torch.no_grad():
            return self.differentiable(model, x).cpu().numpy()
