"""Real sentences that every installation has: what SciPy's documentation says, and which of its fields it is about."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import scipy
from pydantic import Field

from adapters.texts import encode, text_samples, vocabulary_of
from bench.contracts import Dataset, Samples, dataset
from bench.randomness import seed_of

FIELDS = ("optimize", "signal", "sparse", "stats")  # subpackages of SciPy: the classes
LENGTHS = range(30, 301)  # characters of a paragraph that is taken
TEST_SHARE = 4  # one docstring in four


@dataset("scipy_docs")
class ScipyDocs(Dataset):
    """Paragraphs of SciPy's docstrings as token ids, by the subpackage they come from: nothing to download.

    About 4,000 English paragraphs of 30 to 300 characters that end in a full stop, without code, no two of them equal;
    four classes: optimize, signal, sparse, stats. Read from the source files of the SciPy that is installed, so another
    version of SciPy is another data set, with another digest. Docstrings are dealt out by a hash of their text, a
    quarter of them to test; the paragraphs of one stay together. The vocabulary is that of train. Inputs (length,) int64.
    """

    requires: ClassVar[tuple[str, ...]] = ("torch", "scipy")

    length: int = Field(default=40, ge=2, le=1000, description="words of a text; the rest is cut off")
    vocabulary: int = Field(default=2000, ge=3, description="different words that have an id, at the most")
    split: Literal["train", "test"] = "test"

    @property
    def tokens(self) -> bool:
        return True

    def load(self) -> Samples:
        found = [(field, *entry) for field in FIELDS for entry in _paragraphs(field)]
        words = vocabulary_of((text for _, test, text in found if not test), self.vocabulary)
        ids = encode([text for *_, text in found], words, self.length)
        _, first = np.unique(ids, axis=0, return_index=True)  # unknown words may make two paragraphs one
        rows = [row for row in np.sort(first) if found[row][1] == (self.split == "test")]
        labels = np.array([FIELDS.index(found[row][0]) for row in rows], dtype=np.int64)
        return text_samples(ids[rows], labels, words, FIELDS, f"scipy_docs/{self.split}")


def _paragraphs(field: str) -> Iterator[tuple[bool, str]]:
    """(whether it belongs to test, the paragraph), in the order of the files."""
    for file in sorted((Path(scipy.__file__).parent / field).rglob("*.py")):
        if "tests" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                continue
            text = ast.get_docstring(node) or ""
            test = seed_of("scipy_docs", text) % TEST_SHARE == 0
            for part in re.split(r"\n\s*\n", text):
                paragraph = " ".join(part.split())
                code = any(sign in paragraph for sign in (">>>", "---", " : ", ".. "))
                if len(paragraph) in LENGTHS and paragraph.endswith(".") and not code:
                    yield test, paragraph
