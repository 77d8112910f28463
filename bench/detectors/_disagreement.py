"""How far several predictions for one input disagree: of dropout passes, or of the members of an ensemble."""

from collections.abc import Iterable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Measure = Literal["entropy", "mutual_information", "variation_ratio"]


def disagreement(passes: Iterable[Tensor], measure: Measure) -> NDArray[np.float64]:
    """(n,), of logits (n, classes) per pass.

    entropy: of the mean of the probabilities, in nats. mutual_information: that less the mean entropy of the passes
    (Houlsby et al. 2011, BALD). variation_ratio: share of passes whose class is not the commonest.
    """
    count = 0
    mean = entropies = votes = torch.zeros(())
    for logits in passes:
        p = logits.double().softmax(dim=1).cpu()
        count += 1
        mean = mean + p
        entropies = entropies + torch.special.entr(p).sum(dim=1)
        votes = votes + torch.nn.functional.one_hot(p.argmax(dim=1), p.shape[1])
    if measure == "variation_ratio":
        return np.asarray(1 - (votes.amax(dim=1).double() / count).numpy())
    entropy: Tensor = torch.special.entr(mean / count).sum(dim=1)
    return np.asarray((entropy if measure == "entropy" else entropy - entropies / count).numpy())
