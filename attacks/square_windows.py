"""What one query of the Square Attack changes, in the balls of Linf, L2 and L1. Every sample has windows of its own."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from attacks.ball import Balls, Boxes
from attacks.projections import onto_l1_ball
from bench.contracts import Norm
from bench.randomness import SampleRandom

AHEAD = 256  # queries whose numbers are drawn at once
NUMBERS = 5  # per query, besides one per channel: two corners and an orientation


class Draws:
    """Uniform numbers in [0, 1) per sample and query, (n, NUMBERS + channels), drawn ahead from its stream."""

    def __init__(self, random: SampleRandom, channels: int, device: str) -> None:
        self.random, self.columns, self.device = random, NUMBERS + channels, device
        self._drawn, self._next = torch.empty(0), AHEAD

    def rows(self, keep: Tensor) -> "Draws":
        """The draws of the rows of a mask (n,); they go on where they stand."""
        part = Draws(self.random.rows(keep.nonzero()[:, 0]), self.columns - NUMBERS, self.device)
        if len(self._drawn):
            part._drawn, part._next = self._drawn[keep], self._next
        return part

    def next(self) -> Tensor:
        if self._next == AHEAD:
            self._drawn, self._next = self.random.uniform((AHEAD, self.columns), device=self.device), 0
        self._next += 1
        return self._drawn[:, self._next - 1]

    def signs(self, shape: tuple[int, ...]) -> Tensor:
        """(n, *shape) of -1 and 1."""
        return sign(self.random.uniform(shape, device=self.device))


class Windows(Balls, ABC):
    """Windows in images x (n, channels, height, width), inside the ball of one norm."""

    @abstractmethod
    def start(self, draws: Draws) -> Tensor:
        """Where the search begins."""

    @abstractmethod
    def move(self, best: Tensor, side: int, draws: Draws) -> Tensor:
        """The next point to ask about: `best` changed in a window of side x side pixels."""

    def corner(self, top: Tensor, left: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Corners (n,) of windows that lie inside the image, from numbers in [0, 1)."""
        height, width = self.x.shape[-2:]
        return (top * (height - side + 1)).long(), (left * (width - side + 1)).long()


class LinfWindows(Boxes, Windows):
    """Each pixel is at one end of its range: vertical stripes at first, then squares (algorithms 1 and 2)."""

    def start(self, draws: Draws) -> Tensor:
        _, channels, _, width = self.x.shape
        return torch.where(draws.signs((channels, 1, width)) > 0, self.high, self.low)

    def move(self, best: Tensor, side: int, draws: Draws) -> Tensor:
        numbers = draws.next()
        inside = window(*self.corner(numbers[:, 0], numbers[:, 1], side), side, self.x)
        up = (numbers[:, NUMBERS:] >= 0.5)[:, :, None, None]
        return torch.where(inside, torch.where(up, self.high, self.low), best)


