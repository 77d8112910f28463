"""The documentation names what there is."""

import re
from pathlib import Path

from bench import cli, cli_client, cli_service, cli_upkeep
from bench.results import EXPORT

DOCS = Path(__file__).parents[1] / "docs"


def test_every_column_of_the_records_is_documented():
    text = (DOCS / "records.md").read_text(encoding="utf-8")
    assert [name for name in EXPORT.names if f"`{name}`" not in text] == []


def test_every_command_and_every_option_of_run_is_documented():
    text = (DOCS / "commands.md").read_text(encoding="utf-8")
    names = [command.name or command.callback.__name__ for command in cli.app.registered_commands if command.callback]
    groups = [group.name for group in cli.app.registered_groups]
    assert cli_upkeep.models.info.help
    assert cli_service.tokens.info.help
    assert cli_client.fetch
    assert {"run", "plan", "check-adapter", "up", "submit"} <= set(names)
    assert [name for name in [*names, *groups] if f"`gauntlet {name}" not in text] == []
    for option in ("output", "workers", "batch-size", "set", "only", "address", "tracking-uri", "format", "profile"):
        assert f"`--{option}" in text


def test_every_link_leads_to_a_page_and_to_a_heading_of_it():
    pages = [DOCS.parent / "README.md", *DOCS.glob("*.md"), DOCS.parent / "benchmarks" / "README.md"]
    broken, seen = [], 0
    for page in pages:
        links = re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)", page.read_text(encoding="utf-8"))
        for target, anchor in links:
            seen += 1
            there = (page.parent / target).resolve() if target else page
            if not there.exists() or (anchor and anchor not in _anchors(there)):
                broken.append(f"{page.name}: {target}#{anchor}")
    assert seen > 100
    assert broken == []


def _anchors(page):
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_reached_from_the_readme():
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in sorted(DOCS.glob("*.md")) if f"docs/{page.name}" not in readme] == []
