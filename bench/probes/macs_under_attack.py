"""How many multiplications a model does on inputs that somebody has moved."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pydantic import Field, model_validator

from bench.contracts import (
    Attack,
    Classifier,
    Figure,
    Gradients,
    Knowledge,
    Norm,
    Plugin,
    Probe,
    Samples,
    attacks,
    probe,
)
from bench.errors import PluginError
from bench.probes._spread import STATISTICS, countable, counts, distribution, mean, spread_indices
from bench.probes.parameters import NO_MODULE
from bench.randomness import SampleRandom
from bench.token_ids import check_attack


@probe("macs_under_attack")
class MacsUnderAttack(Probe):
    """Multiply-accumulates on adversarial inputs: what an attack makes a dynamic model cost.

    Real inputs are moved by `attack` inside the ball of radius `epsilon` and counted one by one, as by the probe
    `macs`; `attacked_macs/ratio` is their mean over that of the same inputs untouched. The attack aims at the label,
    not at the cost: it is what an evaluation of robustness meets, not the worst case of the cost.
    """

    attack: str = Field(default="pgd", description="the attack that moves the inputs")
    norm: Norm = Field(default=Norm.LINF, description="its norm")
    epsilon: float = Field(gt=0, description="radius of its ball, in input units")
    args: dict[str, Any] = Field(default_factory=dict, description="its arguments")
    inputs: int = Field(default=32, ge=1, description="real inputs, evenly spread over the data")

    @model_validator(mode="after")
    def _known(self) -> "MacsUnderAttack":
        self._attack()
        return self

    def inner_plugins(self) -> tuple[Plugin, ...]:
        return (self._attack(),)

    def _attack(self) -> Attack:
        return attacks.build(self.attack, {**self.args, "norm": self.norm})

    def measure(self, model: Classifier, samples: Samples, artefact: bytes | None) -> Sequence[Figure]:
        if countable(model) is None:
            return [Figure(name=name, value=None, flags=(NO_MODULE,)) for name in self.figures()]
        attack = self._attack()
        check_attack(attack, model)
        if attack.knowledge is Knowledge.WHITE_BOX and model.gradients is Gradients.NONE:
            raise PluginError(
                f"probe '{self.name}': '{attack.name}' needs gradients, and this model has none",
                "give it an `attack` on scores or decisions",
            )
        chosen = spread_indices(samples, self.inputs)
        x = samples.fetch(chosen).to(model.device)
        y = torch.from_numpy(samples.labels[chosen].astype(np.int64)).to(model.device)
        random = SampleRandom.of(0, f"{self.name}/{self.attack}", [int(index) for index in chosen])
        moved = attack.run(model, x, y, self.epsilon, random).detach()
        untouched, found = (counts(model, [some[row : row + 1] for row in range(len(some))]) for some in (x, moved))
        before, after = (mean("macs", some, lambda one: one.macs) for some in (untouched, found))
        ratio = after.value / before.value if before.value and after.value is not None else None
        flags = () if ratio is not None else ("undefined: nothing could be counted",)
        return [
            *distribution("attacked_macs", found),
            Figure(name="attacked_macs/ratio", value=ratio, n=len(chosen), flags=(*flags, *after.flags)),
        ]

    @classmethod
    def figures(cls) -> tuple[str, ...]:
        return ("attacked_macs", *(f"attacked_macs/{key}" for key in (*STATISTICS, "ratio")))
