"""docs/attacks.md names every attack."""

from pathlib import Path

import attacks.fgsm
import attacks.foolbox
import attacks.pgd  # noqa: F401 - registers the attack
from attacks.foolbox import table

DOCS = Path(__file__).parents[2] / "docs" / "attacks.md"


def test_every_attack_of_these_folders_stands_in_the_docs_as_its_class_describes_it() -> None:
    text = DOCS.read_text()
    ours = [line for line in table().splitlines() if line.startswith(("| `foolbox.", "| `pgd`", "| `fgsm`"))]
    assert len(ours) == 60
    assert [line for line in ours if line not in text] == []
