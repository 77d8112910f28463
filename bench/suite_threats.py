"""Whether the attacks of a suite say everything that their threat models need, before anything is loaded."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bench.contracts import Attack, Goal, JointAttack, attacks
from bench.suite_yaml import Keys


def unstated(asked: Iterable[tuple[Keys, Mapping[str, Any]]], budget: object) -> Iterator[tuple[Keys, str]]:
    """What is missing of an attack's threat model, or cannot be had of it, and where. asked: entries as read; budget:
    of all attacks, as read. What is wrong with an entry itself is told elsewhere, and passed over here."""
    for keys, entry in asked:
        if (attack := _built(entry)) is None:
            continue
        exhaustive = attack.exhaustive or any(getattr(part, "exhaustive", False) for part in attack.inner_plugins())
        if not attack.allowance.stated and not exhaustive and not entry.get("budget") and not budget:
            yield (
                (*keys, "budget"),
                f"is missing: '{attack.name}' says neither how many steps nor how many queries it takes: limit "
                "it, such as {queries: 1000}",
            )
        goal = entry.get("goal", Goal.UNTARGETED)
        if isinstance(attack, JointAttack):
            for key in ("goal", "budget"):
                if entry.get(key) not in (None, Goal.UNTARGETED):
                    yield (*keys, key), f"'{attack.name}' takes no {key}: its domains share what it finds: remove it"
            if budget and not entry.get("budget"):
                yield (
                    (*keys, "attack"),
                    f"'{attack.name}' takes no budget, its domains share what it finds: put `budget:` beside the other "
                    "attacks, instead of under `evaluations:`",
                )
        elif goal in list(Goal) and goal != Goal.UNTARGETED and not attack.takes_targets:
            yield (
                (*keys, "goal"),
                f"'{attack.name}' needs all classes of the model, and a goal with a target leaves a choice of two (the "
                "target or not): take pgd, apgd_ce, fab_t, cw or square",
            )


def _built(entry: Mapping[str, Any]) -> Attack | None:
    """None where the entry is wrong."""
    name, args = entry.get("attack"), entry.get("args") or {}
    if not isinstance(name, str) or name not in attacks or not isinstance(args, dict):
        return None
    try:
        return attacks.build(name, {**args, "norm": entry.get("norm")})
    except Exception:  # noqa: BLE001 - a foreign plugin's own validators may raise anything; the check of arguments tells
        return None
