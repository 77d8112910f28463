"""Rotations and translations (Engstrom et al. 2019, arXiv:1712.02779, section 3)."""

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from attacks.ball import length
from attacks.standing import Board, StandingAttack, lost
from attacks.transformations import need_images, rigidly_moved
from bench.contracts import Allowance, Classifier, Knowledge, Norm, attack
from bench.randomness import SampleRandom

Odd = Annotated[int, Field(ge=1, le=999)]


@attack("spatial")
class Spatial(StandingAttack):
    """Turns and shifts an image within limits of its own: every point of a grid, or the worst of some at random.

    Its threat model are `degrees` and `pixels` (each way), not a ball: what it hands back besides lies in the ball of
    norm and epsilon, which limits nothing where epsilon is the bounds' width in `linf`. The mildest are tried first,
    and the first that loses the label is kept. `tries`: so many random ones (worst of k) in the place of the grid. What
    comes in from outside the image is its lowest value.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF, Norm.L2, Norm.L1, Norm.L0)
    knowledge: ClassVar[Knowledge] = Knowledge.DECISION

    norm: Norm = Norm.LINF
    degrees: Annotated[float, Field(ge=0, le=180)] = 30.0
    pixels: Annotated[float, Field(ge=0)] = 3.0
    angles: Odd = Field(default=31, description="of the grid, from -degrees to degrees")
    shifts: Odd = Field(default=5, description="of the grid, in each of the two directions")
    tries: Annotated[int, Field(ge=1)] | None = Field(default=None, description="random ones, in the place of the grid")

    @property
    def allowance(self) -> Allowance:
        return Allowance(queries=self.tries or self.angles * self.shifts**2)

    def grid(self) -> Tensor:
        """(m, 3): degrees, pixels to the right and down; the mildest, relative to the limits, first."""
        turns = torch.linspace(-1, 1, self.angles) if self.angles > 1 else torch.zeros(1)
        shifts = torch.linspace(-1, 1, self.shifts) if self.shifts > 1 else torch.zeros(1)
        shares = torch.cartesian_prod(turns, shifts, shifts)
        order = shares.abs().amax(1).argsort(stable=True)
        return shares[order] * self._limits()

    def _limits(self) -> Tensor:
        return torch.tensor([self.degrees, self.pixels, self.pixels])

    @torch.no_grad()
    def strike(
        self, model: Classifier, x: Tensor, y: Tensor, epsilon: float, random: SampleRandom
    ) -> tuple[Tensor, Tensor]:
        """See StandingAttack.strike. At most angles * shifts² passes, or `tries`. Raises PluginError without images."""
        need_images(self.name, x)
        board, bounds = Board(x), model.bounds
        if self.tries is None:
            plan = self.grid().expand(len(x), -1, -1).to(x.device)
        else:
            plan = (random.uniform((self.tries, 3), -1, 1) * self._limits()).to(x.device)
        for number, rows in board.rounds(plan.shape[1]):
            degrees, right, down = plan[rows, number].unbind(1)
            moved = rigidly_moved(x[rows], degrees, right, down, bounds[0]).clamp(*bounds)
            allowed = length(moved - x[rows], self.norm) <= epsilon
            asked, moved = rows[allowed], moved[allowed]
            if len(asked):
                board.take(asked, moved, lost(model.rows(asked).logits(moved), y[asked]))
        return board.moved, board.broken
