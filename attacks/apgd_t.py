"""Auto-PGD towards one class after another: the second attack of AutoAttack."""

from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from attacks import losses
from attacks.apgd import ascend
from attacks.standing import Board, StandingAttack, need_classes, ranking
from bench.contracts import Classifier, Knowledge, Norm, attack
from bench.randomness import SampleRandom


@attack("apgd_t")
class AutoPGDTargeted(StandingAttack):
    """Auto-PGD on the targeted difference of logits ratio, towards the classes of largest logits in turn.

    Any lost label counts, whichever class it goes to. Needs four classes. `targets`: 9, and 5 for L1, where it is not
    given, and never more than there are. `eot`: passes averaged per step, for stochastic models.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF, Norm.L2, Norm.L1)
    knowledge: ClassVar[Knowledge] = Knowledge.WHITE_BOX

    norm: Norm = Norm.LINF
    steps: Annotated[int, Field(ge=1)] = 100
    targets: Annotated[int, Field(ge=1)] | None = None
    eot: Annotated[int, Field(ge=1)] = 1

    @property
    def takes_targets(self) -> bool:
        return False

    def strike(
        self, model: Classifier, x: Tensor, y: Tensor, epsilon: float, random: SampleRandom
    ) -> tuple[Tensor, Tensor]:
        """See StandingAttack.strike. Raises PluginError for fewer than four classes."""
        need_classes(self.name, model, 4, "apgd_ce and fab_t")
        board = Board(x)
        ranked = ranking(model, x)
        targets = self.targets or (5 if self.norm is Norm.L1 else 9)
        for number, rows in board.rounds(min(targets, model.classes - 1)):
            target = ranked[:, number + 1]

            def loss(logits: Tensor, rows: Tensor, target: Tensor = target) -> Tensor:
                return losses.dlr_targeted(logits, y[rows], target[rows])

            board.take(rows, *ascend(model, loss, self.norm, epsilon, self.eot, self.steps, x, y, rows, random))
        return board.moved, board.broken