class SumWindows(Windows):
    """L2: the perturbation's mass moves from one window to another, which gets a pyramid (algorithm 3).

    For L1 the same with its own norm and decay, and an exact projection (Croce and Hein 2021, arXiv:2103.01208,
    appendix B).
    """

    power = 2  # of the norm; the pyramids fall by its square

    def start(self, draws: Draws) -> Tensor:
        n, channels, height, width = self.x.shape
        side = max(min(height, width) // 5, 1)
        down, across = height // side, width // side
        tiles = self._pyramids(side, draws.signs((down, across))).reshape(n, 1, down, across, side, side)
        tiles = tiles * draws.signs((channels, down, across))[..., None, None]
        delta = torch.zeros_like(self.x)
        offset = (height - side * 5) // 2 if down == 5 and across == 5 else 0
        tiled = tiles.permute(0, 1, 2, 4, 3, 5).reshape(n, channels, down * side, across * side)
        delta[:, :, offset : offset + down * side, offset : offset + across * side] = tiled
        return self.land(delta)

    def move(self, best: Tensor, side: int, draws: Draws) -> Tensor:
        numbers = draws.next()
        channels = self.x.shape[1]
        delta = best - self.x
        to = self.corner(numbers[:, 0], numbers[:, 1], side)
        source = self.corner(numbers[:, 2], numbers[:, 3], side)
        either = window(*to, side, self.x) | window(*source, side, self.x)
        moved = self.size(delta * either, (-2, -1))  # (n, channels, 1, 1): what the two windows hold
        unused = (self.epsilon**self.power - self.size(delta, (1, 2, 3)) ** self.power).clamp(min=0) / channels
        place = crop(to, side, self.x)
        old = delta[place]
        new = self._pyramids(side, sign(numbers[:, 4]))[:, None] * sign(numbers[:, NUMBERS:])[:, :, None, None]
        new = new + old / (1e-12 + self.size(old, (-2, -1)))
        new = new / (1e-12 + self.size(new, (-2, -1))) * self.mass(unused, moved)
        delta[crop(source, side, self.x)] = 0.0
        delta[place] = new
        return self.land(delta)

    def size(self, values: Tensor, dim: tuple[int, ...]) -> Tensor:
        return (values.abs() ** self.power).sum(dim, keepdim=True) ** (1 / self.power)

    def mass(self, unused: Tensor, moved: Tensor) -> Tensor:
        """The norm that the new window gets in each channel."""
        return (unused + moved**2).sqrt()

    def land(self, delta: Tensor) -> Tensor:
        """The perturbation stretched to the ball's surface, and cut by the bounds."""
        factor = self.epsilon * (1 - 1e-6) / (1e-12 + self.size(delta, (1, 2, 3)))
        return (self.x + delta * factor).clamp(self.bounds.low, self.bounds.high)

    def _pyramids(self, side: int, upright: Tensor) -> Tensor:
        """(..., side, side): two pyramids of opposite sign, one above or beside the other, of norm one."""
        half = side // 2
        upper, lower = _pyramid(half, side, 2 * self.power), _pyramid(side - half, side, 2 * self.power)
        both = torch.cat([part / self.size(part, (0, 1)) if part.numel() else part for part in (upper, -lower)])
        both = (both / self.size(both, (0, 1))).to(self.x.device)
        return torch.where(upright[..., None, None] > 0, both, both.T)


class L1Windows(SumWindows):
    power = 1

    def mass(self, unused: Tensor, moved: Tensor) -> Tensor:
        return (unused + moved) * self.x.shape[1]

    def land(self, delta: Tensor) -> Tensor:
        return self.x + onto_l1_ball(delta, self.x, self.epsilon, self.bounds.low, self.bounds.high)


WINDOWS: Mapping[Norm, type[Windows]] = {Norm.LINF: LinfWindows, Norm.L2: SumWindows, Norm.L1: L1Windows}


def sign(numbers: Tensor) -> Tensor:
    """-1 or 1 for numbers in [0, 1)."""
    return torch.where(numbers >= 0.5, 1.0, -1.0)


def window(top: Tensor, left: Tensor, side: int, x: Tensor) -> Tensor:
    """(n, 1, height, width) bool: inside the windows with these corners (n,)."""
    down, across = (torch.arange(length, device=x.device) for length in x.shape[-2:])
    rows = (down >= top[:, None]) & (down < top[:, None] + side)
    columns = (across >= left[:, None]) & (across < left[:, None] + side)
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def crop(corner: tuple[Tensor, Tensor], side: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Indices of the windows' pixels (n, channels, side, side) in x."""
    n, channels = x.shape[:2]
    along = torch.arange(side, device=x.device)
    samples, maps = torch.arange(n, device=x.device), torch.arange(channels, device=x.device)
    down, across = corner[0][:, None] + along, corner[1][:, None] + along
    return samples[:, None, None, None], maps[:, None, None], down[:, None, :, None], across[:, None, None, :]


def _pyramid(height: int, width: int, decay: int) -> Tensor:
    """Nested rectangles around the middle, the k-th of weight 1 / k^decay: (height, width)."""
    found = torch.zeros(height, width)
    middle, centre = height // 2, width // 2
    for ring in range(max(middle, centre) + 1):
        found[max(middle - ring, 0) : middle + ring + 1, max(centre - ring, 0) : centre + ring + 1] += (
            1 / (ring + 1) ** decay
        )
    return found
