"""Labelled texts in CSV or JSON Lines files."""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, field_validator

from adapters.texts import encode, text_samples, vocabulary_of
from bench.contracts import Dataset, Samples, dataset
from bench.data import locate
from bench.errors import DataError, did_you_mean

SUFFIXES = (".csv", ".tsv", ".jsonl")


@dataset("text_file")
class TextFile(Dataset):
    """Texts of a .csv, .tsv or .jsonl file as token ids, one text a line; a table's first line names its columns.

    `{split}` in path stands for the split. Words are runs of letters and digits, and single other signs, in lower case;
    those that have an id are the `vocabulary` most frequent ones of the split `vocabulary_from`, so that all splits
    agree. Labels are numbers from 0, or names: then the classes are those of that split, in the order of the alphabet,
    unless `class_names` says otherwise. Inputs (length,) int64.
    """

    path: Path
    text: str = Field(default="text", description="the column with the texts")
    label: str = Field(default="label", description="the column with the labels")
    length: int = Field(default=64, ge=2, le=10_000, description="words of a text; the rest is cut off")
    vocabulary: int = Field(default=5000, ge=3, description="different words that have an id, at the most")
    vocabulary_from: str = Field(
        default="train", pattern=r"^\w[\w.-]*$", description="the split that they are taken from"
    )
    class_names: tuple[str, ...] = ()
    split: str = Field(default="test", pattern=r"^\w[\w.-]*$")

    @field_validator("path")
    @classmethod
    def _known(cls, path: Path) -> Path:
        if path.suffix not in SUFFIXES:
            raise ValueError(f"the file has to end in {', '.join(SUFFIXES)}, got '{path.name}'")
        return path

    @property
    def tokens(self) -> bool:
        return True

    def load(self) -> Samples:
        known = self._read(self.vocabulary_from)
        found = known if self.split == self.vocabulary_from else self._read(self.split)
        words = vocabulary_of((text for text, _ in known), self.vocabulary)
        names = self.class_names or _names([label for _, label in known])
        where = f"{self._file(self.split)}"
        labels = [_number(label, names, f"{where}: text {row}") for row, (_, label) in enumerate(found)]
        ids = encode([text for text, _ in found], words, self.length)
        return text_samples(ids, np.array(labels, dtype=np.int64), words, names, where)

    def _file(self, split: str) -> Path:
        return locate(str(self.path).replace("{split}", split))

    def _read(self, split: str) -> list[tuple[str, str]]:
        """(text, label) of each line. Raises DataError that names the line."""
        file = self._file(split)
        found = []
        for number, row in _lines(file):
            for column in (self.text, self.label):
                if row.get(column) is None:
                    hint = did_you_mean(column, [str(key) for key in row])
                    raise DataError(
                        f"{file}:{number}: no column '{column}'{hint} (it has: {', '.join(map(str, row))})",
                        "name the columns by `text` and `label`",
                    )
            found.append((str(row[self.text]), str(row[self.label])))
        return found


def _lines(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            if file.suffix == ".jsonl":
                for number, line in enumerate(stream, start=1):
                    if line.strip():
                        yield number, _object(line, f"{file}:{number}")
            else:
                reader = csv.DictReader(stream, delimiter="\t" if file.suffix == ".tsv" else ",", strict=True)
                for row in reader:
                    yield reader.line_num, row
    except (UnicodeDecodeError, csv.Error) as problem:
        raise DataError(f"{file}: cannot be read: {problem}", "save it as UTF-8, quoted as CSV asks") from problem


def _object(line: str, where: str) -> Mapping[str, Any]:
    try:
        found = json.loads(line)
    except json.JSONDecodeError as problem:
        raise DataError(f"{where}: no JSON: {problem}", "write one object on each line") from problem
    if not isinstance(found, dict):
        raise DataError(f"{where}: {type(found).__name__}, not an object", 'write {"text": ..., "label": ...}')
    return found


def _names(labels: list[str]) -> tuple[str, ...]:
    """The classes of these labels: 0 to the largest where all are whole numbers, else the names in order."""
    if labels and all(label.isdecimal() for label in labels):
        return tuple(str(number) for number in range(max(map(int, labels)) + 1))
    return tuple(sorted(set(labels)))


def _number(label: str, names: tuple[str, ...], where: str) -> int:
    if label in names:
        return names.index(label)
    if label.isdecimal() and int(label) < len(names):
        return int(label)
    raise DataError(
        f"{where}: unknown label '{label}'{did_you_mean(label, names)} (classes: {', '.join(names[:20])})",
        "name all classes by `class_names`",
    )
