"""The JSON export of a leaderboard: what `--format json` writes, and its published schema."""

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from pydantic import Field

from bench.contracts import Frozen, ThreatModel
from bench.records import Failure, Metric, Row
from bench.suite_board import Score
from reports.published import compared
from reports.ranking import View, sections

FORMAT: Literal["gauntlet-leaderboard/1"] = "gauntlet-leaderboard/1"


class Reference(Frozen):
    """A figure that somebody published; `recomputed` is the same one computed anew from what was published with it."""

    metric: str = Field(description="the measured metric that it stands beside")
    published: Metric
    source: str
    recomputed: Metric | None = None
    recomputed_source: str = ""


class ExportedScore(Frozen):
    """A combined figure: the weighted mean of its parts, each on a scale from worst (0) to best (1)."""

    metric: str
    parts: tuple[dict[str, str | float], ...] = Field(description="metric, weight, worst, best, scale")


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
    threats: dict[str, ThreatModel] = Field(
        default_factory=dict, description="by NORM/ATTACK as in the metrics' names: which attacker a figure is about"
    )
    published: tuple[Reference, ...] = Field((), description="figures of others for this model and data set")


class Export(Frozen):
    """A leaderboard. A later format adds keys; one that changes or removes any has another number."""

    format: Literal["gauntlet-leaderboard/1"]
    suite: str
    submission: str
    rank_by: str | None = Field(description="the metric that ranks; null: there are no rows")
    rows: tuple[ExportedRow, ...] = Field(description="by data set, best first")
    scores: tuple[ExportedScore, ...] = Field((), description="what combined figures are made of")


def document(rows: Iterable[Row], view: View) -> str:
    """One JSON document (Export), at full precision, best first; null for what is missing, never NaN."""
    every = list(rows)
    made = sections(every, replace(view, published=()))
    found = tuple(
        ExportedRow(
            **dict(line.row), rank=line.rank, not_ranked=line.reason, published=_references(line.row, every, view)
        )
        for section in made
        for line in section.lines
    )
    export = Export(
        format=FORMAT,
        suite=view.suite,
        submission=view.submission,
        rank_by=made[0].rank_by if made else None,
        rows=found,
        scores=tuple(_score(score) for score in view.scores),
    )
    return json.dumps(export.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _references(row: Row, rows: list[Row], view: View) -> tuple[Reference, ...]:
    return tuple(
        Reference(
            metric=one.metric,
            published=one.published,
            source=one.source,
            recomputed=one.recomputed,
            recomputed_source=one.recomputed_source,
        )
        for one in compared(row, rows, view.published)
    )


def _score(score: Score) -> ExportedScore:
    parts: list[dict[str, str | float]] = [
        {
            "metric": part.metric,
            "weight": part.weight,
            "worst": part.ends[0],
            "best": part.ends[1],
            "scale": part.scale,
        }
        for part in score.of
    ]
    return ExportedScore(metric=score.metric, parts=tuple(parts))


def schema() -> str:
    """The JSON schema of Export, as docs/leaderboard.schema.json holds it."""
    return json.dumps(Export.model_json_schema(mode="serialization"), indent=2, ensure_ascii=False) + "\n"
