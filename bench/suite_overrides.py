"""Changes to a suite: from the command line, `--set models[0].args.width=8`, or by a profile that it holds itself."""

import copy
import re
from typing import Any

from bench.errors import Mistake, SuiteError, did_you_mean
from bench.suite_yaml import Document, Finding, Keys, Place, compose, describe, spell

_STEP = re.compile(r"\.?([^.\[\]=]+)|\[([0-9]{1,9})\]")


def override(document: Document, assignment: str, number: int) -> None:
    """Apply the number-th `KEY=VALUE`; VALUE is YAML. What is wrong goes to the document's findings.

    A mapping that the suite leaves out (`resources`) is made. Whether the key exists at all is for the checks to say.
    """
    key, equals, text = assignment.partition("=")
    place = Place(0, number, f"--set {key.strip()}")
    keys = _split(key.strip())
    if not equals or keys is None:
        message = f"must be KEY=VALUE such as `models[0].args.width=8`, got '{assignment}'"
        document.findings.append(Finding(place, (), message))
        return
    value = compose(text, place.source)
    problems = [finding.message for finding in value.findings] or _assign(document, keys, value.data, place)
    document.findings += [Finding(place, keys, problem) for problem in problems]


def use_profile(document: Document, name: str) -> None:
    """Apply the changes that stand under `profiles.NAME`: paths as `--set` takes them, each with its value.

    Mistakes in a value are told where it stands in the file. Raises SuiteError for a profile that is not there.
    """
    profiles = document.data.get("profiles")
    known = [*profiles] if isinstance(profiles, dict) else []
    if name not in known:
        listed = f"it has: {', '.join(known)}" if known else "it has none"
        message = f"no profile '{name}' in {document.source}{did_you_mean(name, known)} ({listed})"
        raise SuiteError([Mistake(f"--profile {name}", "", message)])
    changes = profiles[name]
    if not isinstance(changes, dict):
        return  # refused by the structure
    for key, value in changes.items():
        here: Keys = ("profiles", name, key)
        keys = _split(key)
        if keys is None or keys[0] == "profiles":
            problems = [f"must be the path of a key such as `models[0].args.width`, got '{key}'"]
        else:
            problems = _assign(document, keys, copy.deepcopy(value), document.place(here))
        document.findings += [document.find(here, problem, of_key=True) for problem in problems]


def _assign(document: Document, keys: Keys, value: Any, place: Place) -> list[str]:
    """Put the value in its place. Returns why that cannot be done; then nothing has changed."""
    if problem := _nowhere(document.data, keys):
        return [problem]
    target = document.data
    for depth, part in enumerate(keys[:-1], 1):
        if isinstance(part, str) and target.get(part) is None:
            target[part] = {}
            _move(document, keys[:depth], place)
        target = target[part]
    target[keys[-1]] = value
    _move(document, keys, place)
    return []


def _nowhere(target: Any, keys: Keys) -> str:
    """Why there is no such place below `target`; empty where there is, or mappings can be made that lead to it."""
    for depth, part in enumerate(keys):
        here = f"`{spell(keys[:depth])}`"
        if isinstance(part, int) and not isinstance(target, list):
            return f"there is no [{part}]: {here} is {describe(target)}"
        if isinstance(part, int) and part >= len(target):
            return f"there is no [{part}]: {here} has {len(target)} entries, counted from 0"
        if isinstance(part, str) and not isinstance(target, dict):
            hint = f": write {spell(keys[:depth])}[0]" if isinstance(target, list) else ""
            return f"there is no '{part}': {here} is {describe(target)}{hint}"
        if isinstance(part, str) and target.get(part) is None:
            lists = any(isinstance(below, int) for below in keys[depth:])
            return f"there is no `{spell(keys[: depth + 1])}`{did_you_mean(part, target)}" if lists else ""
        target = target[part]
    return ""


def _move(document: Document, keys: Keys, place: Place) -> None:
    """From now on, what is at `keys` and below stands at this place."""
    for places in (document.key_places, document.value_places):
        for below in [known for known in places if known[: len(keys)] == keys]:
            del places[below]
        places[keys] = place
    document.refused = {known for known in document.refused if known[: len(keys)] != keys}


def _split(key: str) -> Keys | None:
    """The parts of `models[0].args.width`, or None where it is not of that form."""
    keys: list[str | int] = []
    position = 0
    while position < len(key):
        step = _STEP.match(key, position)
        if step is None:
            return None
        keys.append(step[1] if step[1] is not None else int(step[2]))
        position = step.end()
    return tuple(keys) if keys and isinstance(keys[0], str) and not key.startswith(".") else None
