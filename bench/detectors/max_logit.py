"""Maximum logit: Hendrycks et al. 2022, Scaling Out-of-Distribution Detection for Real-World Settings."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.contracts import Classifier, Detector, detector
from bench.randomness import SampleRandom


@detector("max_logit")
class MaxLogit(Detector):
    """Minus the largest logit."""

    def differentiable(self, model: Classifier, x: Tensor) -> Tensor:
        return -model.logits(x).double().amax(dim=1)

    def score(self, model: Classifier, x: Tensor, random: SampleRandom) -> NDArray[np.float64]:
        with torch.no_grad():
            return self.differentiable(model, x).cpu().numpy()
