"""Min-max attacks on one input against several classifiers."""

from collections.abc import Sequence

import torch
from torch import Tensor

from attacks.minmax import Game, MinMax
from attacks.standing import lost
from bench.contracts import Bounds, Classifier
from bench.randomness import SampleRandom


class Views(Game):
    """Each input is a problem, each classifier a domain."""

    def __init__(self, owner: MinMax, views: Sequence[Classifier], x: Tensor, y: Tensor, epsilon: float) -> None:
        self.owner, self.views, self.x, self.y, self.epsilon = owner, views, x, y, epsilon
        self.present = torch.ones(len(x), len(views), dtype=torch.bool, device=x.device)

    def answers(self, delta: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        label, moved = self.y[rows], self.x[rows] + delta
        scores = [view.rows(rows).logits(moved) for view in self.views]
        losses = torch.stack([self.owner.losses(logits, label) for logits in scores], dim=1)
        return losses, torch.stack([lost(logits.detach(), label) for logits in scores], dim=1)

    def project(self, delta: Tensor, rows: Tensor) -> Tensor:
        return self.owner.nearest(delta, self.x[rows], self.epsilon, *self.views[0].bounds)


class OverViews(MinMax):
    """A min-max attack whose domains are classifiers."""

    def weigh(
        self, model: Classifier, x: Tensor, y: Tensor, epsilon: float, random: SampleRandom, places: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See JointAttack.weigh. At most `steps` + 1 passes of each domain; starts at the input, draws nothing."""
        views = [*self.domains(model).values()]
        if not len(x):
            return x, torch.zeros(0, len(views))
        low, high = model.bounds
        game = Views(self, views, x, y, epsilon)
        delta, weights = self.play(game, torch.zeros_like(x), self.stride(epsilon, high - low))
        return self.moved(x, delta, epsilon, Bounds(low, high)), weights
