"""Square Attack (Andriushchenko et al. 2020, arXiv:1912.00049): the fourth attack of AutoAttack, on scores alone."""

import math
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from attacks import losses
from attacks.square_windows import WINDOWS, Draws
from attacks.standing import Board, StandingAttack
from bench.contracts import Classifier, Knowledge, Norm, attack
from bench.errors import PluginError
from bench.randomness import SampleRandom

# from this query on, the share of pixels in a window is p_init divided by so much (section 4.1, for 10,000 queries)
HALVINGS = ((11, 2), (51, 4), (201, 8), (501, 16), (1001, 32), (2001, 64), (4001, 128), (6001, 256), (8001, 512))


@attack("square")
class SquareAttack(StandingAttack):
    """Random search with square windows of shrinking size, which keeps what raises the margin. Needs no gradients.

    For images (channels, height, width). `queries`: forward passes per sample at the most; a window that changes
    nothing costs none. `p_init`: share of the pixels in the first windows.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF, Norm.L2, Norm.L1)
    knowledge: ClassVar[Knowledge] = Knowledge.SCORE

    norm: Norm = Norm.LINF
    queries: Annotated[int, Field(ge=1)] = 5000
    p_init: Annotated[float, Field(gt=0, le=1)] = 0.8
    restarts: Annotated[int, Field(ge=1)] = 1

    def strike(
        self, model: Classifier, x: Tensor, y: Tensor, epsilon: float, random: SampleRandom
    ) -> tuple[Tensor, Tensor]:
        """See StandingAttack.strike. Raises PluginError for inputs that are no images."""
        if x.ndim != 4:
            raise PluginError(
                f"attack 'square' moves squares of an image (channels, height, width); inputs are {tuple(x.shape[1:])}",
                "take another score attack (`gauntlet list attacks`)",
            )
        board = Board(x)
        for _, rows in board.rounds(self.restarts):
            with torch.no_grad():
                found = self._search(model.rows(rows), x[rows], y[rows], epsilon, random.rows(rows))
            board.take(rows, *found)
        return board.moved, board.broken

    def _search(
        self, model: Classifier, x: Tensor, y: Tensor, epsilon: float, random: SampleRandom
    ) -> tuple[Tensor, Tensor]:
        moved, broken = x.clone(), torch.zeros(len(x), dtype=torch.bool, device=x.device)
        windows = WINDOWS[self.norm](x, epsilon, model.bounds)
        rows, draws = torch.arange(len(x), device=x.device), Draws(random, x.shape[1], str(x.device))
        best = windows.start(draws)
        highest = losses.margin(model.logits(best), y)
        for query in range(self.queries + 1):
            hit = _hit(highest)
            if bool(hit.any()):
                moved[rows[hit]], broken[rows[hit]] = best[hit], True
                rows, best, highest = rows[~hit], best[~hit], highest[~hit]
                windows, draws = windows.rows(~hit), draws.rows(~hit)
            if not len(rows) or query == self.queries:
                break
            new = windows.move(best, self._side(query, x.shape), draws)
            changed = (new != best).flatten(1).any(1).nonzero()[:, 0]
            if not len(changed):
                continue
            tried, part, before = new, rows, highest
            if len(changed) < len(rows):
                tried, part, before = new[changed], rows[changed], highest[changed]
            margin = losses.margin(model.rows(part).logits(tried), y[part])
            better = (margin > before) | _hit(margin)
            best[changed[better]], highest[changed[better]] = tried[better], margin[better]
        return moved, broken

    def _side(self, query: int, shape: torch.Size) -> int:
        """Length of a window's side at this query, counted from 0."""
        share = self.p_init / next((by for since, by in reversed(HALVINGS) if query >= since), 1)
        height, width = shape[-2:]
        side = round(math.sqrt(share * height * width))
        if self.norm is not Norm.LINF:
            side = max(side, 3) | 1
        return min(max(side, 1), height, width)


def _hit(margin: Tensor) -> Tensor:
    """Whether the label is lost. A tie is not: the prediction may still be the label."""
    return (margin > 0) | margin.isnan()
