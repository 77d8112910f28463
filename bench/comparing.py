"""Two submissions, or two exports, brought side by side."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from pydantic import ValidationError

from bench.errors import Mistake, OperatorError, SuiteError, did_you_mean
from bench.metrics.changes import Side
from bench.metrics.evidence import evidence
from bench.metrics.rows import rows as rows_of_cells
from bench.records import Row
from bench.runs import Run


def sides(run: Run, only: str | None = None, renamed: Mapping[str, str] | None = None) -> list[Side]:
    """The rows of a run with what stands behind them. renamed: what its models are called on the other side; a model
    that bears such a name already has no counterpart there, and is left out."""
    renamed = renamed or {}
    found = []
    for (model, _), group in groupby(run.cells(only), key=lambda cell: (cell.model, cell.dataset)):
        if model in renamed.values() and model not in renamed:
            continue
        cells = list(group)
        (row,) = rows_of_cells(cells)
        name = renamed.get(model, model)
        found.append(Side(row.model_copy(update={"model": name}), evidence(cells)))
    return found


def exported(path: Path) -> list[Side]:
    """The rows of a JSON export. Raises OperatorError where there is none, or where it is something else."""
    hint = "`gauntlet leaderboard RUN --format json` writes one"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [
            Side(Row.model_validate({name: row[name] for name in _FIELDS if name in row})) for row in content["rows"]
        ]
    except OSError as problem:
        raise OperatorError(f"{path} cannot be read: {problem.strerror}", hint) from None
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError) as problem:
        first = str(problem).partition("\n")[0]
        raise OperatorError(f"{path} is no leaderboard in JSON: {first}", hint) from None


_FIELDS = ("model", "dataset", "metrics", "flags", "failures", "hardware", "threats")


def pairs(assignments: Sequence[str], first: Run, second: Run) -> dict[str, str]:
    """`OLD=NEW` each: models of the first that are compared with models of another name. Raises SuiteError."""
    found = {}
    for text in assignments:
        old, _, new = text.partition("=")
        for name, run, which in ((old, first, "first"), (new, second, "second")):
            known = [model.label for model in run.resolved.models]
            if name not in known:
                hint = did_you_mean(name, known) or f" (it has {', '.join(known)})"
                raise SuiteError([Mistake(f"--match {text}", "", f"the {which} has no model '{name}'{hint}")])
        found[old] = new
    return found


def unpaired(first: Run, second: Run) -> set[str]:
    """Data sets of one name whose samples differ: figures on them are compared as if independent."""
    before = {ref.label: ref.identity for ref in first.resolved.datasets}
    return {ref.label for ref in second.resolved.datasets if before.get(ref.label, ref.identity) != ref.identity}


def notes(first: Run, second: Run, renamed: Mapping[str, str]) -> Iterator[str]:
    """What changed besides the figures: data, evaluations, settings, libraries. Weights and code of models may."""
    for label in sorted(unpaired(first, second)):
        yield f"data set {label}: the samples differ, so its figures are compared as if independent"
    before = {ref.label: ref for ref in first.resolved.evaluations}
    for ref in second.resolved.evaluations:
        old = before.get(ref.label)
        if old is not None and old.identity != ref.identity:
            yield f"evaluation {ref.label} is not the same: {_told(old.model_dump(), ref.model_dump())}"
    for name in ("seed", "threads", "block", "engine"):
        old_value, new_value = getattr(first.resolved, name), getattr(second.resolved, name)
        if old_value != new_value:
            yield f"{name}: {old_value} → {new_value}"
    weights = {renamed.get(ref.label, ref.label): ref.weights or ref.training for ref in first.resolved.models}
    for model in second.resolved.models:
        if model.label in weights and weights[model.label] != (model.weights or model.training):
            yield f"model {model.label}: other weights"
    for run, which in ((first, "first"), (second, "second")):
        if run.failures:
            yield f"the {which}: {len(run.failures)} tasks failed"


def _told(old: Mapping[str, object], new: Mapping[str, object]) -> str:
    return "; ".join(f"{name} {old[name]} → {new[name]}" for name in new if old.get(name) != new[name])
