"""Every error that Gauntlet raises on purpose, sorted by who can mend it.

    GauntletError             exit 1
    ├── SuiteError            exit 2   the author of the suite, or of the command line
    ├── PluginError           exit 3   the author of an adapter, an attack, a data set, ...
    └── OperatorError         exit 4   whoever runs the machine
        ├── DataError                  a data file is missing, or is not what it should be
        ├── StoreError                 the records cannot be read or written
        ├── ClusterError               Ray cannot be started, reached or kept
        └── TrackingError              MLflow cannot be reached or refuses

An interrupted run ends with 130, a run in which tasks failed with 1. Anything else is a bug, and shows its traceback.
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class GauntletError(Exception):
    """An expected failure: what is wrong, and in `hint` what to do next."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


@dataclass(frozen=True)
class Mistake:
    """One thing wrong in a suite: where it stands, and what would be right."""

    where: str  # file:line:column, or what stands for it ("--set resources.timeout")
    path: str  # attacks[0].epsilons[2]
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.path, self.message) if part)


class SuiteError(GauntletError):
    """Everything that is wrong in a suite, at once."""

    exit_code = 2

    def __init__(self, mistakes: Sequence[Mistake], hint: str = "") -> None:
        super().__init__("\n".join(str(mistake) for mistake in mistakes), hint)
        self.mistakes = tuple(mistakes)


class PluginError(GauntletError):
    """A plugin does not keep its contract, or cannot be found or imported."""

    exit_code = 3


class OperatorError(GauntletError):
    """Something around the program is missing or refuses."""

    exit_code = 4


class DataError(OperatorError):
    """A data file is missing, or is not what it should be."""


class StoreError(OperatorError):
    """The records cannot be read or written."""


class ClusterError(OperatorError):
    """Ray cannot be started, reached or kept."""


class TrackingError(OperatorError):
    """MLflow cannot be reached, or refuses."""


def counted(number: int, what: str) -> str:
    """`1 task`, `2 tasks`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` - did you mean 'pgd'?`, or nothing where no known name is near, and none begins with what was written."""
    lowered = {candidate.lower(): candidate for candidate in known}
    begun = name.lower()
    near = difflib.get_close_matches(begun, lowered, n=1, cutoff=0.6)
    near = near or sorted((one for one in lowered if one.startswith(begun) and len(begun) > 2), key=len)
    return f" - did you mean '{lowered[near[0]]}'?" if near else ""
