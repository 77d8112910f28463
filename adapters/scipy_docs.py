"""Real texts that every installation has: what SciPy's documentation says, and which of its fields it is about."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import scipy
from pydantic import Field, model_validator

from adapters.texts import encode, text_samples, vocabulary_of
from bench.contracts import Dataset, Samples, dataset
from bench.randomness import seed_of

Subpackage = Literal[
    "integrate", "interpolate", "linalg", "ndimage", "optimize", "signal", "sparse", "spatial", "special", "stats"
]
FIELDS: tuple[Subpackage, ...] = ("optimize", "signal", "sparse", "stats")
LENGTHS = range(30, 301)  # characters of a paragraph that is taken
TEST_SHARE = 4  # one docstring in four


@dataset("scipy_docs")
class ScipyDocs(Dataset):
    """Paragraphs of SciPy's docstrings as token ids, by the subpackage they come from: nothing to download.

    About 4,000 English paragraphs of 30 to 300 characters that end in a full stop, without code, no two of them equal;
    the classes are `fields`. Read from the source files of the SciPy that is installed, so another
    version of SciPy is another data set, with another digest. Docstrings are dealt out by a hash of their text, a
    quarter of them to test; the paragraphs of one stay together. Inputs (length,) int64; the vocabulary is train's.
    """

    requires: ClassVar[tuple[str, ...]] = ("torch", "scipy")

    fields: Annotated[tuple[Subpackage, ...], Field(min_length=1)] = FIELDS
    words_of: Annotated[tuple[Subpackage, ...], Field(min_length=1)] | None = Field(
        default=None, description="fields whose split train gives the vocabulary; left out: `fields`"
    )
    length: int = Field(default=40, ge=2, le=1000, description="words of a text; the rest is cut off")
    vocabulary: int = Field(default=2000, ge=3, description="different words that have an id, at the most")
    split: Literal["train", "test"] = "test"

    @model_validator(mode="after")
    def _fits(self) -> "ScipyDocs":
        if len(set(self.fields)) < len(self.fields):
            raise ValueError(f"fields: one stands twice in {list(self.fields)}")
        return self

    @property
    def tokens(self) -> bool:
        return True

    def load(self) -> Samples:
        found = [(field, *entry) for field in self.fields for entry in _paragraphs(field)]
        known = (entry for field in self.words_of or self.fields for entry in _paragraphs(field))
        words = vocabulary_of((text for test, text in known if not test), self.vocabulary)
        ids = encode([text for *_, text in found], words, self.length)
        _, first = np.unique(ids, axis=0, return_index=True)  # unknown words may make two paragraphs one
        rows = [row for row in np.sort(first) if found[row][1] == (self.split == "test")]
        labels = np.array([self.fields.index(found[row][0]) for row in rows], dtype=np.int64)
        return text_samples(ids[rows], labels, words, self.fields, f"scipy_docs/{self.split}")


@cache
def _paragraphs(field: Subpackage) -> tuple[tuple[bool, str], ...]:
    """(whether it belongs to test, the paragraph), in the order of the files."""
    return tuple(_read(field))


def _read(field: Subpackage) -> Iterator[tuple[bool, str]]:
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
