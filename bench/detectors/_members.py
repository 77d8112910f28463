"""Models that are made of several, and what those say of one input."""

from collections.abc import Sequence

import torch
from torch import Tensor

from bench.contracts import Classifier
from bench.errors import PluginError


def members(model: Classifier, who: str) -> Sequence[Classifier]:
    """The members of an ensemble, or the snapshots of a training. Raises PluginError where there are fewer than two."""
    found = model.members()
    if len(found) < 2:
        raise PluginError(
            f"detector '{who}' needs an ensemble or snapshots of the training, and this model has none",
            "take the adapter `ensemble`, or one with `snapshots`",
        )
    return found


def confidences(model: Classifier, x: Tensor, who: str) -> Tensor:
    """(n, k) float64 on the model's device, with a gradient: each member's softmax for the class that the model itself
    predicts; those of the last one behind."""
    answer = model.logits(x).argmax(dim=1, keepdim=True)
    every = [member.logits(x).double().softmax(dim=1).gather(1, answer)[:, 0] for member in members(model, who)]
    return torch.stack(every, dim=1)
