"""The leaderboard as one HTML file that needs nothing else: no network, no other file, and no script to be read."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from bench.metrics.rows import KINDS
from bench.records import Metric, Row
from reports import formats, threats
from reports.detectors import boards
from reports.html import fill, policy, read
from reports.published import footnotes
from reports.ranking import Facts, Line, Section, View, comparable
from reports.series import OKABE_ITO, members, robustness

MOST_BARS = 2000  # in a table: more slow the opening, and are too many to look at
SCRIPTS = ("vendor/datatables.js", "vendor/chart.js", "page.js")


def page(rows: Iterable[Row], view: View) -> str:
    """A complete HTML document. Its security policy allows the style and the scripts inside, and nothing else."""
    made = boards(rows, view)
    style, scripts = read("page.css"), [read(name) for name in SCRIPTS]
    flags = [flag for section in made for line in section.lines for flag in line.flags]

    def facts(row: Row) -> Facts:
        return _facts(row, view.facts)

    return fill(
        "page.html",
        view=view,
        sections=made,
        style=style,
        scripts=scripts,
        policy=policy(style, scripts),
        kinds={flag.kind: KINDS[flag.kind] for flag in flags if flag.kind in KINDS},
        formats=formats,
        groups=_groups,
        every_metric=_every_metric,
        best=_bests,
        most_bars=MOST_BARS,
        bar=_bar,
        norm=_norm,
        order=_order,
        facts=facts,
        filters=_filters(made, facts),
        threats=lambda section: threats.table([line.row for line in section.lines]),
        threat_columns=threats.COLUMNS,
        heading=_heading,
        pictures=lambda section: _pictures(section, view),
        limit=len(OKABE_ITO),
        footnotes=footnotes(view.published, view.scores),
        data={
            "colours": OKABE_ITO,
            "norms": formats.NORMS,
            "sweeps": [{"title": one.title, "budget": one.budget, "points": one.points} for one in view.sweeps],
            "sections": [_data(section, view) for section in made],
        },
    )


@dataclass(frozen=True)
class _Filter:
    name: str
    title: str
    options: list[tuple[str, str]]


@dataclass(frozen=True)
class _Choices:
    """What the pictures of a section can show: (value, text) each; what is shown at first is the attack
    `first` and the axes x and y."""

    attacks: list[tuple[str, str]]
    first: str
    axes: list[tuple[int, str]]
    x: int
    y: int
    sweeps: list[tuple[int, str]]
    curves: bool


def _facts(row: Row, known: Mapping[str, Facts]) -> Facts:
    """What is known of the model; a flag that its speed is simulated says so where its adapter does not."""
    found = known.get(row.model, Facts())
    simulated = any(": simulated" in flag for flag in row.flags)
    return Facts(found.family, found.realisation or ("simulated" if simulated else "not stated"))


def _filters(made: list[Section], facts: Any) -> list[_Filter]:
    """The choices that tell rows or columns apart; none where there is but one."""
    rows = [line.row for section in made for line in section.lines]
    norms = dict.fromkeys(filter(None, (_norm(name) for section in made for name in section.columns)))
    every = [
        _Filter("dataset", "Data set", [(section.dataset, section.dataset) for section in made]),
        _Filter("norm", "Threat model", [(norm, formats.NORMS.get(norm, norm)) for norm in norms]),
        _Filter("family", "Family", _options(facts(row).family for row in rows)),
        _Filter("realisation", "Speed", _options(facts(row).realisation for row in rows)),
        _Filter("hardware", "Timed on", _options(row.hardware or "" for row in rows)),
    ]
    return [one for one in every if len(one.options) > 1]


def _options(values: Iterable[str]) -> list[tuple[str, str]]:
    return [(value, value.replace("_", " ") or "not stated") for value in sorted(set(values))]


def _norm(name: str) -> str:
    """The threat model that a figure belongs to; empty where it belongs to none."""
    parts = formats.origin(name)[1].split("/")
    return parts[1] if len(parts) > 1 and parts[1] in formats.NORMS else ""


def _heading(section: Section, name: str) -> str:
    """What a column is, in full: its metric, and the attacker that it is about."""
    told = threats.column((line.row for line in section.lines), name)
    return f"{name}: {told}" if told else name


def _short(value: float | None) -> float | None:
    """To six digits: more than a picture shows."""
    return None if value is None else float(f"{value:.6g}")


def _number(line: Line, name: str) -> float | None:
    metric = line.row.metrics.get(name)
    return None if metric is None else metric.value


def _order(line: Line, name: str) -> float | str:
    """What the cell is sorted by; empty where it has no value."""
    value = _number(line, name)
    return "" if value is None else value


def _pictures(section: Section, view: View) -> _Choices | None:
    """None where there is nothing to draw."""
    kinds = dict.fromkeys(key for line in section.lines for key in robustness(line.row))
    attacks = [(f"{norm}/{attack}", f"{attack} {formats.NORMS.get(norm, norm)}") for norm, attack in kinds]
    rows = [line.row for line in section.lines]
    axes = [(i, formats.title(name)) for i, name in enumerate(section.columns) if len(comparable(rows, name)) > 1]
    sweeps = [(i, one.title) for i, one in enumerate(view.sweeps) if any(len(one.of(row)) > 1 for row in rows)]
    if not attacks and len(axes) < 2 and not sweeps:
        return None
    ranked = section.rank_by.split("/")
    first = "/".join(ranked[1:3]) if len(ranked) == 4 else ""
    costs = [index for index, _ in axes if formats.heading(section.columns[index])[0] == "Cost"]
    others = [index for index, _ in axes if index not in costs]
    by = section.columns.index(section.rank_by) if section.rank_by in section.columns else -1
    y = by if by in others else next(iter(others), -1)
    x = costs[-1] if costs else next((index for index, _ in axes if index != y), -1)
    return _Choices(attacks, first, axes, x, y, sweeps, bool(_members(rows, view)))


def _members(rows: Sequence[Row], view: View) -> dict[str, list[str]]:
    """The curves of a table of models; a table of detectors has none."""
    rows = [row for row in rows if not view.facts or row.model in view.facts]
    return members(rows, view.curves, lambda model: view.facts[model].family if model in view.facts else "")


def _data(section: Section, view: View) -> dict[str, Any]:
    """What the pictures draw: figures of the columns, and curves as [epsilon or budget, value, low, high]."""
    lines = section.lines
    return {
        "dataset": section.dataset,
        "columns": [
            {
                "name": name,
                "title": formats.title(name),
                "higher": formats.higher_is_better(name),
                "share": formats.is_share(name),
            }
            for name in section.columns
        ],
        "values": {
            name: {row.model: _short(row.metrics[name].value) for row in comparable([line.row for line in lines], name)}
            for name in section.columns
        },
        "curves": _members([line.row for line in lines], view),
        "sweeps": {
            line.row.model: [
                [[spent, *map(_short, (one.value, one.low, one.high))] for spent, one in sweep.of(line.row).items()]
                for sweep in view.sweeps
            ]
            for line in lines
        },
        "series": {
            line.row.model: {
                "/".join(key): [
                    [epsilon, *map(_short, (one.value, one.low, one.high))] for epsilon, one in points.items()
                ]
                for key, points in robustness(line.row).items()
            }
            for line in lines
        },
    }


def _groups(section: Section) -> list[tuple[str, int]]:
    """Headings over neighbouring columns, with how many columns each spans."""
    return [(name, len(list(columns))) for name, columns in groupby(section.columns, lambda c: formats.heading(c)[0])]


def _every_metric(section: Section) -> list[str]:
    return list(dict.fromkeys(name for line in section.lines for name in line.row.metrics))


def _bests(section: Section) -> dict[str, float | None]:
    return {name: best_of(section, name) for name in section.columns}


def best_of(section: Section, name: str) -> float | None:
    """The best value of a column among figures that may be compared; None where fewer than two rows have one."""
    found = [row.metrics[name].value for row in comparable([line.row for line in section.lines], name)]
    values = [value for value in found if value is not None]
    if len(set(values)) < 2:
        return None
    return max(values) if formats.higher_is_better(name) else min(values)


def _bar(name: str, metric: Metric) -> dict[str, Any] | None:
    """Where value and interval lie on a bar from 0 to 100; None for figures that have no such scale."""
    if not formats.is_bounded(name) or metric.value is None:
        return None
    low = metric.value if metric.low is None else metric.low
    high = metric.value if metric.high is None else metric.high
    return {
        "value": round(100 * metric.value, 1),
        "low": round(100 * low, 1),
        "width": round(100 * (high - low), 1),
    }
