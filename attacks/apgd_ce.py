"""Auto-PGD on the cross-entropy: the first attack of AutoAttack."""

from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from attacks import losses
from attacks.apgd import Loss, ascend
from attacks.standing import Board, StandingAttack, need_classes
from bench.contracts import Allowance, Classifier, Knowledge, Norm, attack
from bench.randomness import SampleRandom


class UntargetedAutoPGD(StandingAttack):
    """Auto-PGD on a loss of the logits and the label. `eot`: passes averaged per step, for stochastic models."""

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF, Norm.L2, Norm.L1)
    knowledge: ClassVar[Knowledge] = Knowledge.WHITE_BOX

    norm: Norm = Norm.LINF
    steps: Annotated[int, Field(ge=1)] = 100
    restarts: Annotated[int, Field(ge=1)] | None = None
    eot: Annotated[int, Field(ge=1)] = 1

    @property
    def averages(self) -> bool:
        return self.eot > 1

    @property
    def allowance(self) -> Allowance:
        return Allowance(steps=self.steps, restarts=self.restarts or (5 if self.norm is Norm.L1 else 1))

    def loss(self, y: Tensor) -> Loss:
        """The loss for a batch with these labels. Overridden by what uses another than the cross-entropy."""
        return lambda logits, rows: losses.ce(logits, y[rows])

    def strike(
        self, model: Classifier, x: Tensor, y: Tensor, epsilon: float, random: SampleRandom
    ) -> tuple[Tensor, Tensor]:
        """See StandingAttack.strike. steps + 1 forward and steps backward passes per restart, times `eot`."""
        board = Board(x)
        for _, rows in board.rounds(self.allowance.restarts):
            found = ascend(model, self.loss(y), self.norm, epsilon, self.eot, self.steps, x, y, rows, random)
            board.take(rows, *found)
        return board.moved, board.broken


@attack("apgd_ce")
class AutoPGDCrossEntropy(UntargetedAutoPGD):
    """Auto-PGD on the cross-entropy: step sizes that halve themselves where the loss stops rising.

    `restarts`: 1, and 5 for L1, where it is not given. `eot`: passes averaged per step, for stochastic models.
    """


@attack("apgd_dlr")
class AutoPGDLogitsRatio(UntargetedAutoPGD):
    """Auto-PGD on the difference of logits ratio, which no scale of the logits can saturate.

    Needs three classes. `restarts` and `eot` as for `apgd_ce`.
    """

    @property
    def takes_targets(self) -> bool:
        return False

    def loss(self, y: Tensor) -> Loss:
        return lambda logits, rows: losses.dlr(logits, y[rows])

    def strike(
        self, model: Classifier, x: Tensor, y: Tensor, epsilon: float, random: SampleRandom
    ) -> tuple[Tensor, Tensor]:
        """See StandingAttack.strike. Raises PluginError for fewer than three classes."""
        need_classes(self.name, model, 3, "apgd_ce")
        return super().strike(model, x, y, epsilon, random)
