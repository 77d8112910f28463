"""Adversarial starting points for attacks that walk along the decision boundary, sought for each sample by itself."""

import torch
from torch import Tensor

from attacks.ball import rowwise
from bench.contracts import Bounds, Classifier
from bench.randomness import SampleRandom


def blended_noise(
    model: Classifier, x: Tensor, y: Tensor, random: SampleRandom, directions: int = 1000, steps: int = 50
) -> tuple[Tensor, Tensor]:
    """Each input blended with the first uniform noise that is not given its label, as little as loses it.

    x: (n, *input_shape) in bounds; y: (n,). Up to `directions` noises are tried per sample, then blends of 1/steps,
    2/steps, ... Returns starting points (n, *input_shape) and a mask (n,): whether there is one.
    """
    bounds = Bounds(*model.bounds)
    noise, found = x.clone(), torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for _ in range(directions):
        rows = (~found).nonzero()[:, 0]
        if len(rows) == 0:
            break
        tried = random.rows(rows).uniform(x.shape[1:], *bounds, device=str(x.device))
        lost = loses(model, rows, tried, y)
        noise[rows[lost]] = tried[lost]
        found[rows[lost]] = True
    start, searched = noise.clone(), found.clone()
    for step in range(1, steps):
        rows = searched.nonzero()[:, 0]
        if len(rows) == 0:
            break
        blend = torch.full((len(rows),), step / steps, device=x.device)
        tried = torch.lerp(x[rows], noise[rows], rowwise(blend, x)).clamp(*bounds)
        lost = loses(model, rows, tried, y)
        start[rows[lost]] = tried[lost]
        searched[rows[lost]] = False
    return start, found


def loses(model: Classifier, rows: Tensor, tried: Tensor, y: Tensor) -> Tensor:
    """Whether the inputs `tried` (k, ...), one for each of `rows` (k,), are not given their labels: (k,) booleans."""
    with torch.no_grad():
        return model.rows(rows).logits(tried).argmax(1) != y[rows]
