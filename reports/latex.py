"""The leaderboard as LaTeX tables for a paper; needs the packages booktabs and graphicx."""

from collections.abc import Iterable
from itertools import groupby

from bench.records import Metric, Row
from reports import formats, threats
from reports.page import best_of
from reports.published import footnotes
from reports.ranking import Section, View, sections
from reports.text import plain, remarks

_ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "ε": r"$\varepsilon$", "≤": r"$\leq$", "∞": r"$\infty$",
    "–": "--", "×": r"$\times$", "−": r"$-$", "≥": r"$\geq$",
}  # fmt: skip


def latex(rows: Iterable[Row], view: View) -> str:
    """One table environment per data set. The best of a column is bold, intervals are small, remarks are comments."""
    notes = "".join(f"% {plain(note)}\n" for note in footnotes(view.published, view.scores))
    tables = "\n".join(_table(section, view) for section in sections(rows, view))
    return f"{notes}{tables}" if tables else "% no rows: nothing was measured\n"


def escaped(text: str) -> str:
    """The text with everything that LaTeX would read as a command or a formula written out."""
    return "".join(_ESCAPES.get(character, character) for character in plain(text))


def _table(section: Section, view: View) -> str:
    groups = [(name, len(list(own))) for name, own in groupby(section.columns, lambda c: formats.heading(c)[0])]
    above = " & ".join(rf"\multicolumn{{{span}}}{{c}}{{{escaped(name)}}}" for name, span in groups)
    heads = " & ".join(escaped(formats.heading(name)[1]) for name in section.columns)
    best = {name: best_of(section, name) for name in section.columns}
    lines = []
    for line in section.lines:
        figures = [_figure(name, line.row.metrics.get(name), best[name]) for name in section.columns]
        rank = "--" if line.rank is None else str(line.rank)
        lines.append(" & ".join([rank, escaped(line.row.model), *figures]) + r" \\")
    caption = f"{view.title or view.suite} on {section.dataset}: {section.order}; 95 % intervals in brackets."
    return "\n".join(
        [
            *(f"% {plain(remark)}" for remark in remarks(section)),
            *(f"% {plain(told)}" for told in threats.lines([line.row for line in section.lines])),
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escaped(caption)}}}",
            r"\resizebox{\linewidth}{!}{%",
            rf"\begin{{tabular}}{{rl{'r' * len(section.columns)}}}",
            r"\toprule",
            rf" &  & {above} \\",
            rf"\# & model & {heads} \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
            "",
        ]
    )


def _figure(name: str, metric: Metric | None, best: float | None) -> str:
    if metric is None or metric.value is None:
        return "--"
    value, between = escaped(formats.number(name, metric.value)), formats.interval(name, metric)
    value = rf"\textbf{{{value}}}" if best is not None and metric.value == best else value
    return rf"{value} {{\scriptsize ({escaped(between)})}}" if between else value
