"""What one user may have, from a file: the fields of bench.service.queue.Quotas, and the rate of requests."""

from dataclasses import dataclass, field, fields
from pathlib import Path

from bench.errors import did_you_mean
from bench.service.queue import Quotas
from bench.suite_yaml import Document, describe, read, refusal

RATE = 20.0  # requests per second of one user


@dataclass(frozen=True)
class Limits:
    """quotas hold for all faces and the dispatcher together, the rate for each face."""

    quotas: Quotas = field(default_factory=Quotas)
    rate: float = RATE


def limits(path: Path | None) -> Limits:
    """What the YAML file says, and the defaults for what it does not. Raises SuiteError with everything wrong in it."""
    if path is None:
        return Limits()
    document = read(path)
    _check(document)
    given = dict(document.data)
    rate = float(given.pop("rate", RATE))
    return Limits(Quotas(**given), rate)


def _check(document: Document) -> None:
    whole = {each.name: each.type in (int, "int") for each in fields(Quotas)} | {"rate": False}
    for key, value in document.data.items():
        if key not in whole:
            near = did_you_mean(key, whole)
            document.findings.append(document.find((key,), f"no such limit{near} ({', '.join(whole)})", of_key=True))
        elif not isinstance(value, int if whole[key] else int | float) or isinstance(value, bool) or value <= 0:
            kind = "whole number" if whole[key] else "number"
            document.findings.append(document.find((key,), f"must be a {kind} above 0, got {describe(value)}"))
    if document.findings:
        raise refusal(document.findings)
