"""Attacks of Foolbox 3.3.4 whose arithmetic is wrong or mixes the samples of a batch, put right by subclassing.

Each class says what was wrong. What cannot be put right in a few lines is refused, in attacks/foolbox_table.py.
"""

from types import FunctionType
from typing import Any

import torch

from attacks.ball import rowwise
from attacks.foolbox_import import (
    BoundaryAttack,
    HopSkipJumpAttack,
    L0FMNAttack,
    LinfAdditiveUniformNoiseAttack,
    LinfRepeatedAdditiveUniformNoiseAttack,
    PyTorchTensor,
    SparseL1DescentAttack,
    boundary_attack,
)


class L0FMN(L0FMNAttack):
    """Foolbox's reads behind the last coordinate (IndexError) once a sample's radius reaches their number."""

    def project(self, x: Any, x0: Any, epsilon: Any) -> Any:
        return super().project(x, x0, PyTorchTensor(epsilon.raw.clamp(max=x.raw[0].numel() - 1)))


class SparseL1Descent(SparseL1DescentAttack):
    """Foolbox's blows samples inside the ball up to its surface when another one of the batch lies outside."""

    def project(self, x: Any, x0: Any, epsilon: float) -> Any:
        inside = (x - x0).raw.flatten(1).abs().sum(1) <= epsilon
        return PyTorchTensor(torch.where(rowwise(inside, x.raw), x.raw, super().project(x, x0, epsilon).raw))


class _LargestMagnitude:
    """Foolbox's scales by the largest value, not the largest magnitude: the noise leaves the ball."""

    def get_epsilons(self, x: Any, p: Any, epsilon: float, min_: float, max_: float) -> Any:
        return PyTorchTensor(epsilon / rowwise(p.raw.flatten(1).abs().amax(1), p.raw))


class LinfAdditiveUniformNoise(_LargestMagnitude, LinfAdditiveUniformNoiseAttack):
    __doc__ = _LargestMagnitude.__doc__


class LinfRepeatedAdditiveUniformNoise(_LargestMagnitude, LinfRepeatedAdditiveUniformNoiseAttack):
    __doc__ = _LargestMagnitude.__doc__


class HopSkipJump(HopSkipJumpAttack):
    """Foolbox's divides noise and gradients by norms over the whole batch, and searches until the slowest is done.

    Chen, Jordan and Wainwright 2020 (arXiv:1904.02144): equations 9 and 16, and algorithm 1.
    """

    def approximate_gradients(self, is_adversarial: Any, x_advs: Any, steps: int, delta: Any) -> Any:
        """Direction of the boundary at each of x_advs (n, ...), of length one, from `steps` decisions."""
        points, radius = x_advs.raw, rowwise(delta.raw, x_advs.raw)
        draw = torch.randn if self.constraint == "l2" else _symmetric
        noise = draw((len(points), steps, *points.shape[1:]), dtype=points.dtype, device=points.device).movedim(1, 0)
        noise = noise / noise.flatten(2).norm(dim=2).clamp(min=1e-12).reshape(
            *noise.shape[:2], *(1,) * (points.ndim - 1)
        )
        queries = (points + radius * noise).clamp(0, 1)
        noise = (queries - points) / radius.clamp(min=1e-8)
        side = torch.stack([is_adversarial(PyTorchTensor(query)).raw for query in queries]).to(noise.dtype) * 2 - 1
        mean = side.mean(0)
        weight = torch.where(mean.abs() == 1, side, side - mean)
        gradient = (weight.reshape(*weight.shape, *(1,) * (points.ndim - 1)) * noise).mean(0)
        return PyTorchTensor(gradient / rowwise(gradient.flatten(1).norm(dim=1).clamp(min=1e-12), gradient))

    def _binary_search(self, is_adversarial: Any, originals: Any, perturbed: Any) -> Any:
        """The points where the way from each original to its perturbed input crosses the boundary."""
        delta = (perturbed - originals).raw.flatten(1)
        size = delta.shape[1]
        if self.constraint == "linf":
            high = delta.abs().amax(1)
            tolerance = high * self.gamma / size**2
        else:
            high = torch.ones_like(delta[:, 0])
            tolerance = high * self.gamma / size**1.5
        low = torch.zeros_like(high)
        while True:
            middle = (low + high) / 2
            searching = (high - low > tolerance) & (middle > low) & (middle < high)
            if not bool(searching.any()):
                return self._project(originals, perturbed, PyTorchTensor(high))
            adversarial = is_adversarial(self._project(originals, perturbed, PyTorchTensor(middle))).raw
            high = torch.where(searching & adversarial, middle, high)
            low = torch.where(searching & ~adversarial, middle, low)


def _symmetric(shape: tuple[int, ...], **kind: Any) -> torch.Tensor:
    return 2 * torch.rand(shape, **kind) - 1


def proposals(
    bounds: Any, originals: Any, perturbed: Any, to_source: Any, source: Any, norms: Any, spherical: Any, steps: Any
) -> tuple[Any, Any]:
    """Candidates of one step of the boundary attack (Brendel, Rauber and Bethge 2018, arXiv:1712.04248, section 2.3).

    originals, perturbed, to_source = originals - perturbed, source = to_source / norms: (n, ...); norms, spherical,
    steps: (n,). Returns (step on the sphere, then towards the original; step on the sphere), each (n, ...). The
    direction is drawn for each row: Foolbox's draws one for the whole batch.
    """
    shape = originals.shape
    start, outward, unit = originals.raw.flatten(1), -to_source.raw.flatten(1), source.raw.flatten(1)
    radius, turn, approach = (values.raw[:, None] for values in (norms, spherical, steps))
    direction = torch.randn(start.shape, dtype=start.dtype, device=start.device)
    direction = direction - (direction * unit).sum(1, keepdim=True) * unit
    direction = direction * (turn * radius / direction.norm(dim=1, keepdim=True))
    sphere = (start + (outward + direction) / (1 + turn**2).sqrt()).clamp(*bounds)
    inward = start - sphere
    distance = inward.norm(dim=1, keepdim=True)
    towards = (approach * radius + distance - radius).clamp(min=0)  # what clipping brought nearer is not walked again
    nearer = (sphere + inward * (towards / distance)).clamp(*bounds)
    return PyTorchTensor(nearer.reshape(shape)), PyTorchTensor(sphere.reshape(shape))


def _with_own_proposals() -> FunctionType:
    """Foolbox's `BoundaryAttack.run`, in which the name `draw_proposals` means ours; Foolbox itself stays as it is."""
    theirs = BoundaryAttack.run
    ours = FunctionType(theirs.__code__, vars(boundary_attack) | {"draw_proposals": proposals}, "run")
    ours.__kwdefaults__ = theirs.__kwdefaults__
    return ours


class Boundary(BoundaryAttack):
    """Foolbox's takes the same random direction for all samples of a batch."""

    run = _with_own_proposals()


MENDED: dict[type, type] = {
    L0FMNAttack: L0FMN,
    SparseL1DescentAttack: SparseL1Descent,
    LinfAdditiveUniformNoiseAttack: LinfAdditiveUniformNoise,
    LinfRepeatedAdditiveUniformNoiseAttack: LinfRepeatedAdditiveUniformNoise,
    HopSkipJumpAttack: HopSkipJump,
    BoundaryAttack: Boundary,
}
