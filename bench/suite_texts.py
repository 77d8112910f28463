"""Attacks on words for data sets of token ids, and no others: known before anything is loaded."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from bench.contracts import attacks, datasets
from bench.errors import GauntletError
from bench.suite_yaml import Keys
from bench.token_ids import refusal

Entries = Iterable[tuple[Keys, Mapping[str, Any]]]


def unsuited(data: Entries, asked: Sequence[tuple[Keys, Mapping[str, Any]]]) -> Iterator[tuple[Keys, str]]:
    """Where an attack stands that cannot run on one of the suite's data sets, and why. data, asked: entries as read.

    What is wrong with an entry itself is told elsewhere, and passed over here.
    """
    for _, entry in data:
        if (tokens := _tokens(entry)) is None:
            continue
        for keys, attack in asked:
            name = attack.get("attack")
            known = isinstance(name, str) and name in attacks
            if known and (message := refusal(str(name), attacks.get(str(name)).tokens, tokens=tokens)):
                yield keys, message


def _tokens(entry: Mapping[str, Any]) -> bool | None:
    """Whether a data set has token ids; None where its entry is wrong."""
    name, args = entry.get("dataset"), entry.get("args") or {}
    if not isinstance(name, str) or name not in datasets or not isinstance(args, dict):
        return None
    try:
        return datasets.build(name, args).tokens
    except (ValueError, TypeError, GauntletError):
        return None
