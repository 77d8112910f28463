"""The key `leaderboard:` of a suite: columns, ranking, figures that others published, and combined scores."""

import fnmatch
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Annotated, Literal

from pydantic import Field, model_validator

from bench import names
from bench.suite_base import MAX_COLUMNS, MAX_ENTRIES, Part

LABEL = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"
Label = Annotated[str, Field(pattern=LABEL, max_length=64)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Sentence = Annotated[str, Field(min_length=1, max_length=500)]


class Recomputed(Part):
    """A published figure computed anew from what was published with it (outputs per item, or weights)."""

    value: Finite | None = None
    """The figure, where somebody else or another program computed it."""
    low: Finite | None = None
    """Lower end of its 95 % interval."""
    high: Finite | None = None
    """Upper end of its 95 % interval."""
    model: str | None = None
    """A model of this suite that has the published weights: what is measured of it is the recomputed figure."""
    source: Sentence
    """What it was computed from, and how."""

    @model_validator(mode="after")
    def _one_origin(self) -> "Recomputed":
        if (self.value is None) == (self.model is None):
            raise ValueError("needs either `value:` (computed elsewhere) or `model:` (one of this suite)")
        return self


class Published(Part):
    """A figure that somebody published, to stand beside the one that is measured."""

    metric: str
    """The metric that it is to be compared with."""
    model: str = "*"
    """Shell pattern on the names of the models whose figure it is."""
    dataset: str = "*"
    """Shell pattern on the names of the data sets."""
    value: Finite
    """The figure, in the metric's own unit: a share is .97, not 97."""
    low: Finite | None = None
    """Lower end of its 95 % interval, where one was published."""
    high: Finite | None = None
    """Upper end of its 95 % interval."""
    source: Sentence
    """Where it stands: authors, year, table."""
    recomputed: Recomputed | None = None
    """The same figure, computed anew from what was published with it."""

    def concerns(self, model: str, dataset: str) -> bool:
        return fnmatch.fnmatchcase(model, self.model) and fnmatch.fnmatchcase(dataset, self.dataset)


class ScorePart(Part):
    """A figure that a score is made of, and the scale that it is read on."""

    metric: str
    """The metric."""
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """What it counts, relative to the others."""
    worst: Finite | None = None
    """The value that counts 0, and everything beyond it. Default, for shares that are good when large: 0."""
    best: Finite | None = None
    """The value that counts 1, and everything beyond it. Default, for shares that are good when large: 1."""
    scale: Literal["linear", "log"] = "linear"
    """How values between the two count."""

    @property
    def ends(self) -> tuple[float, float]:
        """(worst, best)."""
        return 0.0 if self.worst is None else self.worst, 1.0 if self.best is None else self.best

    @property
    def text(self) -> str:
        """`2 × macs (1e+07 to 100000, log)`"""
        worst, best = self.ends
        scale = "" if self.worst is self.best is None else f" ({worst:g} to {best:g}{', log' * (self.scale == 'log')})"
        return f"{self.weight:g} × {self.metric}{scale}"


class Grouping(Part):
    """Metrics told apart by a column of the data."""

    by: Annotated[str, Field(pattern=LABEL, max_length=64)]
    """The column: `class`, or a group column of the data sets."""
    metrics: Annotated[tuple[str, ...], Field(min_length=1, max_length=MAX_COLUMNS)] = (names.CLEAN_ACCURACY,)
    """Which metrics: each group's own value, the worst group, the disparity, and the standard deviation over groups."""

    def yields(self) -> list[str]:
        """The metrics that do not depend on which groups there are."""
        return [names.grouped(what, self.by, metric) for metric in self.metrics for what in names.GROUPED]

    def has(self, name: str) -> bool:
        """Whether a metric may be that of one of the groups."""
        return any(name.startswith(f"group/{self.by}/") and name.endswith(f"/{metric}") for metric in self.metrics)


class Score(Part):
    """A figure made of others: their weighted mean, each on its scale from 0 to 1."""

    name: Label
    """The metric is `score/NAME`."""
    of: Annotated[tuple[ScorePart, ...], Field(min_length=2, max_length=MAX_COLUMNS)]
    """What it is made of. These stand beside it, always."""

    @property
    def metric(self) -> str:
        return names.score(self.name)

    @property
    def text(self) -> str:
        return f"{self.metric} is the weighted mean of {', '.join(part.text for part in self.of)}"


class Leaderboard(Part):
    """How the results are shown."""

    columns: Annotated[tuple[str, ...], Field(max_length=MAX_COLUMNS)] = ()
    """Metrics, in this order. Left out: the usual ones of the suite."""
    rank_by: str | None = None
    """The metric that orders the models. Left out: the clean accuracy."""
    direction: Literal["descending", "ascending"] | None = None
    """Left out: the best first, which is the largest accuracy or AUROC and the smallest cost."""
    published: Annotated[tuple[Published, ...], Field(max_length=MAX_ENTRIES)] = ()
    """Figures that others published, each in a column of its own beside the measured one."""
    scores: Annotated[tuple[Score, ...], Field(max_length=MAX_COLUMNS)] = ()
    """Combined figures. There are none unless they are asked for."""
    groups: Annotated[tuple[Grouping, ...], Field(max_length=MAX_COLUMNS)] = ()
    """By which columns metrics are told apart."""

    @model_validator(mode="after")
    def _once(self) -> "Leaderboard":
        columns = [group.by for group in self.groups]
        for by in columns:
            if columns.count(by) > 1:
                raise ValueError(f"groups: the column '{by}' stands twice: list all its metrics under one")
        return self

    curves: dict[Label, str] = Field(default_factory=dict)
    """What a curve of accuracy against cost joins: a shell pattern on models by its name. Left out: each adapter's."""

    @property
    def shown(self) -> tuple[str, ...]:
        """The columns, with the parts of every score behind it."""
        if not self.columns:
            return ()
        parts = {score.metric: [part.metric for part in score.of] for score in self.scores}
        ranked = [self.rank_by] if self.rank_by in parts and self.rank_by not in self.columns else []
        made: dict[str, None] = {}
        for column in (*ranked, *self.columns):
            made |= dict.fromkeys([column, *(one for one in parts.get(column, ()) if one not in self.columns)])
        return tuple(made)


Place = tuple[str | int, ...]


def published_twice(
    entries: Sequence[Published], models: Sequence[str], datasets: Sequence[str]
) -> Iterator[tuple[Place, str]]:
    """What is wrong with published figures: names that match nothing, two for one figure, shares that are percentages.
    Places are relative to the list."""
    seen: dict[tuple[str, str, str], int] = {}
    for index, entry in enumerate(entries):
        for key, pattern, known in (("model", entry.model, models), ("dataset", entry.dataset, datasets)):
            if not fnmatch.filter(known, pattern):
                yield (index, key), f"'{pattern}' matches no {key} of this suite (there are: {', '.join(known)})"
        if entry.recomputed is not None and entry.recomputed.model is not None and entry.recomputed.model not in models:
            yield (
                (index, "recomputed", "model"),
                f"no model '{entry.recomputed.model}' in this suite (there are: {', '.join(models)})",
            )
        if names.is_bounded(entry.metric) and not 0 <= entry.value <= 1:
            yield (index, "value"), f"'{entry.metric}' lies between 0 and 1, got {entry.value:g}"
        for model, dataset in product(models, datasets):
            if entry.concerns(model, dataset):
                first = seen.setdefault((model, dataset, entry.metric), index)
                if first != index:
                    yield (
                        (index,),
                        f"'{entry.metric}' of '{model}' on '{dataset}' has a published figure already "
                        f"(published[{first}]): remove one, or narrow `model:`",
                    )
                    break


def unscaled(scores: Sequence[Score]) -> Iterator[tuple[Place, str]]:
    """What is wrong with scores: parts that stand twice or lack a scale. Places are relative to the list."""
    for index, score in enumerate(scores):
        seen: set[str] = set()
        for place, part in enumerate(score.of):
            where = (index, "of", place)
            worst, best = part.ends
            if part.metric in seen:
                yield (*where, "metric"), f"'{part.metric}' stands twice in this score: remove one"
            if (part.worst is None or part.best is None) and not names.is_good_share(part.metric):
                message = f"'{part.metric}' is no share that is good when large"
                yield where, f"{message}: say what counts 0 (`worst:`) and what counts 1 (`best:`)"
            elif worst == best:
                yield (*where, "best"), f"must differ from `worst:`, got {best:g} for both"
            elif part.scale == "log" and min(worst, best) <= 0:
                yield (*where, "scale"), f"a logarithm needs ends above 0, got {worst:g} and {best:g}"
            seen.add(part.metric)
        if score.name in {other.name for other in scores[:index]}:
            yield (index, "name"), f"two scores are called '{score.name}': rename one"
