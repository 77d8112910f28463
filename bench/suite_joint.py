"""Attacks over several domains: one epsilon each, and tasks that cut no group of samples."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bench.contracts import JointAttack, attacks
from bench.errors import GauntletError
from bench.suite_parts import Resources
from bench.suite_yaml import Keys


def misjoined(suite: Mapping[str, Any], asked: Iterable[tuple[Keys, Mapping[str, Any]]]) -> Iterator[tuple[Keys, str]]:
    """Where a JointAttack cannot do its work, and why. asked: the attacks of the suite, as read.

    What is wrong with an entry itself is told elsewhere, and passed over here.
    """
    resources = suite.get("resources")
    size = resources.get("batch_size") if isinstance(resources, dict) else None
    block = size if isinstance(size, int) and size > 0 else Resources().batch_size
    for keys, entry in asked:
        if (attack := _built(entry)) is None:
            continue
        epsilons = entry.get("epsilons")
        if isinstance(epsilons, list) and len(epsilons) > 1:
            message = f"'{attack.name}' takes one: name the attack once for each, with a `name:` of its own"
            yield (*keys, "epsilons"), message
        if block % attack.together:
            near = max(1, block // attack.together) * attack.together
            message = f"'{attack.name}' moves {attack.together} samples together: `resources.batch_size` has to be a"
            yield (*keys, "attack"), f"{message} multiple of that, and is {block} ({near} is)"


def _built(entry: Mapping[str, Any]) -> JointAttack | None:
    """The attack of an entry where it is one; None where it is another, or wrong."""
    name, args = entry.get("attack"), entry.get("args") or {}
    if not isinstance(name, str) or name not in attacks or not issubclass(attacks.get(name), JointAttack):
        return None
    try:
        found = attacks.build(name, args)
    except (ValueError, TypeError, GauntletError):
        return None
    return found if isinstance(found, JointAttack) else None
