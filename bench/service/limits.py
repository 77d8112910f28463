"""The service's settings from a file: what one user may have (the fields of bench.service.queue.Quotas), the rate of
requests, for how many workers Ray's autoscaler is asked, and under `days` how long the service remembers
(bench.service.retention.Days)."""

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from bench.errors import did_you_mean
from bench.service.queue import Quotas
from bench.service.retention import KINDS, Days
from bench.suite_yaml import Document, describe, read, refusal

RATE = 20.0  # requests per second of one user
AUTOSCALED = 100  # workers
EVER = "for ever"


@dataclass(frozen=True)
class Limits:
    """quotas hold for all faces and the dispatcher together, the rate for each face, the rest for the dispatcher."""

    quotas: Quotas = field(default_factory=Quotas)
    rate: float = RATE
    days: Days = field(default_factory=Days)
    autoscaled: int = AUTOSCALED


def limits(path: Path | None) -> Limits:
    """What the YAML file says, and the defaults for what it does not. Raises SuiteError with everything wrong in it."""
    if path is None:
        return Limits()
    document = read(path)
    _check(document)
    given = dict(document.data)
    rate = float(given.pop("rate", RATE))
    days = {kind: math.inf if each == EVER else float(each) for kind, each in given.pop("days", {}).items()}
    autoscaled = given.pop("autoscaled", AUTOSCALED)
    return Limits(Quotas(**given), rate, Days(**days), autoscaled)


def _check(document: Document) -> None:
    whole = {each.name: each.type in (int, "int") for each in fields(Quotas)} | {"rate": False, "autoscaled": True}
    for key, value in document.data.items():
        if key == "days":
            _check_days(document, value)
        elif key not in whole:
            near = did_you_mean(key, [*whole, "days"])
            known = ", ".join([*whole, "days"])
            document.findings.append(document.find((key,), f"no such limit{near} ({known})", of_key=True))
        elif not isinstance(value, int if whole[key] else int | float) or isinstance(value, bool) or value <= 0:
            kind = "whole number" if whole[key] else "number"
            document.findings.append(document.find((key,), f"must be a {kind} above 0, got {describe(value)}"))
    if document.findings:
        raise refusal(document.findings)


def _check_days(document: Document, days: Any) -> None:
    if not isinstance(days, dict):
        message = f"must be a mapping of {', '.join(KINDS)}, got {describe(days)}"
        document.findings.append(document.find(("days",), message))
        return
    for key, value in days.items():
        if key not in KINDS:
            message = f"nothing of that name is forgotten{did_you_mean(key, KINDS)} ({', '.join(KINDS)})"
            document.findings.append(document.find(("days", key), message, of_key=True))
        elif value != EVER and (not isinstance(value, int | float) or isinstance(value, bool) or value < 1):
            message = f"must be a number of days, 1 at the least, or '{EVER}', got {describe(value)}"
            document.findings.append(document.find(("days", key), message))
