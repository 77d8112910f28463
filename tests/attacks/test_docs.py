"""docs/attacks.md names every attack."""

from pathlib import Path

from attacks.foolbox import table
from bench import plugins
from bench.contracts import attacks as registry

plugins.load_built_in()
DOCS = Path(__file__).parents[2] / "docs" / "attacks.md"


def test_every_attack_of_these_folders_stands_in_the_docs_as_its_class_describes_it() -> None:
    text = DOCS.read_text()
    names = {f"`{name}`" for name in registry if registry.get(name).__module__.startswith("attacks.")}
    ours = [line for line in table().splitlines() if line.startswith("| `") and line.split(" ")[1] in names]
    assert len(ours) >= 77
    assert [line for line in ours if line not in text] == []
