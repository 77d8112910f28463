"""Static pictures for papers and for MLflow. The only file that imports matplotlib."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import names
from bench.metrics.curves import Curves
from bench.records import Row
from reports import formats
from reports.ranking import Section, View, comparable
from reports.series import OKABE_ITO, Points, Sweep, front, members, robustness

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINES = len(OKABE_ITO)  # of a picture: more cannot be told apart
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "gauntlet",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
}
_MARKERS = "os^Dv<>"


COSTS = ("latency_ms/p50", "macs", "effective_macs", "size_bytes", "packed_bytes", "parameters")


def board(section: Section, view: View) -> dict[str, "Figure"]:
    """The pictures of a table by name: the worst case against epsilon per norm, accuracy against an attack's budget,
    the Pareto front against each cost, and against the same cost a curve for each family of models.

    The curves are those of the first LINES models or families of the table.
    """
    made: dict[str, Figure] = {}
    rows = [line.row for line in section.lines]
    norms = dict.fromkeys(norm for row in rows for norm, _ in robustness(row))
    for norm in norms:
        figure, axes = _figure(1)
        for index, row in enumerate(rows[:LINES]):
            points = robustness(row).get((norm, names.WORST))
            if points:
                _curve(axes[0], points, row.model, index)
        _epsilon_axes(axes[0], norm, f"Worst case, {section.dataset}")
        made[f"robust_accuracy.{norm}"] = figure
    for sweep in view.sweeps:
        figure, axes = _figure(1)
        for index, row in enumerate([row for row in rows if sweep.of(row)][:LINES]):
            _curve(axes[0], sweep.of(row), row.model, index)
        if axes[0].lines:
            _budget_axes(axes[0], sweep)
            made[f"{sweep.budget}.{sweep.attack}.{sweep.norm}.{sweep.epsilon:g}"] = figure
    joined = members(rows, view.curves, lambda model: view.facts[model].family if model in view.facts else "")
    for cost in dict.fromkeys(name for row in rows for name in row.metrics):
        if formats.heading(cost)[0] == "Cost" and cost in COSTS:
            name = formats.head(cost)
            figure, axes = _figure(1)
            if _pareto(axes[0], rows, cost, section.rank_by):
                made[f"pareto.{name}"] = figure
            figure, axes = _figure(1)
            if _families(axes[0], rows, cost, section.rank_by, joined):
                made[f"curves.{name}"] = figure
    return made


def card(row: Row, curves: Curves, sweeps: Sequence[Sweep] = ()) -> "Figure | None":
    """Everything that can be drawn of one model on one data set, side by side; None where that is nothing."""
    series = robustness(row)
    norms = list(dict.fromkeys(norm for norm, _ in series))
    sweeps = [sweep for sweep in sweeps if len(sweep.of(row)) > 1]
    panels = len(norms) + bool(curves.roc) + (curves.risk_coverage is not None) + (curves.reliability is not None)
    panels += bool(sweeps)
    if not panels:
        return None
    figure, every = _figure(panels)
    axes = iter(every)
    for norm in norms:
        ax = next(axes)
        for index, ((_, attack), points) in enumerate((key, found) for key, found in series.items() if key[0] == norm):
            _curve(ax, points, "worst case" if attack == names.WORST else attack, index)
        _epsilon_axes(ax, norm, "Robust accuracy")
    if sweeps:
        ax = next(axes)
        for index, sweep in enumerate(sweeps[:LINES]):
            _curve(ax, sweep.of(row), sweep.title, index)
        _budget_axes(ax, sweeps[0])
        ax.set_title(f"Accuracy against {sweeps[0].budget}")
    if curves.roc:
        ax = next(axes)
        for index, (detector, curve) in enumerate(curves.roc.items()):
            ax.plot(curve.x, curve.y, color=OKABE_ITO[index % LINES], label=detector)
        ax.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle=":")
        ax.set(
            title="ROC of detectors", xlabel="inliers flagged", ylabel="outliers flagged", xlim=(0, 1), ylim=(0, 1.01)
        )
        ax.legend(frameon=False)
    if curves.risk_coverage is not None:
        ax = next(axes)
        ax.plot(curves.risk_coverage.x, curves.risk_coverage.y, color=OKABE_ITO[0])
        ax.set(title="Risk and coverage", xlabel="share answered", ylabel="error among them", xlim=(0, 1))
        ax.set_ylim(bottom=0)
    if curves.reliability is not None:
        ax, bins = next(axes), curves.reliability
        ax.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle=":")
        ax.plot(bins.confidence, bins.accuracy, color=OKABE_ITO[0], marker="o", markersize=3)
        ax.set(title="Reliability", xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.01))
    return figure


def svg(figure: "Figure") -> str:
    """The figure as SVG with text as text; the same figure gives the same bytes."""
    return _saved(figure, "svg").decode()


def png(figure: "Figure") -> bytes:
    """The figure as PNG, 200 dots per inch."""
    return _saved(figure, "png")


def _saved(figure: "Figure", form: str) -> bytes:
    import matplotlib as mpl

    sink = io.BytesIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(sink, format=form, dpi=200, metadata={"Date": None} if form == "svg" else {"Software": None})
    return sink.getvalue()


def grid(rows: int, columns: int) -> tuple["Figure", Sequence["Axes"]]:
    """Small square panels, row by row."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(1.1 * columns + 0.4, 1.25 * rows), layout="constrained")
        axes = [figure.add_subplot(rows, columns, index + 1) for index in range(rows * columns)]
    return figure, axes


