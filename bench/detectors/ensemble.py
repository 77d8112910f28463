"""Deep ensembles: Lakshminarayanan, Pritzel and Blundell 2017, section 3.4."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.contracts import Classifier, Detector, detector
from bench.detectors._disagreement import Measure, disagreement
from bench.detectors._members import members
from bench.randomness import SampleRandom


@detector("ensemble")
class Ensemble(Detector):
    """Disagreement of the members of an ensemble, or of the snapshots of a training.

    entropy: of the mean of the probabilities, in nats. mutual_information: that less the members' mean entropy.
    variation_ratio: share of members whose class is not the commonest.
    """

    measure: Measure = "entropy"

    def differentiable(self, model: Classifier, x: Tensor) -> Tensor | None:
        if self.measure == "variation_ratio":
            return None
        p = torch.stack([member.logits(x).double().softmax(dim=1) for member in members(model, self.name)])
        entropy: Tensor = torch.special.entr(p.mean(dim=0)).sum(dim=1)
        return entropy if self.measure == "entropy" else entropy - torch.special.entr(p).sum(dim=2).mean(dim=0)

    def score(self, model: Classifier, x: Tensor, random: SampleRandom) -> NDArray[np.float64]:
        with torch.no_grad():
            return disagreement((member.logits(x) for member in members(model, self.name)), self.measure)
