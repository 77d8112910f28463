"""Whether the leaderboard of a suite asks only for what its evaluations yield."""

import fnmatch
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from bench.errors import did_you_mean
from bench.suite_base import MAX_COLUMNS, MAX_ENTRIES
from bench.suite_board import Grouping, Published, Score, published_twice, unscaled
from bench.suite_yaml import Document, Finding, Keys

MAX_LISTED = 40  # metrics in a message

Kind = TypeVar("Kind", bound=BaseModel)


@dataclass
class BoardChecks:
    """The checks of `leaderboard:`, which need a suite whose evaluations are right.

    metrics: what these yield. models, datasets: how they are called.
    """

    document: Document
    metrics: Sequence[str]
    models: Sequence[str]
    datasets: Sequence[str]
    findings: list[Finding] = field(default_factory=list)

    def run(self) -> list[Finding]:
        board = self.document.data.get("leaderboard")
        if not isinstance(board, dict):
            return []
        groups, scores = _several(Grouping, board.get("groups")), _several(Score, board.get("scores"))
        for index, group in enumerate(groups):
            for place, metric in enumerate(group.metrics):
                self.metric(("groups", index, "metrics", place), metric, self.metrics)
        yielded = [*self.metrics, *(name for group in groups for name in group.yields())]
        known = [*yielded, *(score.metric for score in scores)]
        self.columns(board, known, groups)
        self.scores(scores, yielded)
        published = _several(Published, board.get("published"))
        for index, entry in enumerate(published):
            self.metric(("published", index, "metric"), entry.metric, known)
        self.take("published", published_twice(published, self.models, self.datasets))
        self.curves(board.get("curves"))
        return self.findings

    def columns(self, board: dict[str, Any], known: Sequence[str], groups: Sequence[Grouping]) -> None:
        columns = board.get("columns")
        listed = columns[:MAX_COLUMNS] if isinstance(columns, list) else ()
        asked: list[tuple[Keys, Any]] = [(("columns", index), column) for index, column in enumerate(listed)]
        seen: set[str] = set()
        for keys, metric in [*asked, (("rank_by",), board.get("rank_by"))]:
            if not isinstance(metric, str):
                continue
            if not any(group.has(metric) for group in groups):
                self.metric(keys, metric, known)
            if metric in known and metric in seen and keys[0] == "columns":
                self.find(keys, f"the column '{metric}' stands twice: remove one")
            seen.add(metric)

    def scores(self, scores: Sequence[Score], yielded: Sequence[str]) -> None:
        self.take("scores", unscaled(scores))
        for index, score in enumerate(scores):
            for place, part in enumerate(score.of):
                self.metric(("scores", index, "of", place, "metric"), part.metric, yielded)

    def curves(self, curves: Any) -> None:
        for name, pattern in curves.items() if isinstance(curves, dict) else ():
            if isinstance(pattern, str) and len(fnmatch.filter(self.models, pattern)) < 2:
                self.find(("curves", name), f"'{pattern}' matches fewer than two models of this suite")

    def metric(self, keys: Keys, metric: str, known: Sequence[str]) -> None:
        if metric not in known:
            more = f", and {len(known) - MAX_LISTED} more" if len(known) > MAX_LISTED else ""
            hint = did_you_mean(metric, known[:MAX_ENTRIES]) or f" (it yields: {', '.join(known[:MAX_LISTED])}{more})"
            self.find(keys, f"this suite yields no metric '{metric}'{hint}")

    def take(self, key: str, findings: Iterator[tuple[tuple[str | int, ...], str]]) -> None:
        for keys, message in findings:
            self.find((key, *keys), message)

    def find(self, keys: Keys, message: str) -> None:
        """keys: relative to `leaderboard`."""
        self.findings.append(self.document.find(("leaderboard", *keys), message))


def _several(cls: type[Kind], entries: Any) -> list[Kind]:
    """The entries of a list; none where the structure is wrong, which is told elsewhere."""
    try:
        return [cls.model_validate_json(json.dumps(entry), strict=True) for entry in entries or ()]
    except (ValidationError, TypeError):
        return []
