"""Auto-PGD (Croce and Hein 2020, arXiv:2003.01690, algorithm 1): the ascent that the attacks `apgd_*` share.

For L1 the ascent and its schedule are those of Croce and Hein 2021, arXiv:2103.01208, section 4. A sample is dropped as
soon as it is broken, the last iterate is judged but not differentiated, and every decision is made per sample.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from attacks.apgd_balls import BALLS, StepBall
from attacks.ball import rowwise
from attacks.standing import lost
from bench.contracts import Classifier, Norm
from bench.randomness import SampleRandom

Loss = Callable[[Tensor, Tensor], Tensor]  # (n, classes) logits and the rows (n,) of the batch they belong to, to (n,)


def checkpoints(steps: int, norm: Norm) -> list[int]:
    """After which steps step sizes are reconsidered: after .22 of them, then at intervals .03 shorter, at least .06.

    Equation (2) of the paper: p_1 = .22, p_(j+1) = p_j + max(p_j - p_(j-1) - .03, .06). For L1 every .04 of them.
    """
    if norm is Norm.L1:
        interval = max(int(0.04 * steps), 1)
        return list(range(interval, steps + 1, interval))
    interval, found = max(int(0.22 * steps), 1), [0]
    while found[-1] + interval <= steps:
        found.append(found[-1] + interval)
        interval = max(interval - max(int(0.03 * steps), 1), int(0.06 * steps), 1)
    return found[1:]


@dataclass(frozen=True)
class Ascent:
    """Moves samples (n, ...) uphill on `loss` inside the ball. passes: of each point, averaged (EOT).

    rho: share of the steps since the last checkpoint that have to raise the loss, or the step size is halved.
    """

    model: Classifier
    loss: Loss
    norm: Norm
    epsilon: float
    passes: int
    rho: float = 0.75

    def climb(
        self, x: Tensor, y: Tensor, rows: Tensor, start: Tensor, steps: int, judge: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """From `start` (k, ...): the points that broke, which rows (k,) bool broke, and the points of highest loss.

        x, y: all of the batch; rows (k,): those to move. judge: drop what breaks; else nothing counts as broken.
        """
        moved, broken = start.clone(), torch.zeros(len(rows), dtype=torch.bool, device=x.device)
        highest = start.clone()
        state = _State.begin(BALLS[self.norm](x[rows], self.epsilon, self.model.bounds), start, rows)
        checks, last_check = checkpoints(steps, self.norm), 0
        for step in range(steps + 1):
            if step:
                state.move(step)
            value, gradient, gone = self._look(state.point, y, state.rows, differentiate=step < steps)
            if judge and bool(gone.any()):
                moved[state.place[gone]], broken[state.place[gone]] = state.point[gone], True
                state, value, gradient = state.keep(~gone), value[~gone], gradient[~gone]
                if not len(state.rows):
                    break
            state.record(value, gradient, first=step == 0)
            if step in checks:
                state.reconsider(step - last_check, self.rho)
                last_check = step
        highest[state.place] = state.best
        return moved, broken, highest

    def _look(self, point: Tensor, y: Tensor, rows: Tensor, differentiate: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Loss (n,), its gradient, and whether the label is lost (by the mean of the logits), at these points."""
        part, label = self.model.rows(rows), y[rows]
        gradient, value, scores = torch.zeros_like(point), torch.zeros(len(point), device=point.device), None
        with torch.set_grad_enabled(differentiate):
            for _ in range(self.passes):
                leaf = point.detach().requires_grad_(differentiate)
                logits = part.logits(leaf)
                each = self.loss(logits, rows)
                if differentiate:
                    # what is broken is dropped: its gradient is not needed, but computed in the same pass
                    (slope,) = torch.autograd.grad(each.sum(), leaf)
                    gradient += slope / self.passes
                value += each.detach() / self.passes
                scores = logits.detach() if scores is None else scores + logits.detach()
        assert scores is not None
        return value, gradient, lost(scores, label)


