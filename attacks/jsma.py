"""Jacobian-based saliency map attack (Papernot et al. 2016, arXiv:1511.07528, algorithms 2 and 3)."""

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from attacks.nearest import Nearest
from attacks.standing import lost, ranking
from bench.contracts import Attack, Classifier, Knowledge, Norm, attack
from bench.randomness import SampleRandom

PAIRED = 128  # coordinates of largest saliency among which pairs are sought


@attack("jsma")
class SaliencyMap(Attack):
    """Few coordinates: the pair that helps the target class most against all others goes to the end of its range.

    Goes towards the class that is second best at the input, and stops as soon as the label is lost. `upwards`: whether
    coordinates are raised (as published) or lowered. `share`: of the coordinates, the most that are moved.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.L0,)
    knowledge: ClassVar[Knowledge] = Knowledge.WHITE_BOX
    minimal: ClassVar[bool] = True
    exhaustive: ClassVar[bool] = True
    swift: ClassVar[bool] = True

    norm: Norm = Norm.L0
    upwards: bool = True
    share: Annotated[float, Field(gt=0, le=1)] = 0.25

    def run(self, model: Classifier, x: Tensor, y: Tensor, epsilon: float | None, random: SampleRandom) -> Tensor:
        """See Attack.run. Per step of two coordinates one forward and two backward passes."""
        nearest = Nearest(x, self.norm)
        if not len(x):
            return x
        rows, point = torch.arange(len(x), device=x.device), x.clone()
        target = ranking(model, x)
        target = torch.where(target[:, 0] == y, target[:, 1], target[:, 0])
        end = model.bounds.high if self.upwards else model.bounds.low
        free = point.flatten(1) != end
        size = free.shape[1]
        for step in range(max(1, int(self.share * size / 2)) + 1):
            rising, others, gone = self._slopes(model.rows(rows), point[rows], y[rows], target[rows])
            broken = torch.zeros(len(x), dtype=torch.bool, device=x.device)
            broken[rows[gone]] = True
            nearest.take(point, broken)
            pair, helps = _best_pair(rising, others, free[rows])
            rows, pair = rows[~gone & helps], pair[~gone & helps]
            if not len(rows) or 2 * (step + 1) > self.share * size + 1:
                break
            flat = point.flatten(1)
            flat[rows[:, None], pair] = end
            free[rows[:, None], pair] = False
            point = flat.reshape(x.shape)
        return nearest.point

    def _slopes(self, model: Classifier, point: Tensor, y: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Slopes (n, k) of the target's logit and of the sum of the others, towards the end; whether it is lost."""
        leaf = point.detach().requires_grad_()
        logits = model.logits(leaf)
        aim = logits.gather(1, target[:, None])[:, 0]
        (rising,) = torch.autograd.grad(aim.sum(), leaf, retain_graph=True)
        (everything,) = torch.autograd.grad(logits.sum(), leaf)
        sign = 1.0 if self.upwards else -1.0
        return sign * rising.flatten(1), sign * (everything - rising).flatten(1), lost(logits.detach(), y)


def _best_pair(rising: Tensor, others: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
    """The free pair (n, 2) of largest -(a_p + a_q)(b_p + b_q) with a > 0 and b < 0; whether (n,) there is any.

    Of many coordinates only those of largest a - b are paired.
    """
    gain = torch.where(free, rising - others, -torch.inf)
    chosen = gain.topk(min(PAIRED, gain.shape[1]), dim=1).indices
    usable = free.gather(1, chosen)
    a, b = rising.gather(1, chosen), others.gather(1, chosen)
    alpha, beta = a[:, :, None] + a[:, None, :], b[:, :, None] + b[:, None, :]
    fits = (alpha > 0) & (beta < 0) & usable[:, :, None] & usable[:, None, :]
    fits &= ~torch.eye(chosen.shape[1], dtype=torch.bool, device=rising.device)
    score = torch.where(fits, -alpha * beta, 0.0).flatten(1)
    best, place = score.max(1)
    k = chosen.shape[1]
    pair = torch.stack([chosen.gather(1, (place // k)[:, None])[:, 0], chosen.gather(1, (place % k)[:, None])[:, 0]], 1)
    return pair, best > 0
