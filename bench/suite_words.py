"""What pydantic found wrong, in plain words and at its place in the suite."""

import re
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from bench.errors import did_you_mean
from bench.suite_parts import PATTERNS
from bench.suite_yaml import Keys, describe

MAX_TOLD = 1000  # of one object: finding the nearest names takes time


class Trouble(NamedTuple):
    """One thing that a pydantic class refuses, at `keys` below what it was given."""

    keys: Keys
    at_key: bool  # the key itself is wrong, not its value
    message: str


def troubles(error: ValidationError, data: Any, cls: type[BaseModel]) -> Iterator[Trouble]:
    """What `cls` refused in `data`. What the branches of a union say about one value becomes one message."""
    found: dict[tuple[Keys, bool], list[str]] = {}
    details = [detail for detail in error.errors(include_url=False) if detail["type"] != "default_factory_not_called"]
    unknown: dict[Any, list[str]] = {}
    for detail in details[:MAX_TOLD]:
        if detail["type"] == "extra_forbidden":
            unknown.setdefault(detail["loc"][:-1], []).append(str(detail["loc"][-1]))
    for detail in details[:MAX_TOLD]:
        if detail["type"] == "missing" and any(
            did_you_mean(key, [str(detail["loc"][-1])]) for key in unknown.get(detail["loc"][:-1], ())
        ):
            continue  # told at the unknown key
        if detail["type"] == "too_short" and len(detail["input"]) >= detail["ctx"]["min_length"]:
            continue  # pydantic does not count wrong entries, which are told on their own
        keys = _keys(detail["loc"], data, missing=detail["type"] == "missing")
        at_key = detail["type"] == "extra_forbidden" and bool(keys)
        if detail["type"] == "extra_forbidden" and not keys:  # of a plugin that a validator built; told there, too
            message = f"there is an unknown key '{detail['loc'][-1]}' in what it is made of"
        else:
            message = _unknown(keys, cls) if at_key else _words(detail, keys, cls)
        messages = found.setdefault((keys, at_key), [])
        if message not in messages:
            messages.append(message)
    for (keys, at_key), messages in found.items():
        yield Trouble(keys, at_key, ", or ".join(messages))


def _keys(location: tuple[str | int, ...], data: Any, *, missing: bool) -> Keys:
    """pydantic's location without the names of union branches, which it mixes in."""
    keys: list[str | int] = []
    for index, part in enumerate(location):
        here = (isinstance(data, dict) and part in data) or (
            isinstance(data, list) and isinstance(part, int) and part < len(data)
        )
        if here:
            data = data[part]
        if here or (missing and index + 1 == len(location)):
            keys.append(part)
    return tuple(keys)


def _unknown(keys: Keys, cls: type[BaseModel]) -> str:
    owner = model_at(cls, keys[:-1])
    known = list(owner.model_fields) if owner else []
    listed = f"keys here: {', '.join(known)}" if known else "there are no keys here"
    return f"unknown key '{keys[-1]}'{did_you_mean(str(keys[-1]), known)} ({listed})"


def model_at(cls: type[BaseModel], keys: Keys) -> type[BaseModel] | None:
    """The pydantic class of what stands at `keys` below an object of `cls`, where there is one."""
    found: type[BaseModel] | None = cls
    for key in keys:
        if isinstance(key, int):
            continue
        if found is None or key not in found.model_fields:
            return None
        found = model_in(found.model_fields[key].annotation)
    return found


def model_in(annotation: Any) -> type[BaseModel] | None:
    """The first pydantic class inside an annotation such as `tuple[AttackSpec, ...]`."""
    return next((leaf for leaf in leaves(annotation) if isinstance(leaf, type) and issubclass(leaf, BaseModel)), None)


def leaves(annotation: Any) -> Iterator[Any]:
    """The types an annotation is made of."""
    inner = get_args(annotation)
    if not inner:
        yield annotation
    elif get_origin(annotation) in (Union, UnionType) or isinstance(get_origin(annotation), type):
        for part in inner:
            yield from leaves(part)
    else:  # Annotated, Literal
        yield from leaves(inner[0])


_WORDS: Mapping[str, str] = {
    "greater_than": "must be greater than {gt}, got {got}",
    "greater_than_equal": "must be at least {ge}, got {got}",
    "less_than": "must be less than {lt}, got {got}",
    "less_than_equal": "must be at most {le}, got {got}",
    "multiple_of": "must be a multiple of {multiple_of}, got {got}",
    "finite_number": "must be a finite number, got {got}",
    "string_too_short": "must have at least {min_length} characters, got {got}",
    "string_too_long": "must have at most {max_length} characters, got {got}",
    "too_short": "needs {min_length} or more entries, got {actual_length}",
    "too_long": "must have at most {max_length} entries, got {actual_length}",
    "string_type": "must be text, got {got}{quotes}",
    "path_type": "must be a path, got {got}{quotes}",
    "bool_type": "must be true or false, got {got}",
    "none_required": "must be left out, got {got}",
    "json_invalid": "holds characters that no text can hold: {error}",
}
_KINDS: Mapping[str, str] = {
    "int": "must be a whole number, got {got}{bare}",
    "float": "must be a number, got {got}{bare}",
    "tuple": "must be a list (`[a, b]`, or one `- ...` on each line), got {got}",
    "list": "must be a list (`[a, b]`, or one `- ...` on each line), got {got}",
    "dict": "must be a mapping (`key: value`), got {got}",
    "model": "must be a mapping (`key: value`), got {got}",
}


def _words(detail: Any, keys: Keys, cls: type[BaseModel]) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    got = describe(value)
    if kind == "missing":
        return _missing(keys, cls)
    if kind in ("value_error", "assertion_error"):
        return str(context["error"])
    if kind in ("enum", "literal_error"):
        known = re.findall(r"'([^']*)'", context["expected"])
        return f"must be {context['expected']}, got {got}{did_you_mean(value, known) if isinstance(value, str) else ''}"
    if kind == "string_pattern_mismatch":
        return f"{PATTERNS.get(context['pattern'], 'must match ' + context['pattern'])}, got {got}"
    if template := _WORDS.get(kind) or _KINDS.get(kind.partition("_")[0]):
        quotes = " (put it in quotes)" if isinstance(value, bool | int | float) else ""
        bare = (
            " (numbers are written like 3, .5, 1e-3 or 8/255, without quotes or leading zeros)"
            if isinstance(value, str)
            else ""
        )
        limits = {name: f"{limit:g}" if isinstance(limit, float) else limit for name, limit in context.items()}
        return template.format(**limits, got=got, quotes=quotes, bare=bare)
    message: str = detail["msg"]
    return f"{message[:1].lower()}{message[1:]}, got {got}"


def _missing(keys: Keys, cls: type[BaseModel]) -> str:
    owner = model_at(cls, keys[:-1])
    field = owner.model_fields.get(str(keys[-1])) if owner else None
    return f"is missing: {field.description}" if field is not None and field.description else "is missing"
