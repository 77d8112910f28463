"""The leaderboard as one HTML file that needs nothing else: no network, no other file, and no script to be read."""

import base64
import hashlib
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bench.metrics.rows import KINDS
from bench.records import Metric, Row
from reports import formats
from reports.detectors import boards
from reports.ranking import UNRANKED, Section, View

HERE = Path(__file__).parent


def page(rows: Iterable[Row], view: View) -> str:
    """A complete HTML document. Its security policy allows the style and the script inside, and nothing else."""
    made = boards(rows, view)
    templates = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    style, script = ((HERE / f"page.{ending}").read_text(encoding="utf-8") for ending in ("css", "js"))
    flags = [flag for section in made for line in section.lines for flag in line.flags]
    return templates.get_template("page.html").render(
        view=view,
        sections=made,
        style=style,
        script=script,
        policy=f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'",
        kinds={flag.kind: KINDS[flag.kind] for flag in flags if flag.kind in KINDS},
        formats=formats,
        groups=_groups,
        every_metric=_every_metric,
        best=_best,
        bar=_bar,
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _groups(section: Section) -> list[tuple[str, int]]:
    """Headings over neighbouring columns, with how many columns each spans."""
    return [(name, len(list(columns))) for name, columns in groupby(section.columns, lambda c: formats.heading(c)[0])]


def _every_metric(section: Section) -> list[str]:
    return list(dict.fromkeys(name for line in section.lines for name in line.row.metrics))


def _best(section: Section, name: str) -> float | None:
    """The best value of a column among figures that may be compared; None where fewer than two rows have one."""
    found = [
        metric.value
        for line in section.lines
        if (metric := line.row.metrics.get(name)) is not None
        and metric.value is not None
        and not any(flag.concerns(name) and flag.kind in UNRANKED for flag in line.flags)
    ]
    if len(set(found)) < 2:
        return None
    return max(found) if formats.higher_is_better(name) else min(found)


def _bar(name: str, metric: Metric) -> dict[str, Any] | None:
    """Where value and interval lie on a bar from 0 to 100; None for figures that have no such scale."""
    if not formats.is_bounded(name) or metric.value is None:
        return None
    low = metric.value if metric.low is None else metric.low
    high = metric.value if metric.high is None else metric.high
    return {
        "value": round(100 * metric.value, 2),
        "low": round(100 * low, 2),
        "width": round(100 * (high - low), 2),
    }
