"""Where Auto-PGD starts and how it steps, in the balls of Linf, L2 and L1."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from attacks.ball import Balls, Boxes, rowwise
from attacks.projections import onto_l1_ball
from bench.contracts import Norm
from bench.randomness import SampleRandom

MOMENTUM = 0.25


class StepBall(Balls, ABC):
    """The balls of one norm. Points are (n, ...)."""

    norm: ClassVar[Norm]
    reach: ClassVar[float] = 2.0  # first step size, in radii

    @property
    def first_step(self) -> float:
        return self.reach * self.epsilon

    @abstractmethod
    def random(self, random: SampleRandom) -> Tensor:
        """A starting point for each row."""

    @abstractmethod
    def project(self, point: Tensor) -> Tensor: ...

    @abstractmethod
    def uphill(self, gradient: Tensor) -> Tensor:
        """The direction of a step, of length one in the ball's norm."""

    def active(self, point: Tensor) -> Tensor:
        """(n,) what `step` has to know of the best point; used for L1 alone."""
        return torch.zeros(len(point), device=point.device)

    def step(
        self, point: Tensor, before: Tensor, gradient: Tensor, size: Tensor, active: Tensor, first: bool
    ) -> Tensor:
        """z = P(point + size · uphill), then P(point + .75 (z - point) + .25 (point - before)): equation (1)."""
        straight = self.project(point + rowwise(size, point) * self.uphill(gradient))
        if first:
            return straight
        return self.project(point + (1 - MOMENTUM) * (straight - point) + MOMENTUM * (point - before))


class LinfBall(Boxes, StepBall):
    norm = Norm.LINF

    def random(self, random: SampleRandom) -> Tensor:
        """Uniform in the cube, stretched so that it touches the ball."""
        noise = random.uniform(self.x.shape[1:], -1.0, 1.0, str(self.x.device))
        noise = noise / rowwise(noise.flatten(1).abs().amax(1) + 1e-12, noise)
        return self.project(self.x + self.epsilon * noise)

    def uphill(self, gradient: Tensor) -> Tensor:
        return gradient.sign()


class L2Ball(StepBall):
    norm = Norm.L2

    def random(self, random: SampleRandom) -> Tensor:
        """Uniform on the sphere."""
        return self.project(self.x + self.epsilon * self.uphill(random.normal(self.x.shape[1:], str(self.x.device))))

    def project(self, point: Tensor) -> Tensor:
        delta = point - self.x
        size = delta.flatten(1).norm(dim=1)
        factor = (self.epsilon * (1 - 1e-6) / size.clamp(min=1e-12)).clamp(max=1.0)
        return (self.x + delta * rowwise(factor, point)).clamp(self.bounds.low, self.bounds.high)

    def uphill(self, gradient: Tensor) -> Tensor:
        return gradient / rowwise(gradient.flatten(1).norm(dim=1) + 1e-12, gradient)


class L1Ball(StepBall):
    """Steps along few coordinates: those of largest gradient, 2/3 as many as the best point has changed."""

    norm = Norm.L1
    reach = 1.0

    def random(self, random: SampleRandom) -> Tensor:
        return self.project(self.x + random.normal(self.x.shape[1:], str(self.x.device)))

    def project(self, point: Tensor) -> Tensor:
        return self.x + onto_l1_ball(point - self.x, self.x, self.epsilon, self.bounds.low, self.bounds.high)

    def uphill(self, gradient: Tensor) -> Tensor:
        signs = gradient.sign()
        return signs / rowwise(signs.flatten(1).abs().sum(1) + 1e-10, signs)

    def active(self, point: Tensor) -> Tensor:
        return (point != self.x).flatten(1).sum(1).float()

    def step(
        self, point: Tensor, before: Tensor, gradient: Tensor, size: Tensor, active: Tensor, first: bool
    ) -> Tensor:
        """Algorithm 1 of the L1 paper: no momentum."""
        magnitude = gradient.flatten(1).abs()
        k = magnitude.shape[1]
        place = ((1 - active / k / 1.5) * k).clamp(0, k - 1).long()
        threshold = magnitude.sort(dim=1).values.gather(1, place[:, None])[:, 0]
        sparse = torch.where(gradient.abs() >= rowwise(threshold, gradient), gradient, 0.0)
        return self.project(point + rowwise(size, point) * self.uphill(sparse))


BALLS: Mapping[Norm, type[StepBall]] = {ball.norm: ball for ball in (LinfBall, L2Ball, L1Ball)}
