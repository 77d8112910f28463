"""Who attacks: the threat model, without which a figure of robustness means nothing."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import ConfigDict, Field, model_validator

from bench.words import Frozen, Goal, Knowledge, Norm

Count = Annotated[int, Field(ge=1)]


class Budget(Frozen):
    """What an attack may spend on one sample at one epsilon. When it is used up, what was found until then counts."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    gradients: Count | None = None
    """Backward passes."""
    queries: Count | None = None
    """Forward passes."""
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Of the clock, for a whole block of samples. What is found then depends on the machine: the row says so."""

    @model_validator(mode="after")
    def _of_something(self) -> "Budget":
        if self.gradients is None and self.queries is None and self.seconds is None:
            raise ValueError("a budget limits `gradients`, `queries` or `seconds`: give one of them")
        return self

    @property
    def text(self) -> str:
        """`at most 10 gradients, 100 queries`"""
        named = (("gradients", self.gradients), ("queries", self.queries), ("s a block", self.seconds))
        return f"at most {', '.join(f'{value:g} {unit}' for unit, value in named if value is not None)}"


class Allowance(Frozen):
    """How far an attack goes if nothing stops it, as its own arguments have it.

    steps: iterations of its main loop, in each restart. queries: forward passes per sample. Neither: it ends when
    nothing is left to try.
    """

    steps: int | None = None
    queries: int | None = None
    restarts: int = 1

    @property
    def stated(self) -> bool:
        return self.steps is not None or self.queries is not None

    @property
    def text(self) -> str:
        """`40 steps × 2 restarts`"""
        parts = [f"{self.steps:g} steps" if self.steps != 1 else "1 step"] if self.steps is not None else []
        parts += [f"{self.queries:g} queries"] if self.queries is not None else []
        told = ", ".join(parts) or "until nothing is left to try"
        return f"{told} × {self.restarts} restarts" if self.restarts > 1 else told


class ThreatModel(Frozen):
    """What an attacker may do, knows and wants. Figures of different threat models are never ranked together.

    epsilons: radii in input units, ascending; empty where the smallest distance is searched, and reported as such.
    """

    norm: Norm
    epsilons: tuple[float, ...] = ()
    goal: Goal = Goal.UNTARGETED
    knowledge: Knowledge
    allowance: Allowance = Allowance()
    budget: Budget | None = None

    @property
    def spends(self) -> str:
        """Its budget in words: what the attack asks for, and what the suite allows."""
        return self.allowance.text if self.budget is None else f"{self.allowance.text}, {self.budget.text}"

    def differs(self, other: "ThreatModel") -> str:
        """In what two threat models differ besides the radii, in words; empty where figures of them may be compared."""
        for name, mine, theirs in (
            ("norm", self.norm, other.norm),
            ("goal", self.goal, other.goal),
            ("knowledge", self.knowledge, other.knowledge),
            ("budget", self.spends, other.spends),
        ):
            if mine != theirs:
                return f"{name} {theirs}, not {mine}"
        return ""


KNOWING = (Knowledge.WHITE_BOX, Knowledge.TRANSFER, Knowledge.SCORE, Knowledge.DECISION)  # whoever knows most first


def strongest(threats: Sequence[ThreatModel]) -> ThreatModel:
    """The threat model of the worst case over attacks of one norm: the knowledge of the one who knows most, whose reach
    includes the others' finds, and the most that any of them spends. threats: at least one, of one goal."""
    budgets = [threat.budget for threat in threats]
    largest = Allowance(
        steps=max(threat.allowance.steps or 0 for threat in threats) or None,
        queries=max(threat.allowance.queries or 0 for threat in threats) or None,
        restarts=max(threat.allowance.restarts for threat in threats),
    )
    return ThreatModel(
        norm=threats[0].norm,
        epsilons=tuple(sorted({epsilon for threat in threats for epsilon in threat.epsilons})),
        goal=threats[0].goal,
        knowledge=min((threat.knowledge for threat in threats), key=KNOWING.index),
        allowance=largest,
        budget=budgets[0] if all(budget == budgets[0] for budget in budgets) else None,
    )
