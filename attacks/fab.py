"""Fast Adaptive Boundary (Croce and Hein 2020, arXiv:1907.02044): the third attack of AutoAttack."""

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from attacks.ball import length, rowwise
from attacks.projections import onto_hyperplane
from attacks.standing import Board, StandingAttack, lost, ranking
from bench.contracts import Classifier, Knowledge, Norm, attack
from bench.randomness import SampleRandom

ALPHA_MAX, ETA, BETA = 0.1, 1.05, 0.9  # bias towards the input, overshoot, backward step: the paper's, for all norms


class BoundaryWalk(StandingAttack):
    """Walks along the decision boundary towards the input; a sample is left alone once that is inside epsilon."""

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF, Norm.L2, Norm.L1)
    knowledge: ClassVar[Knowledge] = Knowledge.WHITE_BOX

    norm: Norm = Norm.LINF
    steps: Annotated[int, Field(ge=1)] = 100

    def walk(
        self, model: Classifier, x: Tensor, y: Tensor, target: Tensor | None, epsilon: float, start: Tensor
    ) -> tuple[Tensor, Tensor]:
        """From `start` (n, ...): what was found, and which (n,) bool broke within epsilon of x.

        target: (n,) class across whose boundary to go; None: the nearest one's by the linearised distance.
        """
        moved, broken = x.clone(), torch.zeros(len(x), dtype=torch.bool, device=x.device)
        rows, point = torch.arange(len(x), device=x.device), start
        for _ in range(self.steps):
            part, label, centre = model.rows(rows), y[rows], x[rows]
            aim = None if target is None else target[rows]
            gap, slope = _linearised(part, point, label, aim, self.norm)
            point = self._step(point, centre, gap, slope, model)
            with torch.no_grad():
                across = lost(part.logits(point), label)
            inside = across & (length(point - centre, self.norm) <= epsilon)
            moved[rows[inside]], broken[rows[inside]] = point[inside], True
            point = torch.where(rowwise(across, point), centre + BETA * (point - centre), point)
            if bool(inside.any()):
                rows, point = rows[~inside], point[~inside]
                if not len(rows):
                    break
        return moved, broken

    def _step(self, point: Tensor, centre: Tensor, gap: Tensor, slope: Tensor, model: Classifier) -> Tensor:
        """Towards the hyperplane gap + slope·d = 0, from the point and (alpha of the way) from the input itself."""
        n, (low, high) = len(point), model.bounds
        w = slope.flatten(1)
        both = torch.cat([point.flatten(1), centre.flatten(1)])
        from_centre = gap + (w * (centre - point).flatten(1)).sum(1)
        moves = onto_hyperplane(both, torch.cat([w, w]), -torch.cat([gap, from_centre]), self.norm, low, high)
        size = length(moves, self.norm).clamp(min=1e-8).to(point.dtype)
        near, far = size[:n], size[n:]
        alpha = rowwise((near / (near + far)).clamp(max=ALPHA_MAX), point)
        from_point, from_input = moves[:n].reshape(point.shape), moves[n:].reshape(point.shape)
        moved: Tensor = (point + ETA * from_point) * (1 - alpha) + (centre + ETA * from_input) * alpha
        return moved.clamp(low, high)


@attack("fab")
class FastAdaptiveBoundary(BoundaryWalk):
    """Walks along the nearest decision boundary towards the input, with random restarts: small perturbations.

    One backward pass per class and step: `fab_t` is the cheaper one for many classes.
    """

    restarts: Annotated[int, Field(ge=1)] = 1

    def strike(
        self, model: Classifier, x: Tensor, y: Tensor, epsilon: float, random: SampleRandom
    ) -> tuple[Tensor, Tensor]:
        """See StandingAttack.strike. Per step two forward and `classes` backward passes. The first start is x."""
        board = Board(x)
        for restart, rows in board.rounds(self.restarts):
            centre, start = x[rows], x[rows]
            if restart:
                draw = random.rows(rows)
                shape, device = x.shape[1:], str(x.device)
                linf = self.norm is Norm.LINF
                noise = draw.uniform(shape, -1.0, 1.0, device) if linf else draw.normal(shape, device)
                scale = rowwise(0.5 * epsilon / length(noise, self.norm).clamp(min=1e-12), noise).to(x.dtype)
                start = (centre + noise * scale).clamp(*model.bounds)
            board.take(rows, *self.walk(model.rows(rows), centre, y[rows], None, epsilon, start))
        return board.moved, board.broken


@attack("fab_t")
class FastAdaptiveBoundaryTargeted(BoundaryWalk):
    """Walks along the decision boundary to one class after another, those of largest logits first.

    `targets`: never more than there are. Any lost label counts, whichever class it goes to. No randomness.
    """

    targets: Annotated[int, Field(ge=1)] = 9

    def strike(
        self, model: Classifier, x: Tensor, y: Tensor, epsilon: float, random: SampleRandom
    ) -> tuple[Tensor, Tensor]:
        """See StandingAttack.strike. Two forward and one backward pass per step and target."""
        board = Board(x)
        ranked = ranking(model, x)
        for number, rows in board.rounds(min(self.targets, model.classes - 1)):
            aim = ranked[rows, number + 1]
            board.take(rows, *self.walk(model.rows(rows), x[rows], y[rows], aim, epsilon, x[rows]))
        return board.moved, board.broken


def _linearised(
    model: Classifier, point: Tensor, y: Tensor, target: Tensor | None, norm: Norm
) -> tuple[Tensor, Tensor]:
    """z_target - z_y (n,) at these points and its gradient (n, ...); without a target that of the nearest class."""
    point = point.detach().requires_grad_()
    logits = model.logits(point)
    own = logits.gather(1, y[:, None])
    if target is not None:
        gap = (logits.gather(1, target[:, None]) - own)[:, 0]
        (slope,) = torch.autograd.grad(gap.sum(), point)
        return gap.detach(), slope
    gaps = logits - own
    dual = {Norm.LINF: Norm.L1, Norm.L2: Norm.L2, Norm.L1: Norm.LINF}[norm]
    nearest = torch.full_like(y, torch.inf, dtype=point.dtype)
    gap, slope = torch.zeros_like(nearest), torch.zeros_like(point)
    for other in range(model.classes):
        (gradient,) = torch.autograd.grad(gaps[:, other].sum(), point, retain_graph=other < model.classes - 1)
        away = gaps[:, other].detach().abs() / length(gradient, dual).to(point.dtype).clamp(min=1e-12)
        closer = (away < nearest) & (y != other)
        nearest, gap = torch.where(closer, away, nearest), torch.where(closer, gaps[:, other].detach(), gap)
        slope = torch.where(rowwise(closer, slope), gradient, slope)
    return gap, slope
