"""The JSON export of a leaderboard: what `--format json` writes, and its published schema."""

import json
from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from bench.contracts import Frozen
from bench.records import Failure, Metric, Row
from reports.ranking import View, sections

FORMAT: Literal["gauntlet-leaderboard/1"] = "gauntlet-leaderboard/1"


class ExportedRow(Frozen):
    """A model on a data set."""

    model: str
    dataset: str
    rank: int | None = Field(description="among the rows of its data set; null: not ranked")
    not_ranked: str = Field(description="why it has no rank; empty if it has one")
    metrics: dict[str, Metric] = Field(description="by name, as docs/metrics.md has them")
    flags: tuple[str, ...] = Field(description="what must be said of a figure: 'SUBJECT: KIND: DETAIL'")
    failures: tuple[Failure, ...] = Field(description="tasks that ended without records")
    hardware: str | None = Field(description="digest of the machine behind its timings")


class Export(Frozen):
    """A leaderboard. A later format adds keys; one that changes or removes any has another number."""

    format: Literal["gauntlet-leaderboard/1"]
    suite: str
    submission: str
    rank_by: str | None = Field(description="the metric that ranks; null: there are no rows")
    rows: tuple[ExportedRow, ...] = Field(description="by data set, best first")


def document(rows: Iterable[Row], view: View) -> str:
    """One JSON document (Export), at full precision, best first; null for what is missing, never NaN."""
    made = sections(rows, view)
    found = tuple(
        ExportedRow(**dict(line.row), rank=line.rank, not_ranked=line.reason)
        for section in made
        for line in section.lines
    )
    rank_by = made[0].rank_by if made else None
    export = Export(format=FORMAT, suite=view.suite, submission=view.submission, rank_by=rank_by, rows=found)
    return json.dumps(export.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def schema() -> str:
    """The JSON schema of Export, as docs/leaderboard.schema.json holds it."""
    return json.dumps(Export.model_json_schema(mode="serialization"), indent=2, ensure_ascii=False) + "\n"
