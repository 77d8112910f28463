"""What the attacks of a suite need beyond right arguments: a whole threat model, and data that they can move."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from bench.contracts import Attack, Goal, JointAttack, attacks
from bench.suite_yaml import Keys
from bench.token_ids import refusal
from bench.words import GradientPasses

Troubles = Iterator[tuple[Keys, str]]  # where, and why


class Asked(NamedTuple):
    """An attack whose own rules accept its arguments; its entry in the suite, as read; and where that stands."""

    keys: Keys
    entry: Mapping[str, Any]
    attack: Attack


def shortcomings(asked: Asked, budget: object, block: int, tokens: Collection[bool]) -> Troubles:
    """What an attack under `evaluations.attacks` lacks or cannot do.

    budget: that of all attacks, as read. block: samples in a task. tokens: whether they are texts, of each data set.
    What is wrong with a value by itself is told elsewhere, and passed over here.
    """
    yield from _threat(asked, budget)
    if isinstance(asked.attack, JointAttack):
        yield from _joint(asked, asked.attack, budget, block)
    yield from _swift(asked)
    yield from _data(asked, tokens)


def shortcomings_of_crafter(asked: Asked, tokens: Collection[bool]) -> Troubles:
    """What keeps an attack from making the outliers of a detector (`adversarial:`). tokens: as for `shortcomings`."""
    if asked.attack.fits:
        yield (*asked.keys, "attack"), f"'{asked.attack.name}' learns about the model first: take another attack"
    if isinstance(asked.attack, JointAttack):
        message = f"'{asked.attack.name}' looks for what several domains share: take an attack on each sample by itself"
        yield (*asked.keys, "attack"), message
    yield from _data(asked, tokens)


def _threat(asked: Asked, budget: object) -> Troubles:
    keys, entry, attack = asked
    exhaustive = attack.exhaustive or any(getattr(part, "exhaustive", False) for part in attack.inner_plugins())
    if not attack.allowance.stated and not exhaustive and not entry.get("budget") and not budget:
        yield (
            (*keys, "budget"),
            f"is missing: '{attack.name}' says neither how many steps nor how many queries it takes: limit "
            "it, such as {queries: 1000}",
        )
    if _targeted(entry) and not attack.takes_targets and not isinstance(attack, JointAttack):
        yield (
            (*keys, "goal"),
            f"'{attack.name}' needs all classes of the model, and a goal with a target leaves a choice of two (the "
            "target or not): take pgd, apgd_ce, fab_t, cw or square",
        )


def _targeted(entry: Mapping[str, Any]) -> bool:
    return entry.get("goal") in [goal for goal in Goal if goal is not Goal.UNTARGETED]


def _joint(asked: Asked, attack: JointAttack, budget: object, block: int) -> Troubles:
    """One epsilon, no limits of single samples, and tasks that cut no group of samples."""
    keys, entry = asked.keys, asked.entry
    for key, given in (("goal", _targeted(entry)), ("budget", entry.get("budget"))):
        if given:
            yield (*keys, key), f"'{attack.name}' takes no {key}: its domains share what it finds: remove it"
    if budget and not entry.get("budget"):
        yield (
            (*keys, "attack"),
            f"'{attack.name}' takes no budget, its domains share what it finds: put `budget:` beside the other "
            "attacks, instead of under `evaluations:`",
        )
    epsilons = entry.get("epsilons")
    if isinstance(epsilons, list) and len(epsilons) > 1:
        message = f"'{attack.name}' takes one: name the attack once for each, with a `name:` of its own"
        yield (*keys, "epsilons"), message
    if block % attack.together:
        near = max(1, block // attack.together) * attack.together
        message = f"'{attack.name}' moves {attack.together} samples together: `resources.batch_size` has to be a"
        yield (*keys, "attack"), f"{message} multiple of that, and is {block} ({near} is)"


def _swift(asked: Asked) -> Troubles:
    wanted = asked.entry.get("gradient_passes", GradientPasses.FLOAT32)
    if wanted in list(GradientPasses) and wanted != GradientPasses.FLOAT32 and not asked.attack.swift:
        able = ", ".join(name for name in attacks if attacks.get(name).swift)
        message = f"'{asked.attack.name}' asks the model itself: remove it, or take one of {able}"
        yield (*asked.keys, "gradient_passes"), message


def _data(asked: Asked, tokens: Collection[bool]) -> Troubles:
    for one in tokens:
        if message := refusal(asked.attack.name, asked.attack.tokens, tokens=one):
            yield (*asked.keys, "attack"), message
