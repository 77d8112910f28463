"""Exact robustness of small ReLU nets by mixed-integer linear programmes (Tjeng et al. 2019, arXiv:1711.07356)."""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.optimize import Bounds as Limits
from scipy.optimize import LinearConstraint, milp
from scipy.sparse import csr_array, hstack, vstack
from torch import Tensor

from bench.certificates._bounds import SLACK, Bounded, Region
from bench.certificates._trace import Add, Affine, Relu, Step, Unsupported
from bench.certificates.linear_bounds import LinearBounds
from bench.contracts import Classifier, Norm, certificate


@certificate("milp")
class ExactProgramme(LinearBounds):
    """Exact for small nets: the least margin over the ball by the solver HiGHS, with one binary per undecided ReLU.

    Asked only where `linear_bounds` leaves a sample open. Convolution, linear, BatchNorm, ReLU, average pooling and
    residual sums; L-infinity. `undecided`: with more ReLUs whose sign is open a sample is left unproved, as it is where
    the solver does not end within `seconds` per class. Apart from that, what is not proved can be broken.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF,)
    requires: ClassVar[tuple[str, ...]] = ("torch", "scipy")

    undecided: Annotated[int, Field(ge=0)] = 200
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0

    def _margin(self, found: list[Step], model: Classifier, x: Tensor, y: int, epsilon: float) -> Tensor:
        by_planes = super()._margin(found, model, x, y, epsilon)
        with torch.no_grad():
            slack = SLACK * float(model.logits(x[None]).abs().max())
        if float(by_planes) > slack:
            return by_planes
        region = Region(x, epsilon, self.norm, model.bounds if self.box else None)
        programme = Programme(found, Bounded(found, region, linear=True))
        if programme.binaries > self.undecided:
            return by_planes
        least = min(programme.least_margin(y, other, self.seconds)[0] for other in range(model.classes) if other != y)
        return torch.maximum(by_planes, torch.tensor(least, dtype=by_planes.dtype, device=by_planes.device))


class Programme:
    """The net over a region, with a variable for every value of every step, and a binary for every undecided ReLU."""

    def __init__(self, steps: Sequence[Step], bounded: Bounded) -> None:
        self.steps, self.intervals = steps, bounded.intervals
        sizes = [int(torch.Size(step.shape).numel()) for step in steps]
        self.begin = np.concatenate([[0], np.cumsum(sizes)])
        open_ = [self._open(step) for step in steps]
        self.first_binary = [int(n) for n in self.begin[-1] + np.concatenate([[0], np.cumsum([len(o) for o in open_])])]
        self.binaries = sum(len(rows) for rows in open_)
        self.variables = int(self.begin[-1]) + self.binaries
        self._rows: list[csr_array] = []
        self._least: list[NDArray[np.float64]] = []
        self._most: list[NDArray[np.float64]] = []
        for number, step in enumerate(steps):
            self._add(number, step, open_[number])

    def least_margin(self, y: int, other: int, seconds: float) -> tuple[float, NDArray[np.float64] | None]:
        """A proved lower bound of z_y - z_other over the region, and the input (k,) where the solver found its least.

        -inf and None where it found nothing within these seconds.
        """
        goal = np.zeros(self.variables)
        goal[self.begin[-2] + y], goal[self.begin[-2] + other] = 1.0, -1.0
        ends = [np.concatenate([_flat(end) for end in side]) for side in zip(*self.intervals, strict=True)]
        ones = np.ones(self.binaries)
        integral = np.concatenate([np.zeros(int(self.begin[-1])), ones])
        limits = Limits(np.concatenate([ends[0], 0 * ones]), np.concatenate([ends[1], ones]))
        constraint = LinearConstraint(vstack(self._rows), np.concatenate(self._least), np.concatenate(self._most))
        found = milp(goal, constraints=constraint, bounds=limits, integrality=integral, options={"time_limit": seconds})
        where = None if found.x is None else found.x[: self.begin[1]]
        bound = found.mip_dual_bound if found.mip_dual_bound is not None else found.fun
        return (-np.inf if bound is None else float(bound)), where

    def _open(self, step: Step) -> NDArray[np.int64]:
        """Which values of a ReLU's input may be of either sign."""
        if not isinstance(step.operation, Relu):
            return np.zeros(0, dtype=np.int64)
        low, high = (_flat(end) for end in self.intervals[step.inputs[0]])
        return np.flatnonzero((low < 0) & (high > 0))

    def _add(self, number: int, step: Step, open_: NDArray[np.int64]) -> None:
        operation = step.operation
        if operation is None:
            return
        n = int(self.begin[number + 1] - self.begin[number])
        out = self._select(int(self.begin[number]), np.arange(n))
        same = [source for source in step.inputs if int(self.begin[source + 1] - self.begin[source]) == n]
        inputs = [self._select(int(self.begin[source]), np.arange(n)) for source in same]
        if isinstance(operation, Affine):
            matrix, constant = _matrix(operation, self.steps[step.inputs[0]].shape)
            self._equal(out - self._place(matrix, int(self.begin[step.inputs[0]])), constant)
        elif isinstance(operation, Add):
            self._equal(out - inputs[0] - inputs[1], np.zeros(n))
        elif isinstance(operation, Relu):
            self._relu(number, inputs[0], out, open_, step.inputs[0])
        else:
            raise Unsupported("milp: no programme is known for maximum pooling", "take linear_bounds")

    def _relu(self, number: int, before: csr_array, out: csr_array, open_: NDArray[np.int64], source: int) -> None:
        """out = max(before, 0): where undecided, out >= before, out <= before - low (1 - a), out <= high a."""
        low, high = (_flat(end) for end in self.intervals[source])
        on, off = np.flatnonzero(low >= 0), np.flatnonzero(high <= 0)
        self._equal((out - before)[on], np.zeros(len(on)))
        self._equal(out[off], np.zeros(len(off)))
        binary = self._select(self.first_binary[number], np.arange(len(open_)))
        low, high, infinite = low[open_], high[open_], np.full(len(open_), np.inf)
        self._between((out - before)[open_], np.zeros(len(open_)), infinite)
        self._between((out - before)[open_] - _scaled(binary, low), -infinite, -low)
        self._between(out[open_] - _scaled(binary, high), -infinite, np.zeros(len(open_)))

    def _select(self, begin: int, rows: NDArray[np.int64]) -> csr_array:
        ones = np.ones(len(rows))
        return csr_array((ones, (np.arange(len(rows)), begin + rows)), shape=(len(rows), self.variables))

    def _place(self, matrix: csr_array, begin: int) -> csr_array:
        left, right = begin, self.variables - begin - matrix.shape[1]
        return csr_array(hstack([csr_array((matrix.shape[0], left)), matrix, csr_array((matrix.shape[0], right))]))

    def _equal(self, rows: csr_array, value: NDArray[np.float64]) -> None:
        self._between(rows, value, value)

    def _between(self, rows: csr_array, least: NDArray[np.float64], most: NDArray[np.float64]) -> None:
        self._rows.append(rows)
        self._least.append(least)
        self._most.append(most)


def _flat(values: Tensor) -> NDArray[np.float64]:
    return values.detach().double().flatten().cpu().numpy()


def _scaled(rows: csr_array, by: NDArray[np.float64]) -> csr_array:
    return csr_array(rows.multiply(by[:, None]))


def _matrix(operation: Affine, shape: tuple[int, ...]) -> tuple[csr_array, NDArray[np.float64]]:
    """An affine step as W (outputs, inputs) and b (outputs,)."""
    size = int(torch.Size(shape).numel())
    with torch.no_grad():
        at_zero = operation.forward(torch.zeros(1, *shape))
        columns = operation.forward(torch.eye(size).reshape(size, *shape)) - at_zero
    return csr_array(columns.flatten(1).double().numpy().T), _flat(at_zero)
