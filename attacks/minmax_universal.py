"""The min-max attack with one perturbation for several inputs."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from attacks.minmax import Game, MinMax
from attacks.standing import lost
from bench.contracts import Bounds, Classifier, attack
from bench.randomness import SampleRandom


class _Groups(Game):
    """Each group is a problem, each of its inputs a domain; slots: (g, K) int64, their rows in x, -1 where none is."""

    def __init__(self, owner: MinMax, model: Classifier, x: Tensor, y: Tensor, epsilon: float, slots: Tensor) -> None:
        self.owner, self.model, self.x, self.y, self.epsilon = owner, model, x, y, epsilon
        self.slots, self.present = slots, slots >= 0

    def answers(self, delta: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        present = self.present[rows]
        members = self.slots[rows][present]
        which = present.nonzero()[:, 0]
        moved = (self.x[members] + delta[which]).clamp(*self.model.bounds)
        logits, label = self.model.rows(members).logits(moved), self.y[members]
        losses = self.owner.losses(logits, label)
        found = torch.zeros(present.shape, dtype=losses.dtype, device=losses.device).masked_scatter(present, losses)
        gone = torch.zeros_like(present).masked_scatter(present, lost(logits.detach(), label))
        return found, gone

    def project(self, delta: Tensor, rows: Tensor) -> Tensor:
        low, high = self.model.bounds
        return self.owner.nearest(delta, torch.zeros_like(delta), self.epsilon, low - high, high - low)


@attack("minmax_universal")
class MinMaxUniversal(MinMax):
    """One perturbation for `group` samples that follow each other, each weighed by how hard it is to fool.

    Per sample it counts as any attack does, and `attack_success_group` where all of a group are fooled. A group is
    short of the samples that are wrong untouched. The perturbation lies in the ball, and each input is cut to bounds
    once it is added. `resources.batch_size` has to be a multiple of `group`. `average`: against the mean of the group.
    """

    group: Annotated[int, Field(ge=2, le=256)] = 5

    @property
    def together(self) -> int:
        return self.group

    def weigh(
        self, model: Classifier, x: Tensor, y: Tensor, epsilon: float, random: SampleRandom, places: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See JointAttack.weigh. At most `steps` + 1 passes; starts at the inputs, draws nothing."""
        if not len(x):
            return x, torch.zeros(0, 1)
        bounds = Bounds(*model.bounds)
        _, which = torch.unique_consecutive(places // self.group, return_inverse=True)
        place = places % self.group
        slots = torch.full((int(which.max()) + 1, self.group), -1, device=x.device)
        slots[which, place] = torch.arange(len(x), device=x.device)
        game = _Groups(self, model, x, y, epsilon, slots)
        start = torch.zeros(len(slots), *x.shape[1:], dtype=x.dtype, device=x.device)
        delta, weights = self.play(game, start, self.stride(epsilon, bounds.high - bounds.low))
        return self.moved(x, delta[which], epsilon, bounds), weights[which, place][:, None]
