"""Simple black-box attack (Guo et al. 2019, arXiv:1905.07121, algorithm 1), in the pixel basis."""

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from attacks.ball import project
from attacks.losses import margin
from attacks.standing import Board, StandingAttack, lost
from bench.contracts import Bounds, Classifier, Knowledge, Norm, attack
from bench.randomness import SampleRandom


@attack("simba")
class SimpleBlackBox(StandingAttack):
    """One random coordinate at a time, up or down, kept where it raises the margin; inside the ball. No gradients.

    `step_size`: how far a coordinate goes, in units of the bounds' width. `queries`: forward passes per sample at most.
    Coordinates come in a random order of the sample's own, each once before any comes again.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.L2, Norm.LINF, Norm.L1)
    knowledge: ClassVar[Knowledge] = Knowledge.SCORE

    norm: Norm = Norm.L2
    step_size: Annotated[float, Field(gt=0, le=1)] = 0.2
    queries: Annotated[int, Field(ge=2)] = 1000

    @torch.no_grad()
    def strike(
        self, model: Classifier, x: Tensor, y: Tensor, epsilon: float, random: SampleRandom
    ) -> tuple[Tensor, Tensor]:
        """See StandingAttack.strike."""
        board, bounds = Board(x), Bounds(*model.bounds)
        rows, point = torch.arange(len(x), device=x.device), x.clone()
        size = x[0].numel()
        order = random.uniform((size,), device=str(x.device)).argsort(dim=1)
        highest = margin(model.logits(x), y)
        stride = self.step_size * (bounds.high - bounds.low)
        spent = torch.ones(len(x), dtype=torch.int64, device=x.device)
        step = 0
        while len(rows):
            better = torch.zeros(len(rows), dtype=torch.bool, device=x.device)
            for side in (stride, -stride):
                asked = (~better & (spent[rows] < self.queries)).nonzero()[:, 0]
                if not len(asked):
                    continue
                part, here = rows[asked], point[rows[asked]]
                place = order[part, step % size]
                tried = here.flatten(1).scatter_add(
                    1, place[:, None], torch.full_like(place[:, None], 1).float() * side
                )
                tried = project(tried.reshape(here.shape), x[part], self.norm, epsilon, bounds)
                logits = model.rows(part).logits(tried)
                spent[part] += 1
                value = margin(logits, y[part])
                gained = value > highest[part]
                point[part[gained]], highest[part[gained]] = tried[gained], value[gained]
                better[asked[gained]] = True
                board.take(part, tried, lost(logits, y[part]))
            step += 1
            rows = rows[~board.broken[rows] & (spent[rows] < self.queries)]
        return board.moved, board.broken
