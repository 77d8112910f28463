"""An attack that knows the detector: Bryniarski, Hingun, Pachuca, Wang and Carlini 2022, orthogonal PGD, section 4."""

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from attacks.ball import rowwise
from attacks.pgd import Ball
from bench.contracts import Attack, Classifier, Knowledge, Norm, attack
from bench.randomness import SampleRandom


@attack("orthogonal_pgd")
class OrthogonalPgd(Attack):
    """Fools classifier and detector together: descends on the detector's score wherever the label is already lost.

    Where the label stands, a step goes up the gradient of the cross-entropy; where it is lost, down that of the
    detector's score. `orthogonal` removes from each gradient its part along the other, so that a step for one does not
    undo the other; `selective` takes each as it is. What is returned is, of all iterates that lost the label, the one
    least suspicious; else the last. Before a model without a detector it is PGD with all its steps. `step_size` is in
    input units, 2.5 * epsilon / steps where it is not given. A detector without a gradient is refused.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF, Norm.L2)
    knowledge: ClassVar[Knowledge] = Knowledge.WHITE_BOX

    norm: Norm = Norm.LINF
    steps: Annotated[int, Field(ge=1)] = 100
    step_size: Annotated[float, Field(gt=0)] | None = None
    variant: Literal["orthogonal", "selective"] = "orthogonal"
    random_start: bool = True

    def run(self, model: Classifier, x: Tensor, y: Tensor, epsilon: float | None, random: SampleRandom) -> Tensor:
        """See Attack.run. Two passes forward and backward per sample and step, one where there is no detector."""
        assert epsilon is not None
        ball = Ball(x, self.norm, epsilon, model.bounds)
        step_size = 2.5 * epsilon / self.steps if self.step_size is None else self.step_size
        point = ball.project(ball.random(random)) if self.random_start and len(x) else x.clone()
        result, least = point.clone(), torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)
        for _ in range(self.steps if len(x) else 0):
            lost, up, suspicion, down = self._look(model, point, y)
            better = lost & (suspicion < least)
            result[better], least[better] = point[better], suspicion[better]
            towards = torch.where(rowwise(lost, x), down, up)
            point = ball.project(point + step_size * ball.direction(towards))
        if len(x):
            lost, _, suspicion, _ = self._look(model, point, y)
            better = (lost & (suspicion < least)) | least.isinf()
            result[better] = point[better]
        return result

    def _look(self, model: Classifier, point: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Whether the label is lost (n,), the way up the loss, the suspicion (n,), and the way down from it."""
        point = point.detach().requires_grad_()
        with torch.enable_grad():
            logits = model.logits(point)
            (up,) = torch.autograd.grad(cross_entropy(logits, y, reduction="sum"), point)
            suspicion = model.suspicion(point)
            if suspicion is None:
                return logits.detach().argmax(1) != y, up, torch.zeros(len(y), dtype=torch.float64, device=y.device), up
            (rising,) = torch.autograd.grad(suspicion.sum(), point)
        down = -rising.to(up.dtype)
        if self.variant == "orthogonal":
            up, down = _without(up, down), _without(down, up)
        return logits.detach().argmax(1) != y, up, suspicion.detach().double(), down


def _without(gradient: Tensor, other: Tensor) -> Tensor:
    """What is left of each row of `gradient` without its part along the other's."""
    flat, axis = gradient.flatten(1), other.flatten(1)
    part = (flat * axis).sum(1) / (axis * axis).sum(1).clamp(min=1e-30)
    return gradient - rowwise(part, other) * other
