"""Names for classes. Everything a suite can name stands in a Registry."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from bench.errors import PluginError, did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """The classes of one kind by name.

    A name is registered once; the same class may be registered again by the same source line (a module that is
    imported under the same name twice), any other duplicate is an error that names both.
    """

    def __init__(self, kind: str, plural: str, base: type[T]) -> None:
        self.kind = kind
        self.plural = plural
        self.base = base
        self._classes: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Decorator: give a subclass of the kind's base its name. Raises PluginError for a duplicate."""

        def keep(cls: type[T]) -> type[T]:
            if not (isinstance(cls, type) and issubclass(cls, self.base)):
                raise PluginError(
                    f"{self.kind} '{name}': {cls!r} is not a subclass of bench.contracts.{self.base.__name__}"
                )
            known = self._classes.get(name)
            if known is not None and _place(known) != _place(cls):
                raise PluginError(f"two {self.plural} are named '{name}': {_place(known)} and {_place(cls)}")
            cls.name = name  # type: ignore[attr-defined]
            self._classes[name] = cls
            return cls

        return keep

    def get(self, name: str) -> type[T]:
        """The class of that name. Raises PluginError with the nearest name."""
        try:
            return self._classes[name]
        except KeyError:
            raise PluginError(self.unknown(name)) from None

    def unknown(self, name: str) -> str:
        """What to tell somebody who asked for a name that is not there."""
        return f"no {self.kind} '{name}'{did_you_mean(name, self._classes)} (`gauntlet list {self.plural}` shows all)"

    def build(self, name: str, arguments: Mapping[str, Any]) -> T:
        """An object of the class of that name. Raises PluginError, or pydantic's ValidationError."""
        return self.get(name)(**arguments)

    def names(self) -> list[str]:
        return sorted(self._classes)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self._classes


def _place(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
