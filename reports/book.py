"""Everything that is made of a run, in one folder: the leaderboard, a card per row, and the pictures."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from reports import pictures
from reports.card import Card, card_page
from reports.gallery import draw
from reports.page import page
from reports.ranking import View, sections


def write_book(folder: Path, cards: Sequence[Card], view: View) -> Path:
    """Write leaderboard.html, cards/DATASET/MODEL.html and pictures/DATASET.NAME.svg and .png; returns the first."""
    rows = [card.row for card in cards]
    made = {section.dataset: section for section in sections(rows, view)}
    for card in cards:
        for gallery in card.galleries:
            if not gallery.empty:
                stem = f"{card.row.dataset}.{card.row.model}.{gallery.evaluation}"
                figure = draw(gallery)
                _write(folder / "pictures" / f"{stem}.png", pictures.png(figure))
                _write(folder / "pictures" / f"{stem}.svg", pictures.svg(figure).encode())
        _write(folder / card.path, card_page(card, view, made[card.row.dataset], "../../leaderboard.html").encode())
    for dataset, section in made.items():
        for name, figure in pictures.board(section, view).items():
            _write(folder / "pictures" / f"{dataset}.{name}.svg", pictures.svg(figure).encode())
            _write(folder / "pictures" / f"{dataset}.{name}.png", pictures.png(figure))
    linked = replace(view, cards={(card.row.model, card.row.dataset): card.path for card in cards})
    return _write(folder / "leaderboard.html", page(rows, linked).encode())


def loose_cards(cards: Sequence[Card], view: View) -> dict[tuple[str, str], str]:
    """The cards by (model, data set), for a place without the leaderboard beside them: they link nowhere."""
    made = {section.dataset: section for section in sections([card.row for card in cards], view)}
    return {(card.row.model, card.row.dataset): card_page(card, view, made[card.row.dataset]) for card in cards}


def _write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
