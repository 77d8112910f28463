import json
import re
from pathlib import Path

import jsonschema
import pytest

from reports import schema
from reports.latex import escaped
from reports.leaderboard import View, render
from tests.reports.boards import board, row

VIEW = View("quickstart", "a1b2", rank_by="robust_accuracy/linf/worst/0.1")
PUBLISHED = Path(__file__).parents[2] / "docs" / "leaderboard.schema.json"


def test_the_published_schema_is_that_of_the_export() -> None:
    """Write it anew with: python -c "from reports.schema import schema; print(schema(), end='')"."""
    assert PUBLISHED.read_text(encoding="utf-8") == schema.schema()


@pytest.mark.parametrize("rows", [[], board()])
def test_an_export_keeps_the_published_schema(rows: list) -> None:
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    jsonschema.validate(json.loads(render(rows, VIEW, "json")), published)


def test_the_schema_refuses_what_is_no_export() -> None:
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    broken = json.loads(render(board(), VIEW, "json"))
    broken["rows"][0]["rank"] = "first"
    with pytest.raises(jsonschema.ValidationError, match="'first' is not valid"):
        jsonschema.validate(broken, published)


def test_latex_has_a_cell_for_every_column_in_every_line() -> None:
    text = render([row("a_b"), row("c & d", worst=100)], VIEW, "tex")
    lines = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert len(lines) == 3
    assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {8}
    assert text.count(r"\begin") == text.count(r"\end") == 2
    assert r"\textbf{55.6 \%} {\scriptsize (50.4--60.6)}" in text


def test_a_name_cannot_run_latex() -> None:
    assert escaped(r"\input{x}_100%") == r"\textbackslash{}input\{x\}\_100\%"
    assert r"\input" not in render([row(r"\input{secret}")], VIEW, "tex")
