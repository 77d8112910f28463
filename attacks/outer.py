"""What attacks that run another attack have in common."""

from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from bench.contracts import Allowance, Attack, Norm, Plugin, attacks
from bench.errors import PluginError


class Outer(Attack):
    """The fields `attack` and `args`, which name the attack inside: of the same norm, with or without epsilons."""

    role: ClassVar[str]  # what the attack inside does, or what is done to it

    norm: Norm = Norm.LINF
    attack: str = Field(default="pgd", description="the attack inside")
    args: dict[str, Any] = Field(default_factory=dict, description="its arguments")

    @model_validator(mode="after")
    def _known(self) -> Self:
        cls = attacks.get(self.attack)
        if self.attack == self.name:
            raise ValueError(f"`attack` must name the attack that {self.role}, not '{self.name}' itself")
        if cls.minimal and not self.minimal:
            raise PluginError(f"'{self.attack}' looks for the smallest distance: {self.name} needs one with epsilons")
        if self.minimal and not cls.minimal:
            raise PluginError(f"'{self.attack}' has epsilons: {self.name} needs one that looks for a smallest distance")
        if cls.fits:
            raise PluginError(f"'{self.attack}' learns about the model first: {self.name} needs one that does not")
        self.inner()
        return self

    def inner_plugins(self) -> tuple[Plugin, ...]:
        return (self.inner(),)

    @property
    def allowance(self) -> Allowance:
        return self.inner().allowance

    @property
    def takes_targets(self) -> bool:
        return self.inner().takes_targets

    def inner(self) -> Attack:
        """The attack inside. Raises PluginError, ValidationError for a norm or arguments that it does not take."""
        return attacks.build(self.attack, {**self.args, "norm": self.norm})
