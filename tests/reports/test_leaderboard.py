import csv
import io
import json
from html.parser import HTMLParser

import pytest

from bench.errors import SuiteError
from bench.records import Row
from reports.leaderboard import FORMATS, View, render
from tests.reports.boards import board, row

VIEW = View("quickstart", "a1b2", rank_by="robust_accuracy/linf/worst/0.1")
HOSTILE = '<script>alert("x")</script> | [red]=1'


class Page(HTMLParser):
    """Tags with their attributes, and the text outside of style and script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.raw: dict[str, str] = {}
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem:
            self.raw[self.cdata_elem] = data
            self.scripts += [data] if self.cdata_elem == "script" else []
        else:
            self.text += data


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_no_line_of_the_table_is_longer_than_the_terminal_is_wide(width: int) -> None:
    table = render(board(), VIEW, width=width)
    assert max(map(len, table.splitlines())) <= width


@pytest.mark.parametrize("width", [60, 80, 200])
def test_every_figure_and_every_remark_is_in_the_table_at_any_width(width: int) -> None:
    table = " ".join(render(board(), VIEW, width=width).split())
    for text in ("small_cnn", "97.2 %", "95.0–98.5", "55.6 %", "153 k", "110 kB", "0.150 ms"):
        assert text in table
    assert "binary: latency_ms/p50: simulated: binary weights in float arithmetic" in table
    assert "binary: cw failed on 104 samples (timeout): no answer within 600 s" in table
    assert "lost: not ranked: no value for Worst case L∞ ≤ 0.1" in table


def _said(rows: list[Row], columns: tuple[str, ...]) -> list[str]:
    page = render(rows, View("quickstart", "a1b2", rank_by="clean_accuracy", columns=columns), "md")
    return [line.removeprefix("- ").replace("\\", "") for line in page.splitlines() if line.startswith("- ")]


def test_what_holds_of_several_models_is_said_once_and_of_the_figures_that_are_shown() -> None:
    flags = ["latency_ms/p50: simulated: signs", "macs: simulated: signs", "energy_j/input: unavailable: no counter"]
    rows = [row("a", flags=flags), row("b", flags=flags), row("c", flags=flags[2:])]
    assert _said(rows, ("clean_accuracy",)) == ["a, b: latency_ms/p50, macs: simulated: signs"]
    assert _said(rows, ("clean_accuracy", "macs", "energy_j/input")) == [
        "a, b: macs: simulated: signs",
        "all models: energy_j/input: unavailable: no counter",
    ]


def test_a_name_cannot_move_the_cursor_or_style_the_terminal() -> None:
    table = render([row("[red]a\x1b[31m\nb")], VIEW, width=200)
    assert "\x1b" not in table
    assert "[red]a [31m b" in table


def test_json_has_exactly_the_promised_shape() -> None:
    document = json.loads(render(board(), VIEW, "json"))
    assert list(document) == ["format", "suite", "submission", "rank_by", "rows", "scores"]
    assert (document["suite"], document["submission"]) == ("quickstart", "a1b2")
    given = {(line.model, line.dataset): line for line in board()}
    assert len(document["rows"]) == len(given)
    for found in document["rows"]:
        own = {name: value for name, value in found.items() if name not in ("rank", "not_ranked", "published")}
        assert list(own) == ["model", "dataset", "metrics", "flags", "failures", "hardware", "threats"]
        assert Row.model_validate(own) == given[found["model"], found["dataset"]]


def test_csv_parses_back_to_every_figure() -> None:
    lines = list(csv.DictReader(io.StringIO(render(board(), VIEW, "csv"))))
    given = {(line.model, line.dataset): line for line in board()}
    assert len(lines) == len(given)
    for line in lines:
        for name, metric in given[line["model"], line["dataset"]].metrics.items():
            ends = [line[f"{name}{part}"] for part in ("", "/low", "/high", "/n")]
            assert [float(end) if end else None for end in ends] == list(metric.model_dump().values())


def test_a_spreadsheet_does_not_run_a_name() -> None:
    (line,) = csv.DictReader(io.StringIO(render([row("=HYPERLINK(1)")], VIEW, "csv")))
    assert line["model"] == "'=HYPERLINK(1)"


def test_markdown_has_as_many_cells_in_every_line_whatever_the_names() -> None:
    page = render([row(HOSTILE), row("plain")], VIEW, "md")
    bars = {line.replace("\\|", "").count("|") for line in page.splitlines() if line.startswith("|")}
    assert len(bars) == 1
    assert "<script>" not in page.replace("\\<", "")


def test_html_escapes_a_hostile_name_and_runs_nothing_of_it() -> None:
    page = Page(render([row(HOSTILE, flags=(f"macs: incomplete: {HOSTILE}",))], View("s", title=HOSTILE), "html"))
    assert [tag for tag, _ in page.tags].count("script") == 4
    assert HOSTILE not in "".join(page.scripts)
    assert "alert" not in page.scripts[-1]
    assert HOSTILE in page.text


def test_every_figure_of_the_page_is_that_of_the_json() -> None:
    rows = [line for line in board() if line.dataset == "digits"]
    document = json.loads(render(rows, VIEW, "json"))
    page = Page(render(rows, VIEW, "html"))
    shown = [
        (attributes["data-metric"], *(attributes[key] for key in ("value", "data-low", "data-high", "data-n")))
        for tag, attributes in page.tags
        if tag == "data" and "data-metric" in attributes
    ]
    columns = list(dict.fromkeys(name for name, *_ in shown))
    expected = [
        (name, *("" if end is None else str(end) for end in found["metrics"][name].values()))
        for found in document["rows"]
        for name in columns
    ]
    assert len(columns) == 7
    assert shown == expected


def test_the_page_asks_the_network_for_nothing() -> None:
    page = Page(render(board(), VIEW, "html"))
    (policy,) = [found["content"] for tag, found in page.tags if tag == "meta" and "http-equiv" in found]
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    links = [found.get("href") or found.get("src") for _, found in page.tags if "href" in found or "src" in found]
    assert links
    assert all(link is not None and link.startswith("#") for link in links)
    assert not [found for _, found in page.tags if "style" in found or any(key.startswith("on") for key in found)]


def test_the_policy_names_the_style_and_the_script_that_stand_in_the_page() -> None:
    import base64
    import hashlib

    page = Page(render(board(), VIEW, "html"))
    (policy,) = [found["content"] for tag, found in page.tags if tag == "meta" and "http-equiv" in found]
    digests = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (page.raw["style"], *page.scripts[1:])  # the first holds data, and is never run
    ]
    style, *scripts = (f"'sha256-{digest}'" for digest in digests)
    assert f"style-src {style}; script-src {' '.join(scripts)}; " in str(policy)


def test_the_page_shows_and_explains_flags_and_failures() -> None:
    page = Page(render(board(), VIEW, "html"))
    assert "The speed is not real" in page.text
    assert "no answer within 600 s" in page.text
    assert "TimeoutError: <b>late</b>" in page.text
    targets = {found["id"] for _, found in page.tags if "id" in found}
    assert all(found["href"][1:] in targets for tag, found in page.tags if tag == "a" and found["href"])


@pytest.mark.parametrize("form", FORMATS)
def test_no_rows_make_an_empty_leaderboard_in_every_format(form: str) -> None:
    assert render([], VIEW, form).endswith("\n")


def test_an_unknown_format_is_told_its_neighbour() -> None:
    with pytest.raises(SuiteError, match=r"no format 'jsn' - did you mean 'json'\?"):
        render([], VIEW, "jsn")
