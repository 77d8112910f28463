"""Projected gradient descent on the cross-entropy (Madry et al. 2018, arXiv:1706.06083, section 2.1).

With momentum it is the MI-FGSM of Dong et al. 2018, arXiv:1710.06081, equations 6 and 7.
"""

from typing import Annotated, ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from attacks.ball import Balls, box, project, rowwise
from bench.contracts import Attack, Bounds, Classifier, Knowledge, Norm, attack
from bench.randomness import SampleRandom


@attack("pgd")
class ProjectedGradientDescent(Attack):
    """Steps along the loss gradient, projected on the ball; a sample is left alone as soon as it is broken.

    `step_size` is in input units, 2.5 * epsilon / steps where it is not given. Each restart begins at a point drawn
    uniformly from the ball, or at the input itself without `random_start` (then more than one restart repeats itself
    and is refused). What is returned is the first broken iterate, else the last iterate of the last restart.
    `momentum`: weight of the gradients before, each in units of its L1 norm. `eot`: passes averaged per step, for
    stochastic models.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF, Norm.L2)
    knowledge: ClassVar[Knowledge] = Knowledge.WHITE_BOX
    swift: ClassVar[bool] = True

    norm: Norm = Norm.LINF
    steps: Annotated[int, Field(ge=1)] = 40
    step_size: Annotated[float, Field(gt=0)] | None = None
    random_start: bool = True
    restarts: Annotated[int, Field(ge=1)] = 1
    momentum: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    eot: Annotated[int, Field(ge=1)] = 1

    def model_post_init(self, _context: object) -> None:
        if self.restarts > 1 and not self.random_start:
            raise ValueError(
                "restarts without random_start repeat the same descent: set random_start, or restarts to 1"
            )

    @property
    def averages(self) -> bool:
        return self.eot > 1

    def run(self, model: Classifier, x: Tensor, y: Tensor, epsilon: float | None, random: SampleRandom) -> Tensor:
        """See Attack.run. At most `steps` times `eot` forward and backward passes per sample and restart.

        The forward pass of a step judges the step before it. The last iterate of the last restart stays unjudged: the
        engine's verification is its forward pass.
        """
        assert epsilon is not None
        result = x.clone()
        standing = torch.arange(len(x), device=x.device)
        for restart in range(self.restarts):
            if len(standing) == 0:
                break
            last = restart == self.restarts - 1
            standing = self._descend(model, x, y, epsilon, random, standing, result, judge=not last)
        return result

    def _descend(
        self,
        model: Classifier,
        x: Tensor,
        y: Tensor,
        epsilon: float,
        random: SampleRandom,
        rows: Tensor,
        result: Tensor,
        judge: bool,
    ) -> Tensor:
        """One restart for these rows: writes iterates into `result`, returns the rows that still stand."""
        step_size = 2.5 * epsilon / self.steps if self.step_size is None else self.step_size
        ball = Ball(x[rows], self.norm, epsilon, model.bounds)
        label, part = y[rows], model.rows(rows)
        point = ball.project(ball.random(random.rows(rows))) if self.random_start else ball.x
        along = torch.zeros_like(point)
        for _ in range(self.steps):
            point = point.detach().requires_grad_()
            passes = [part.logits(point) for _ in range(self.eot)]
            stands = _mean(passes).argmax(1) == label
            standing = int(stands.sum())
            if standing < len(rows):
                result[rows[~stands]] = point.detach()[~stands]
                if standing == 0:
                    return rows[stands]
            loss = torch.stack(
                [cross_entropy(logits[stands], label[stands], reduction="sum") for logits in passes]
            ).sum()
            (gradient,) = torch.autograd.grad(loss, point)
            point = point.detach()
            if standing < len(rows):
                rows, label, point, gradient = rows[stands], label[stands], point[stands], gradient[stands]
                ball, part, along = ball.rows(stands), model.rows(rows), along[stands]
            if self.momentum:
                size = gradient.flatten(1).abs().sum(1).clamp(min=1e-30)
                gradient = along = self.momentum * along + gradient / rowwise(size, gradient)
            point = ball.project(point + step_size * ball.direction(gradient))
        result[rows] = point
        if not judge:
            return rows
        with torch.no_grad():
            return rows[_mean([part.logits(point) for _ in range(self.eot)]).argmax(1) == label]


def _mean(passes: list[Tensor]) -> Tensor:
    """Mean logits over the passes, without a graph."""
    return passes[0].detach() if len(passes) == 1 else torch.stack([logits.detach() for logits in passes]).mean(0)


class Ball(Balls):
    """The balls of one norm."""

    def __init__(self, x: Tensor, norm: Norm, epsilon: float, bounds: Bounds) -> None:
        super().__init__(x, epsilon, bounds)
        self.norm = norm
        self.limits = box(x, epsilon, bounds) if norm is Norm.LINF else None

    def rows(self, keep: Tensor) -> Self:
        part = super().rows(keep)
        part.limits = None if self.limits is None else (self.limits[0][keep], self.limits[1][keep])
        return part

    def project(self, point: Tensor) -> Tensor:
        if self.limits is None:
            return project(point, self.x, self.norm, self.epsilon, self.bounds)
        return torch.minimum(torch.maximum(point, self.limits[0]), self.limits[1])

    def direction(self, gradient: Tensor) -> Tensor:
        """The steepest direction of length one in the ball's norm."""
        if self.norm is Norm.LINF:
            return gradient.sign()
        return gradient / rowwise(gradient.flatten(1).norm(dim=1).clamp(min=1e-12), gradient)

    def random(self, random: SampleRandom) -> Tensor:
        """Points uniform in the ball (before the bounds cut it), one stream per row."""
        shape, device = self.x.shape[1:], str(self.x.device)
        if self.norm is Norm.LINF:
            return self.x + random.uniform(shape, -self.epsilon, self.epsilon, device)
        radius = self.epsilon * random.uniform((1,), device=device)[:, 0] ** (1 / shape.numel())
        return self.x + rowwise(radius, self.x) * self.direction(random.normal(shape, device))
