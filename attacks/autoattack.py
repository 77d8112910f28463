"""AutoAttack (Croce and Hein 2020, arXiv:2003.01690): the ensemble, written for this engine."""

from enum import StrEnum
from typing import ClassVar

from torch import Tensor

from attacks.apgd_ce import AutoPGDCrossEntropy, AutoPGDLogitsRatio
from attacks.apgd_t import AutoPGDTargeted
from attacks.fab import FastAdaptiveBoundary, FastAdaptiveBoundaryTargeted
from attacks.square import SquareAttack
from attacks.standing import Board, StandingAttack, need_classes
from bench.contracts import Allowance, Classifier, Knowledge, Norm, attack
from bench.errors import PluginError
from bench.randomness import SampleRandom

EOT = 20  # passes averaged per step in the version `rand`


class Version(StrEnum):
    """Which attacks, with which budget."""

    STANDARD = "standard"
    PLUS = "plus"
    RAND = "rand"


@attack("autoattack")
class AutoAttack(StandingAttack):
    """APGD-CE, APGD-T, FAB-T and Square in turn, each from the original of what still stands.

    `version`: `standard`; `plus`, with five restarts and the untargeted APGD-DLR and FAB besides; `rand` for stochastic
    models: APGD-CE and APGD-DLR, averaged over 20 passes per step.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF, Norm.L2, Norm.L1)
    knowledge: ClassVar[Knowledge] = Knowledge.WHITE_BOX

    norm: Norm = Norm.LINF
    version: Version = Version.STANDARD

    @property
    def proved_by(self) -> str | None:
        """Planes, too: they cost as much as some tens of passes, where this costs thousands."""
        return "quick_bounds"

    @property
    def averages(self) -> bool:
        return self.version is Version.RAND

    @property
    def takes_targets(self) -> bool:
        return False

    @property
    def allowance(self) -> Allowance:
        """Steps of the gradient attacks, queries of Square; restarts where all of them have some."""
        parts = [part.allowance for part in self.attacks()]
        return Allowance(
            steps=max(part.steps or 0 for part in parts), queries=max(part.queries or 0 for part in parts) or None
        )

    def attacks(self) -> tuple[StandingAttack, ...]:
        """Its attacks, in their order."""
        norm = self.norm
        if self.version is Version.RAND:
            return AutoPGDCrossEntropy(norm=norm, restarts=1, eot=EOT), AutoPGDLogitsRatio(
                norm=norm, restarts=1, eot=EOT
            )
        square, towards = SquareAttack(norm=norm), AutoPGDTargeted(norm=norm)
        if self.version is Version.STANDARD:
            return AutoPGDCrossEntropy(norm=norm), towards, FastAdaptiveBoundaryTargeted(norm=norm), square
        return (
            AutoPGDCrossEntropy(norm=norm, restarts=5), AutoPGDLogitsRatio(norm=norm, restarts=5),
            FastAdaptiveBoundary(norm=norm, restarts=5), square,
            AutoPGDTargeted(norm=norm, targets=9), FastAdaptiveBoundaryTargeted(norm=norm),
        )  # fmt: skip

    def strike(
        self, model: Classifier, x: Tensor, y: Tensor, epsilon: float, random: SampleRandom
    ) -> tuple[Tensor, Tensor]:
        """See StandingAttack.strike. Raises PluginError for fewer than four classes, and where the version is wrong.

        A stochastic model is refused by all versions but `rand`: without averaging its gradients lead nowhere.
        """
        need_classes(
            self.name,
            model,
            4,
            "apgd_ce, fab_t and square side by side; the worst case counts all three",
        )
        if model.stochastic and self.version is not Version.RAND:
            raise PluginError(
                f"autoattack: version '{self.version}' is for deterministic models, and this one is stochastic",
                "set `version: rand`",
            )
        board = Board(x)
        attacks = self.attacks()
        for number, rows in board.rounds(len(attacks)):
            part = attacks[number]
            board.take(rows, *part.strike(model.rows(rows), x[rows], y[rows], epsilon, random.rows(rows)))
        return board.moved, board.broken
