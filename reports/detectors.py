"""The detectors of a leaderboard as lines of their own: who notices best, and what it costs.

A row of the leaderboard is a model, and a detector's figures are columns of it (`auroc/knn`). Here each detector of
each model becomes a row, and the part of the name before the `/` its columns.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from bench import names
from bench.records import Row
from reports import formats
from reports.published import beside
from reports.ranking import Section, View, sections

COLUMNS = (
    *("auroc", "fpr95", "ap_out", "detection_error", "flagged", "recall", "f1", "aurc"),
    *("overhead", "detector_passes", "fit_seconds", "state_bytes"),
)
_KNOWN = (*names.DETECTION, *names.JOINT, *names.FITTED, "overhead", "detector_passes")


def boards(rows: Iterable[Row], view: View) -> list[Section]:
    """The tables of a leaderboard: of the models, and under each, where there are any, of their detectors by AUROC."""
    found = beside(rows, view.published)
    made = []
    for section in sections(found, view):
        made.append(section)
        mine = [row for row in found if row.dataset == section.dataset]
        below = pivoted(mine)
        present = {name for row in below for name in row.metrics}
        columns = tuple(name for name in COLUMNS if name in present)
        by_auroc = replace(view, columns=columns, rank_by="auroc", direction=None, published=())
        made += [replace(table, dataset=f"{section.dataset} · detectors") for table in sections(below, by_auroc)]
    return made


def pivoted(rows: Sequence[Row]) -> list[Row]:
    """A row per model and detector, with its metrics under their first words."""
    several = len(rows) > 1
    made = []
    for row in rows:
        for detector in [name.removeprefix("auroc/") for name in row.metrics if name.startswith("auroc/")]:
            known = [*_KNOWN, *(f"{origin}/{name}" for origin in formats.ORIGINS for name in _KNOWN)]
            mine = {name: f"{name}/{detector}" for name in known if f"{name}/{detector}" in row.metrics}
            flags = [
                f"{name}:{flag.removeprefix(f'{whole}:')}"
                for flag in row.flags
                for name, whole in mine.items()
                if flag.startswith(f"{whole}:")
            ]
            own = (detector, f"{detector}{names.COST_SUFFIX}")
            made.append(
                Row(
                    model=f"{detector} on {row.model}" if several else detector,
                    dataset=row.dataset,
                    metrics={name: row.metrics[whole] for name, whole in mine.items()},
                    flags=tuple(flags),
                    failures=tuple(failure for failure in row.failures if failure.evaluation in own),
                    hardware=row.hardware,
                )
            )
    return made