def _figure(panels: int) -> tuple["Figure", Sequence["Axes"]]:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    across = 2 if panels == 4 else min(panels, 3)
    down = -(-panels // across)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(3.7 * across + 0.4, 2.9 * down), layout="constrained")
        axes = [figure.add_subplot(down, across, index + 1) for index in range(panels)]
    return figure, axes


def _curve(ax: "Axes", points: Points, label: str, index: int) -> None:
    colour, x = OKABE_ITO[index % LINES], list(points)
    values = [metric.value or 0.0 for metric in points.values()]
    low = [metric.value or 0.0 if metric.low is None else metric.low for metric in points.values()]
    high = [metric.value or 0.0 if metric.high is None else metric.high for metric in points.values()]
    ax.plot(x, values, color=colour, marker=_MARKERS[index % LINES], markersize=3.5, label=label)
    ax.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)


def _epsilon_axes(ax: "Axes", norm: str, title: str) -> None:
    ax.set(title=title, xlabel=f"ε ({formats.NORMS.get(norm, norm)})", ylabel="robust accuracy", ylim=(0, 1.01))
    ax.set_xlim(left=0)
    ax.legend(frameon=False)


def _budget_axes(ax: "Axes", sweep: Sweep) -> None:
    ax.set(title=sweep.title, xlabel=sweep.budget, ylabel="robust accuracy", ylim=(0, 1.01))
    spent = [budget for budget, _ in sweep.points]
    if min(spent) > 0:
        ax.set_xscale("log")
    ax.set_xticks(spent, [f"{budget}" for budget in spent])
    ax.set_xticks([], minor=True)
    ax.legend(frameon=False)


def _families(ax: "Axes", rows: Sequence[Row], cost: str, by: str, joined: Mapping[str, Sequence[str]]) -> bool:
    """Whether some curve has at least two models with both figures."""
    able = {row.model: row for row in comparable(comparable(rows, cost), by)} if cost != by else {}
    least = np.inf
    for index, (name, models) in enumerate(list(joined.items())[:LINES]):
        points = {
            x: able[model].metrics[by]
            for model in models
            if model in able and (x := able[model].metrics[cost].value) is not None
        }
        if len(points) > 1:
            _curve(ax, dict(sorted(points.items())), name, index)
            least = min(least, *points)
    if not ax.lines:
        return False
    ax.set(title=f"{formats.title(by)} against {formats.title(cost)}", xlabel=formats.title(cost))
    ax.set(ylabel=formats.title(by))
    if least > 0:
        ax.set_xscale("log")
    ax.legend(frameon=False)
    return True


def _pareto(ax: "Axes", rows: Sequence[Row], cost: str, by: str) -> bool:
    """Whether at least two models have both figures."""
    able = comparable(comparable(rows, cost), by)
    points = [
        (row, x, y)
        for row in able
        if (x := row.metrics[cost].value) is not None and (y := row.metrics[by].value) is not None
    ]
    if len(points) < 2 or cost == by:
        return False
    best = front([(x, y) for _, x, y in points], formats.higher_is_better(cost), formats.higher_is_better(by))
    ax.plot([points[i][1] for i in best], [points[i][2] for i in best], color=OKABE_ITO[0], linewidth=0.9)
    for index, (row, x, y) in enumerate(points):
        metric = row.metrics[by]
        if metric.low is not None and metric.high is not None:
            ax.plot([x, x], [metric.low, metric.high], color="#999999", linewidth=0.9, zorder=1)
        ax.plot(x, y, "o", color=OKABE_ITO[0] if index in best else OKABE_ITO[-1], markersize=5)
        if len(points) <= 30:
            ax.annotate(row.model, (x, y), xytext=(4, 4), textcoords="offset points", fontsize=7)
    ax.set(title="Pareto front", xlabel=formats.title(cost), ylabel=formats.title(by))
    if min(x for _, x, _ in points) > 0:
        ax.set_xscale("log")
    return True
