"""Losses of attacks: (n, classes) logits and (n,) labels to (n,), to be made large."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def ce(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy, at least 0."""
    return cross_entropy(logits, y, reduction="none")


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio, in [-1, 1]: -(z_y - max over i != y of z_i) / (z_1st - z_3rd).

    Unmoved by a shift or a scale of the logits, so that they cannot saturate it. Needs three classes. Croce and Hein
    2020, arXiv:2003.01690, equation 6.
    """
    ordered = logits.sort(dim=1, descending=True).values
    own = logits.gather(1, y[:, None])[:, 0]
    other = torch.where(logits.argmax(1) == y, ordered[:, 1], ordered[:, 0])
    return -(own - other) / (ordered[:, 0] - ordered[:, 2] + 1e-12)


def dlr_targeted(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """-(z_y - z_target) / (z_1st - (z_3rd + z_4th) / 2). Needs four classes. The same, equation 7."""
    ordered = logits.sort(dim=1, descending=True).values
    own, aim = logits.gather(1, torch.stack([y, target], dim=1)).unbind(1)
    return -(own - aim) / (ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2 + 1e-12)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Largest other logit less the label's: above 0 where the label is lost."""
    own = logits.gather(1, y[:, None])[:, 0]
    return logits.scatter(1, y[:, None], -torch.inf).amax(1) - own