@dataclass
class _State:
    """One row per sample that still stands, in every field."""

    ball: StepBall
    place: Tensor  # (n,) position in the batch that `climb` was given
    rows: Tensor  # (n,) position in the whole batch
    point: Tensor
    before: Tensor  # the point before it
    gradient: Tensor
    best: Tensor  # the point of highest loss,
    best_gradient: Tensor
    best_value: Tensor  # (n,)
    value: Tensor  # (n,) of the last point
    size: Tensor  # (n,) step size
    rises: Tensor  # (n,) steps since the last checkpoint that raised the loss
    best_then: Tensor  # (n,) best_value at the last checkpoint
    halved: Tensor  # (n,) bool: whether the last checkpoint halved the step
    active: Tensor  # (n,) for L1: coordinates that differ from x, at the last checkpoint

    @classmethod
    def begin(cls, ball: StepBall, start: Tensor, rows: Tensor) -> "_State":
        n, device = len(rows), start.device
        none, gradient = torch.zeros(n, device=device), torch.zeros_like(start)
        return cls(
            ball, torch.arange(n, device=device), rows, start, start, gradient, start, gradient, none, none,
            torch.full((n,), ball.first_step, device=device), none, none,
            torch.ones(n, dtype=torch.bool, device=device), ball.active(start),
        )  # fmt: skip

    def keep(self, mask: Tensor) -> "_State":
        return _State(self.ball.rows(mask), *(getattr(self, name)[mask] for name in _ROWS))

    def move(self, step: int) -> None:
        """One step, with the momentum of the one before it (weight .25, none in the first step)."""
        point = self.ball.step(self.point, self.before, self.gradient, self.size, self.active, step == 1)
        self.before, self.point = self.point, point

    def record(self, value: Tensor, gradient: Tensor, first: bool) -> None:
        if first:
            self.best_value, self.best_then, self.best_gradient = value, value, gradient
        else:
            self.rises = self.rises + (value > self.value)
            better = value > self.best_value
            self.best = torch.where(rowwise(better, self.best), self.point, self.best)
            self.best_gradient = torch.where(rowwise(better, self.best), gradient, self.best_gradient)
            self.best_value = torch.where(better, value, self.best_value)
        self.value, self.gradient = value, gradient

    def reconsider(self, interval: int, rho: float) -> None:
        """At a checkpoint: who takes shorter steps from now on, and goes back to its best point."""
        if self.ball.norm is Norm.L1:
            active = self.ball.active(self.best)
            back = active < 0.95 * self.active
            first = self.ball.first_step
            self.size = torch.where(back, first, self.size / 1.5).clamp(first / 10, first)
            self.active = active
        else:
            stuck = ~self.halved & (self.best_then >= self.best_value)
            back = (self.rises <= rho * interval) | stuck
            self.size = torch.where(back, self.size / 2, self.size)
            self.halved, self.best_then, self.rises = back, self.best_value, torch.zeros_like(self.rises)
        self.point = torch.where(rowwise(back, self.best), self.best, self.point)
        self.gradient = torch.where(rowwise(back, self.best), self.best_gradient, self.gradient)


_ROWS: Sequence[str] = [part.name for part in fields(_State) if part.name != "ball"]


def ascend(
    model: Classifier, loss: Loss, norm: Norm, epsilon: float, passes: int, steps: int,
    x: Tensor, y: Tensor, rows: Tensor, random: SampleRandom,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """One descent from a random start for these rows (k,) of the batch: the points found, and which (k,) bool broke.

    L1 goes through balls of 3, 2 and 1 epsilon with .3, .3 and .4 of the steps; only the last can break a sample.
    """
    ball, centre = BALLS[norm], x[rows]
    phases = [(epsilon, steps)]
    if norm is Norm.L1:
        early = math.ceil(0.3 * steps)
        phases = [(3 * epsilon, early), (2 * epsilon, early), (epsilon, steps - 2 * early)]
    point = ball(centre, phases[0][0], model.bounds).random(random.rows(rows))
    for (radius, count), (smaller, _) in itertools.pairwise(phases):
        point = Ascent(model, loss, norm, radius, passes).climb(x, y, rows, point, count, judge=False)[2]
        point = ball(centre, smaller, model.bounds).project(point)
    moved, broken, _ = Ascent(model, loss, norm, epsilon, passes).climb(x, y, rows, point, phases[-1][1])
    return moved, broken
