"""Bounds of a net over a ball: intervals forwards, and planes pulled backwards from what is to be bounded.

Zhang et al. 2018 (CROWN), arXiv:1811.00866, section 3; with equal slopes it is the bound of Wong and Kolter 2018,
arXiv:1711.00851. Computed in float32 and not rounded outwards: `SLACK` stands for the rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  the name that every torch program uses
from torch import Tensor

from bench.certificates._trace import Add, Affine, MaxPool, Operation, Relu, Step
from bench.contracts import Bounds, Norm

SLACK = 1e-5  # of the largest logit: a margin has to be larger
CHUNK = 2048  # planes that are pulled at once

Interval = tuple[Tensor, Tensor]  # lowest and highest values, each of a step's shape, without a batch dimension


@dataclass(frozen=True)
class Region:
    """Where the input may lie: the ball of a norm around x, and the bounds (None: none, as Wong and Kolter have it)."""

    x: Tensor  # (*input_shape)
    epsilon: float
    norm: Norm
    bounds: Bounds | None

    def box(self) -> Interval:
        low, high = self.x - self.epsilon, self.x + self.epsilon
        if self.bounds is None:
            return low, high
        return low.clamp(min=self.bounds.low), high.clamp(max=self.bounds.high)

    def range(self, planes: Tensor) -> Interval:
        """Lowest and highest value (s,) over the region of the linear functions in `planes` (s, *input_shape)."""
        rows = planes.flatten(1)
        low, high = (end.flatten() for end in self.box())
        middle, reach = rows @ ((high + low) / 2), rows.abs() @ ((high - low) / 2)
        least, most = middle - reach, middle + reach
        if self.norm is not Norm.LINF:
            dual = 2.0 if self.norm is Norm.L2 else float("inf")
            centre, reach = rows @ self.x.flatten(), self.epsilon * torch.linalg.vector_norm(rows, dual, dim=1)
            least, most = torch.maximum(least, centre - reach), torch.minimum(most, centre + reach)
        return least, most


def through(operation: Operation, ends: Sequence[Interval]) -> Interval:
    """The interval (n, ...) of a step by those of its inputs."""
    low, high = ends[0]
    if isinstance(operation, Relu):
        return low.clamp(min=0), high.clamp(min=0)
    if isinstance(operation, Add):
        return low + ends[1][0], high + ends[1][1]
    if isinstance(operation, MaxPool):
        pool = (operation.kernel, operation.stride)
        return F.max_pool2d(low, *pool), F.max_pool2d(high, *pool)
    middle, reach = operation.forward((low + high) / 2), operation.spread((high - low) / 2)
    return middle - reach, middle + reach


def intervals(steps: Sequence[Step], x: Tensor, epsilon: float, bounds: Bounds | None) -> Interval:
    """Lowest and highest logits (n, classes) over a box of `epsilon` around each x (n, ...), cut by the bounds."""
    low, high = x - epsilon, x + epsilon
    if bounds is not None:
        low, high = low.clamp(min=bounds.low), high.clamp(max=bounds.high)
    found: list[Interval] = [(low, high)]
    for step in steps[1:]:
        assert step.operation is not None, "only step 0 is the input"
        found.append(through(step.operation, [found[source] for source in step.inputs]))
    return found[-1]


class Bounded:
    """The intervals of every step over one region. linear: tighten those before each ReLU by planes."""

    def __init__(self, steps: Sequence[Step], region: Region, linear: bool) -> None:
        self.steps, self.region = steps, region
        self.intervals: list[Interval] = []
        before_relu = {step.inputs[0] for step in steps if isinstance(step.operation, Relu)}
        for number, step in enumerate(steps):
            self.intervals.append(self._interval(step))
            if linear and number in before_relu and number:
                self._tighten(number)

    def margins(self, y: int, slopes: Sequence[str]) -> Tensor:
        """(classes,) least value over the region of z_y - z_i; of several `slopes` the best. Entry y is 0."""
        last = len(self.steps) - 1
        (classes,) = self.steps[last].shape
        planes = -torch.eye(classes, device=self.region.x.device)
        planes[:, y] += 1
        return torch.stack([self.pull(last, planes, slope)[0] for slope in slopes]).amax(0)

    def interval_margins(self, y: int) -> Tensor:
        """The same from the last layer's interval alone."""
        low, high = self.intervals[-1]
        margins = low[y] - high
        margins[y] = 0.0
        return margins

    def pull(self, number: int, planes: Tensor, slope: str) -> Interval:
        """Lowest and highest values (s,) of planes (s, *shape) in the result of a step.

        slope: `equal`: the lower line through a ReLU is parallel to the upper one, and both ends are bounds;
        `adaptive`: it is 0 or x, whichever is nearer, and only the lowest value is a bound.
        """
        waiting: dict[int, Tensor] = {number: planes}
        constant = torch.zeros(2, len(planes), device=planes.device)
        for place in range(number, 0, -1):
            if place not in waiting:
                continue
            rows, step = waiting.pop(place), self.steps[place]
            for source, part, offset in self._through(step, rows, slope):
                waiting[source] = waiting[source] + part if source in waiting else part
                constant = constant + offset
        low, high = self.region.range(waiting[0])
        return low + constant[0], high + constant[1]

    def _through(self, step: Step, rows: Tensor, slope: str) -> list[tuple[int, Tensor, Tensor]]:
        """What planes in a step's result are in its inputs, and what is added to their lowest and highest value."""
        operation, source = step.operation, step.inputs[0]
        none = torch.zeros(2, 1, device=rows.device)
        if isinstance(operation, Add):
            return [(source, rows, none) for source in step.inputs]
        if isinstance(operation, Affine):
            shape = (1, *self.steps[source].shape)
            at_zero = operation.forward(torch.zeros(shape, device=rows.device))
            return [(source, operation.pull(rows), (rows * at_zero).flatten(1).sum(1).expand(2, -1))]
        low, high = self.intervals[source]
        if isinstance(operation, Relu):
            rise = high.clamp(min=0) / (high.clamp(min=0) - low.clamp(max=0)).clamp(min=1e-30)
            gap = rise * -low.clamp(max=0)  # the upper line is rise * x + gap
            offsets = torch.stack([rows.clamp(max=0) * gap, rows.clamp(min=0) * gap]).flatten(2).sum(2)
            if slope == "equal":
                return [(source, rows * rise, offsets)]
            lower = torch.where(low >= 0, 1.0, torch.where((high > -low) & (high > 0), 1.0, 0.0))
            return [(source, torch.where(rows > 0, rows * lower, rows * rise), offsets)]
        assert isinstance(operation, MaxPool)
        return [self._through_pool(operation, rows, slope, source)]

    def _through_pool(self, operation: MaxPool, rows: Tensor, slope: str, source: int) -> tuple[int, Tensor, Tensor]:
        """A maximum lies above its likeliest candidate, and below the highest value of any; where the candidate beats
        all others for sure it is the maximum. Only the lowest value is a bound, unless all are sure."""
        low, high = self.intervals[source]
        best, place = F.max_pool2d(low[None], operation.kernel, operation.stride, return_indices=True)
        channels, height, width = low.shape
        others = high[None].flatten(2).scatter(2, place.flatten(2), -torch.inf).reshape(1, channels, height, width)
        sure = best >= F.max_pool2d(others, operation.kernel, operation.stride)  # a window's own candidate is masked
        top = F.max_pool2d(high[None], operation.kernel, operation.stride)
        unknown = rows.clamp(max=0) * ~sure
        known = (rows - unknown).flatten(2)
        pulled = torch.zeros(len(rows), channels, height * width, device=rows.device)
        pulled.scatter_add_(2, place.flatten(2).expand_as(known), known)
        offset = (unknown * top).flatten(1).sum(1)
        return source, pulled.reshape(-1, channels, height, width), torch.stack([offset, offset])

    # --- intervals

    def _interval(self, step: Step) -> Interval:
        if step.operation is None:
            return self.region.box()
        ends = [(low[None], high[None]) for low, high in (self.intervals[source] for source in step.inputs)]
        low, high = through(step.operation, ends)
        return low[0], high[0]

    def _tighten(self, number: int) -> None:
        """Planes for the values whose sign the interval leaves open."""
        low, high = (end.flatten().clone() for end in self.intervals[number])
        shape = self.steps[number].shape
        waiting = ((low < 0) & (high > 0)).nonzero()[:, 0]
        for begin in range(0, len(waiting), CHUNK):
            open_ = waiting[begin : begin + CHUNK]
            planes = torch.zeros(len(open_), low.numel(), device=low.device)
            planes[torch.arange(len(open_), device=low.device), open_] = 1.0
            rows = planes.reshape(-1, *shape)
            least, most = self.pull(number, rows, "equal")
            if self._one_sided(number):
                most = -self.pull(number, -rows, "equal")[0]
            low[open_], high[open_] = torch.maximum(low[open_], least), torch.minimum(high[open_], most)
        self.intervals[number] = low.reshape(shape), high.reshape(shape)

    def _one_sided(self, number: int) -> bool:
        return any(isinstance(step.operation, MaxPool) for step in self.steps[: number + 1])
