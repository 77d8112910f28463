"""What every plugin is: a frozen pydantic class that a suite can name."""

from typing import ClassVar

from bench.words import Frozen


class Plugin(Frozen):
    """What a suite can name. `name` is set by the decorator.

    `requires` lists the distributions whose version changes the result: they are a part of the cache key.
    `local` says that its arguments name modules or addresses: a suite that came over the network may not use it.
    """

    name: ClassVar[str] = ""
    requires: ClassVar[tuple[str, ...]] = ("torch",)
    local: ClassVar[bool] = False

    @classmethod
    def summary(cls) -> str:
        """The first line of the class's own docstring."""
        return (cls.__doc__ or "").strip().partition("\n")[0]

    def inner_plugins(self) -> "tuple[Plugin, ...]":
        """Other plugins that this one works through: their source and versions are a part of its identity."""
        return ()

    def distributions(self) -> tuple[str, ...]:
        """`requires`, and what these very arguments need beyond it."""
        return self.requires
