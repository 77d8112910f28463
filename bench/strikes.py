"""One call of an attack on a batch: towards its goal, within its budget. And how far inputs were moved."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.budgets import BudgetSpent, Limited, Purse
from bench.contracts import Attack, Budget, Classifier, Judging, Norm
from bench.goals import Aimed
from bench.metering import Metered, Passes, judged
from bench.randomness import SampleRandom

TOLERANCE = 1e-6  # by which a verified input may leave the ball or the bounds: rounding of float32

Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]
Run = Callable[[Classifier, Tensor, Tensor, float | None, SampleRandom], Tensor]  # see Attack.run


def struck(
    attack: Attack,
    seen: Classifier,
    passes: Passes,
    rows: Indices,
    x: Tensor,
    y: Tensor,
    epsilon: float | None,
    random: SampleRandom,
    targets: Tensor | None = None,
    budget: Budget | None = None,
    run: Run | None = None,
) -> tuple[Tensor, Mask]:
    """What the attack makes of x (k, ...), and at which samples (k,) its budget was used up.

    rows: (k,) places in `passes`. targets: (k,) classes to be reached; None: any but y (k,) will do. run: what is
    called in the place of the attack's own `run`.
    """
    strike = run or attack.run

    def on(metered: Metered) -> Tensor:
        if targets is None:
            return strike(metered, x, y, epsilon, random).detach()
        return strike(Aimed(metered, targets), x, torch.zeros_like(y), epsilon, random).detach()

    if budget is None:
        return on(Metered(seen, passes, rows)), np.zeros(len(x), dtype=bool)

    def won(scores: Tensor, places: Indices) -> Tensor:
        answer, of = scores.argmax(1), torch.from_numpy(places).to(scores.device)
        return (answer != y[of]) | scores.isnan().any(1) if targets is None else answer == targets[of]

    def inside(moved: Tensor, places: Indices) -> tuple[Mask, NDArray[np.float64]]:
        return within(attack.norm, x[torch.from_numpy(places)], moved, epsilon, seen)

    purse = Purse(budget, x, won, inside, minimal=attack.minimal, stochastic=seen.stochastic)
    try:
        moved = on(Limited(seen, passes, rows, purse, np.arange(len(x))))
    except BudgetSpent:
        return purse.best, purse.stopped
    stopped = torch.from_numpy(purse.stopped)
    moved = moved.clone()
    moved[stopped] = purse.best[stopped]
    return moved, purse.stopped


def within(
    norm: Norm, x: Tensor, moved: Tensor, epsilon: float | None, model: Classifier
) -> tuple[Mask, NDArray[np.float64]]:
    """Whether inputs (n, ...) are inside bounds and ball (None: at any distance), and how far (n,) from x they are."""
    far = distances(norm, moved.double() - x.double())
    low, high = model.bounds
    in_bounds = ((moved >= low - TOLERANCE) & (moved <= high + TOLERANCE)).flatten(1).all(dim=1).cpu().numpy()
    inside = in_bounds & np.isfinite(far)
    if epsilon is not None:
        inside &= far <= epsilon + TOLERANCE
    return inside, far


def verified(
    model: Classifier,
    norm: Norm,
    x: Tensor,
    moved: Tensor,
    epsilon: float | None,
    labels: NDArray[np.int32],
    judging: Judging,
    seed: int,
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.int32], NDArray[np.float64]]:
    """Of each moved input: whether it is inside the threat model, how far it went, and what `judged` says of it."""
    if moved.shape != x.shape or moved.dtype != x.dtype:
        raise ValueError(f"the attack returned {moved.dtype} {tuple(moved.shape)} for {x.dtype} {tuple(x.shape)}")
    inside, far = within(norm, x, moved, epsilon, model)
    return inside, far, *judged(model, moved, labels, judging, seed)


def distances(norm: Norm, difference: Tensor) -> NDArray[np.float64]:
    """Norm of each row of (n, ...), in float64."""
    flat = difference.detach().double().flatten(1)
    lengths: dict[Norm, Callable[[], Tensor]] = {
        Norm.L0: lambda: (flat != 0).sum(dim=1).double(),
        Norm.L1: lambda: flat.abs().sum(dim=1),
        Norm.L2: lambda: flat.norm(dim=1),
        Norm.LINF: lambda: flat.abs().amax(dim=1),
    }
    return lengths[norm]().cpu().numpy()
