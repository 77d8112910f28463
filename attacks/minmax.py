"""Min-max attacks (Wang et al. 2021, arXiv:1906.03563): one perturbation against several domains, which are weighed.

With F_i the loss in domain i, which is small where the label is lost: minimise over the perturbation d, in its ball,
and maximise over weights w, on the simplex, sum w_i F_i(d) - gamma/2 |w - 1/K|². One projected step of each in turn
(algorithm 1), Gauss-Seidel: the weights follow the losses of the perturbation that was just made, and the next
perturbation those weights. So a step costs one pass in each domain.
"""

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from attacks.ball import project, rowwise
from attacks.losses import margin
from attacks.projections import onto_l0_ball, onto_l1_ball, onto_l2_ball, onto_simplex
from bench.contracts import Bounds, JointAttack, Knowledge, Norm


class Game(ABC):
    """n problems side by side, each of at most K domains.

    present: (n, K) bool, the domains that there are; at least one in each row.
    """

    present: Tensor

    @abstractmethod
    def answers(self, delta: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Losses (k, K), differentiable, and whether the label is lost (k, K) bool, of delta (k, ...) at rows (k,)."""

    @abstractmethod
    def project(self, delta: Tensor, rows: Tensor) -> Tensor:
        """The nearest perturbations that are allowed."""


class MinMax(JointAttack):
    """What min-max attacks have in common: how the perturbation descends and the weights ascend."""

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF, Norm.L2, Norm.L1, Norm.L0)
    knowledge: ClassVar[Knowledge] = Knowledge.WHITE_BOX

    norm: Norm = Norm.LINF
    average: bool = Field(default=False, description="keep all weights equal: the baseline of the paper")
    steps: Annotated[int, Field(ge=1)] = 40
    step_size: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="in input units; of the largest coordinate in l1 and l0, else of the norm"
    )
    weight_step: Annotated[float, Field(gt=0)] = Field(default=0.02, description="of the ascent on the weights")
    gamma: Annotated[float, Field(ge=0)] = Field(default=3.0, description="pulls the weights towards equality")
    loss: Literal["margin", "ce"] = Field(default="margin", description="of logits, or minus the cross-entropy")
    confidence: Annotated[float, Field(ge=0)] = Field(
        default=50.0, description="of the margin: a domain that is lost by so much counts no more"
    )

    def losses(self, logits: Tensor, y: Tensor) -> Tensor:
        """(n,): the smaller the more surely the label y (n,) is lost; 0 where scores are not finite."""
        if self.loss == "ce":
            found = -cross_entropy(logits, y, reduction="none")
        else:
            found = (-margin(logits, y)).clamp(min=-self.confidence)
        return torch.where(found.isfinite(), found, torch.zeros_like(found))

    def play(self, game: Game, start: Tensor, stride: float) -> tuple[Tensor, Tensor]:
        """Perturbations (n, ...) from `start`, and weights (n, K): the first that lose the label in most domains.

        A problem ends where the label is lost in all of its domains.
        """
        present = game.present
        equal = present.double() / present.sum(1, keepdim=True)
        best, weights = start.clone(), equal.clone()
        most = torch.full((len(start),), -1, device=start.device)
        rows, delta = torch.arange(len(start), device=start.device), start
        for step in range(self.steps + 1):
            delta = delta.detach().requires_grad_()
            values, gone = game.answers(delta, rows)
            if step and not self.average:
                here, level = weights[rows], equal[rows]
                slope = values.detach().double() - self.gamma * (here - level)
                weights[rows] = onto_simplex(here + self.weight_step * slope, present[rows])
            count = (gone & present[rows]).sum(1)
            better = count > most[rows]
            best[rows[better]], most[rows[better]] = delta.detach()[better], count[better]
            stand = count < present[rows].sum(1)
            if step == self.steps or not bool(stand.any()):
                break
            (slope,) = torch.autograd.grad((weights[rows] * values)[stand].sum(), delta)
            rows, delta, slope = rows[stand], delta.detach()[stand], slope[stand].nan_to_num(0, 0, 0)
            delta = game.project(delta - stride * self.steepest(slope), rows)
        return best, weights

    def stride(self, epsilon: float, width: float) -> float:
        """The length of a step of the perturbation. width: of the bounds."""
        if self.step_size is not None:
            return self.step_size
        return 2.5 * epsilon / self.steps if self.norm in (Norm.LINF, Norm.L2) else 0.25 * width

    def steepest(self, slope: Tensor) -> Tensor:
        """Directions of length one: of the sign, of the L2 norm, or with a largest coordinate of one."""
        if self.norm is Norm.LINF:
            return slope.sign()
        order = 2.0 if self.norm is Norm.L2 else float("inf")
        return slope / rowwise(torch.linalg.vector_norm(slope.flatten(1), order, dim=1).clamp(min=1e-12), slope)

    def nearest(self, delta: Tensor, x: Tensor, epsilon: float, low: float, high: float) -> Tensor:
        """The nearest perturbation (Euclidean) in the ball with low <= x + d <= high."""
        if self.norm is Norm.LINF:
            return (x + delta.clamp(-epsilon, epsilon)).clamp(low, high) - x
        into = {Norm.L2: onto_l2_ball, Norm.L1: onto_l1_ball, Norm.L0: onto_l0_ball}[self.norm]
        return into(delta, x, epsilon, low, high)

    def moved(self, x: Tensor, delta: Tensor, epsilon: float, bounds: Bounds) -> Tensor:
        """x moved by delta, which fits: where the sum is rounded out of the ball or the bounds, it is put back."""
        moved = (x + delta).clamp(*bounds)
        return moved if self.norm is Norm.L0 else project(moved, x, self.norm, epsilon, bounds)
