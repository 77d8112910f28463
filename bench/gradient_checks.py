"""Whether a model's gradients can be trusted: asked of the model itself, on a few samples, before any attack runs.

The indicators of Pintor et al. 2022, arXiv:2106.09947, and the checks of Croce and Hein 2020, arXiv:2003.01690, that
need no attack: short ascents without any limit but the bounds, on the margin and on the cross-entropy.
"""

from collections.abc import Callable
from enum import StrEnum

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from bench.contracts import Classifier, Gradients
from bench.randomness import SampleRandom

STEPS = 100  # of an ascent, each of 1/STEPS of the width of the bounds: together they reach every corner
REPEATED = 1e-4  # of the largest logit: by so much two passes of one input may differ
NEAR = 1e-3  # of the width of the bounds: how far away the gradient is asked again
LAG = 2  # so many times the steps of the ascent on the margin the one on the cross-entropy may take
TURNED = 0.5  # cosine of the 60 degrees that it may turn by in between
ROUNDED = 0.9  # cosine between the gradient of the cross-entropy and what it would be without rounding
NOISE = 16  # passes averaged where the model is stochastic

Loss = Callable[[Tensor, Tensor], Tensor]  # (n, classes) and (n,) to (n,), to be made large


class Sign(StrEnum):
    """What is wrong with the gradients at one sample."""

    UNDECLARED_NOISE = "undeclared noise"  # two passes differ, and the model is not declared stochastic
    NO_GRADIENT = "no gradient"  # of the margin: zero, not finite, or not to be had
    NO_GRADIENT_OF_LOSS = "no gradient of the loss"  # of the cross-entropy, where that of the margin is alive
    ROUNDED_LOSS = "rounded loss"  # the cross-entropy's gradient points elsewhere than it would without rounding
    NO_GROWTH = "no growth"  # no step along the gradient ever raises the margin
    UNBOUNDED = "unbounded"  # neither ascent loses the label, though nothing limits it
    LAGGING_LOSS = "lagging loss"  # the cross-entropy takes more than LAG times the steps that the margin takes
    ROUGH = "rough"  # the gradient points elsewhere a thousandth of the width away


def examine(model: Classifier, x: Tensor, y: Tensor, random: SampleRandom) -> list[list[str]]:
    """The signs at each sample, in the order of `Sign`.

    x: (n, *input_shape) in bounds; y: (n,) int64, labels that the model gets right. random: one stream per row. Nothing
    is said of a model that declares no gradients.
    """
    found: list[list[str]] = [[] for _ in range(len(x))]
    if not len(x) or model.gradients is Gradients.NONE:
        return found

    def mark(sign: Sign, where: Tensor) -> None:
        for row in where.nonzero()[:, 0].tolist():
            found[row].append(str(sign))

    if not model.stochastic:
        mark(Sign.UNDECLARED_NOISE, _differing(model, x))
    slope, slope_of_loss = _slope(model, x, y, margin), _slope(model, x, y, _loss)
    dead, dead_loss = _dead(slope), _dead(slope_of_loss)
    mark(Sign.NO_GRADIENT, dead)
    mark(Sign.NO_GRADIENT_OF_LOSS, dead_loss & ~dead)
    if not model.stochastic:
        exact = _slope(model, x, y, unrounded)
        mark(Sign.ROUNDED_LOSS, _apart(slope_of_loss, exact, ROUNDED) & ~dead_loss & ~_dead(exact))
    grew, steps = _ascend(model, x, y, margin)
    _, steps_of_loss = _ascend(model, x, y, _loss)
    mark(Sign.NO_GROWTH, ~grew)
    mark(Sign.UNBOUNDED, (steps > STEPS) & (steps_of_loss > STEPS))
    mark(Sign.LAGGING_LOSS, (steps <= STEPS) & (steps_of_loss > LAG * steps + 1))
    if not model.stochastic:
        mark(Sign.ROUGH, _rough(model, x, y, slope, random) & ~dead)
    return found


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Largest other logit less the label's: above 0 where the label is lost."""
    own = logits.gather(1, y[:, None])[:, 0]
    return logits.scatter(1, y[:, None], -torch.inf).amax(1) - own


def unrounded(logits: Tensor, y: Tensor) -> Tensor:
    """A function of the cross-entropy whose gradient has its direction, and is not rounded away: (n,).

    log Σ exp(z_i) over i != y, less z_y. In float32 the softmax gives the label 1 where this is below -16.6, since
    1 - p < 2^-24; the label's own part of the cross-entropy's gradient, p - 1, is then 0.
    """
    return logits.scatter(1, y[:, None], -torch.inf).logsumexp(1) - logits.gather(1, y[:, None])[:, 0]


def _loss(logits: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(logits, y, reduction="none")


def _differing(model: Classifier, x: Tensor) -> Tensor:
    with torch.no_grad():
        first, second = model.logits(x), model.logits(x)
    return ((first - second).abs().amax(1) > REPEATED * first.abs().amax(1)).cpu()


def _look(model: Classifier, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, loss (n,) and its gradient, zero where there is none; means over NOISE passes of a stochastic model."""
    passes = NOISE if model.stochastic else 1
    leaf = x.detach().requires_grad_()
    total = torch.stack([model.logits(leaf) for _ in range(passes)])
    value = torch.stack([loss(logits, y) for logits in total]).mean(0)
    slope = torch.autograd.grad(value.sum(), leaf, allow_unused=True)[0] if value.requires_grad else None
    return total.detach().mean(0), value.detach(), torch.zeros_like(x) if slope is None else slope


def _slope(model: Classifier, x: Tensor, y: Tensor, loss: Loss) -> Tensor:
    return _look(model, x, y, loss)[2]


def _dead(slope: Tensor) -> Tensor:
    rows = slope.flatten(1)
    return (~rows.isfinite().all(1) | (rows == 0).all(1)).cpu()


def _ascend(model: Classifier, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """Whether (n,) the loss ever rose, and after how many steps (n,) the label was lost: STEPS + 1 for never."""
    low, high = model.bounds
    stride, n = (high - low) / STEPS, len(x)
    grew, taken = torch.zeros(n, dtype=torch.bool), torch.full((n,), STEPS + 1)
    rows, point, start = torch.arange(n, device=x.device), x, torch.zeros(0)
    for step in range(STEPS + 1):
        logits, value, slope = _look(model, point, y[rows], loss)
        start = value if step == 0 else start
        here, lost = rows.cpu(), margin(logits, y[rows]) > 0
        grew[here] |= ((value > start) | lost).cpu()
        taken[here[lost.cpu()]] = step
        rows, point, slope, start = rows[~lost], point[~lost], slope[~lost], start[~lost]
        if not len(rows):
            break
        point = (point + stride * slope.sign()).clamp(low, high)
    return grew, taken


def _rough(model: Classifier, x: Tensor, y: Tensor, slope: Tensor, random: SampleRandom) -> Tensor:
    """Whether the gradient a little away forms more than 60 degrees with the gradient here."""
    width = model.bounds.high - model.bounds.low
    noise = random.uniform(x.shape[1:], -NEAR * width, NEAR * width, str(x.device))
    beside = _slope(model, (x + noise).clamp(*model.bounds), y, margin)
    return _apart(slope, beside, TURNED)


def _apart(slope: Tensor, other: Tensor, least: float) -> Tensor:
    """Whether (n,) the cosine between two gradients, which may be tiny, is below `least`."""
    one, two = ((rows / rows.abs().amax(1, keepdim=True)) for rows in (slope.flatten(1), other.flatten(1)))
    return (torch.nn.functional.cosine_similarity(one, two) < least).cpu()
