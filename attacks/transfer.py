"""Adversarial examples of one model, tried on another."""

from typing import Any, ClassVar

from pydantic import Field, model_validator
from torch import Tensor

from bench.contracts import Attack, Classifier, Gradients, Knowledge, Norm, Plugin, attack, attacks
from bench.errors import PluginError
from bench.randomness import SampleRandom


@attack("transfer")
class Transfer(Attack):
    """Crafts on the model that this one was made from (its float original, say), and tries the result on this one.

    A model that was made from no other is attacked itself: the control of the comparison. Only samples that this model
    has right are attacked, so the figure is the accuracy that the transferred examples leave.
    """

    norms: ClassVar[tuple[Norm, ...]] = tuple(Norm)
    knowledge: ClassVar[Knowledge] = Knowledge.TRANSFER

    norm: Norm = Norm.LINF
    attack: str = Field(default="pgd", description="the attack that crafts")
    args: dict[str, Any] = Field(default_factory=dict, description="its arguments")
    generations: int = Field(default=1, ge=1, description="how many steps back, as far as there is a model")

    @model_validator(mode="after")
    def _known(self) -> "Transfer":
        cls = attacks.get(self.attack)
        if self.attack == self.name:
            raise ValueError("`attack` must name the attack that crafts, not 'transfer' itself")
        if cls.minimal:
            raise PluginError(f"'{self.attack}' looks for the smallest distance: transfer needs one with epsilons")
        if self.norm not in cls.norms:
            raise PluginError(f"'{self.attack}' has no norm '{self.norm}' (it has: {', '.join(cls.norms)})")
        self._inner()
        return self

    def inner_plugins(self) -> tuple[Plugin, ...]:
        return (self._inner(),)

    def _inner(self) -> Attack:
        return attacks.build(self.attack, {**self.args, "norm": self.norm})

    def run(self, model: Classifier, x: Tensor, y: Tensor, epsilon: float | None, random: SampleRandom) -> Tensor:
        """See Attack.run. Raises PluginError where the crafting attack needs gradients, and nothing here has any."""
        inner, surrogate = self._inner(), model
        for _ in range(self.generations):
            surrogate = surrogate.source or surrogate
        if inner.knowledge is Knowledge.WHITE_BOX and surrogate.gradients is Gradients.NONE:
            raise PluginError(
                f"transfer: '{inner.name}' needs gradients, and this model has none, nor a model it was made from",
                "take `attack: square`, or an attack on scores or decisions",
            )
        return inner.run(surrogate, x, y, epsilon, random)
