"""Adversarial examples of one model, tried on another."""

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from attacks.outer import Outer
from bench.contracts import Classifier, Gradients, Knowledge, Norm, attack
from bench.errors import PluginError
from bench.randomness import SampleRandom


@attack("transfer")
class Transfer(Outer):
    """Crafts on the model that this one was made from (its float original, say), and tries the result on this one.

    A model that was made from no other is attacked itself: the control of the comparison. Only samples that this model
    has right are attacked, so the figure is the accuracy that the transferred examples leave.
    """

    norms: ClassVar[tuple[Norm, ...]] = tuple(Norm)
    knowledge: ClassVar[Knowledge] = Knowledge.TRANSFER
    role: ClassVar[str] = "crafts"

    generations: int = Field(default=1, ge=1, description="how many steps back, as far as there is a model")

    def run(self, model: Classifier, x: Tensor, y: Tensor, epsilon: float | None, random: SampleRandom) -> Tensor:
        """See Attack.run. Raises PluginError where the crafting attack needs gradients, and nothing here has any."""
        inner, surrogate = self.inner(), model
        for _ in range(self.generations):
            surrogate = surrogate.source or surrogate
        if inner.knowledge is Knowledge.WHITE_BOX and surrogate.gradients is Gradients.NONE:
            raise PluginError(
                f"transfer: '{inner.name}' needs gradients, and this model has none, nor a model it was made from",
                "take `attack: square`, or an attack on scores or decisions",
            )
        return inner.run(surrogate, x, y, epsilon, random)
