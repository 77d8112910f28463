"""Model cards: one page for each model on each data set, with everything that is known of it."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.metrics.curves import Curves
from bench.metrics.rows import KINDS
from bench.records import Row
from reports import formats, pictures, threats
from reports.gallery import Gallery, draw
from reports.html import fill, policy, read
from reports.layers import COLUMNS as LAYER_COLUMNS
from reports.layers import layers
from reports.published import Beside
from reports.ranking import Section, View


@dataclass(frozen=True)
class Card:
    """facts: by heading, then by name. rerun: the command that measures this again."""

    row: Row
    rerun: str
    facts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    curves: Curves = field(default_factory=Curves)
    published: Sequence[Beside] = ()
    galleries: Sequence[Gallery] = ()

    @property
    def path(self) -> str:
        """Where it lies beside the leaderboard: labels hold no character that a path or an address gives a meaning."""
        return f"cards/{self.row.dataset}/{self.row.model}.html"


def card_page(card: Card, view: View, section: Section | None = None, back: str = "") -> str:
    """A complete HTML document, with its pictures inside. section: the table that ranks it. back: the leaderboard."""
    style = read("page.css")
    figure = pictures.card(card.row, card.curves, view.sweeps)
    lines = () if section is None else section.lines
    return fill(
        "card.html",
        card=card,
        view=view,
        back=back,
        line=next((line for line in lines if line.row.model == card.row.model), None),
        ranked=sum(line.rank is not None for line in lines),
        order="" if section is None else section.order,
        formats=formats,
        kinds=KINDS,
        style=style,
        policy=policy(style, pictures=True),
        picture=None if figure is None else _inside(pictures.svg(figure)),
        galleries=[(one, "" if one.empty else _inside(pictures.svg(draw(one)))) for one in card.galleries],
        threats=threats.table([card.row]),
        threat_columns=threats.COLUMNS,
        layers=layers(card.row),
        layer_columns=LAYER_COLUMNS,
        drawn="" if figure is None else ", ".join(ax.get_title() for ax in figure.axes),
    )


def _inside(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
