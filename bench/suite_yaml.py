"""YAML for people: plain data, and where in the file each key and value stands.

The grammar is YAML's (PyYAML parses it into events); what a plain word means is decided here, since YAML 1.1 reads
`no` as false, `010` as 8 and `12:30` as 750, and does not read `1e-3` or `8/255` as numbers.

| plain text                          | is                                  |
|-------------------------------------|-------------------------------------|
| `true`, `false`, `null`, `~`, empty | what it says                        |
| `3`, `-7`                           | a whole number                      |
| `.5`, `1e-3`, `8/255`               | a number                            |
| `.inf`, `.nan`, `1e999`, `1/0`      | refused: not a finite number        |
| everything else                     | text: `no`, `010`, `12:30`, `1_000` |

Quoted text is always text. Refused, each at its line and column: duplicate keys, keys that are not text, tags, anchors
and aliases (nothing is ever expanded), nesting deeper than 20, more than one document, files over 1 MiB, control
characters, and bytes that are not UTF-8.

JSON is read by the same parser. What it writes as two escapes, YAML as one, is read as in JSON: `"\\ud83d\\ude00"`.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from bench.errors import Mistake, SuiteError, did_you_mean

MAX_BYTES = 1 << 20
MAX_DEPTH = 20
MAX_MISTAKES = 100  # shown at once

INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,99})")
_DECIMAL = r"((0|[1-9][0-9]{0,99})(\.[0-9]{0,99})?|\.[0-9]{1,99})"
FLOAT = re.compile(rf"[-+]?{_DECIMAL}([eE][-+]?[0-9]{{1,9}})?")
FRACTION = re.compile(rf"([-+]?{_DECIMAL}) ?/ ?({_DECIMAL})")
NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
WORDS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False} | dict.fromkeys(
    ("", "~", "null", "Null", "NULL")
)
UNPRINTABLE = re.compile("[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")

# An escape, and those of a character in two halves (RFC 8259, section 7), which YAML would have as `\U0001f600`.
ESCAPE = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\.", re.DOTALL)
PAIR = 12  # characters of such a pair

# libyaml where PyYAML was built with it: the same events, twenty times as fast.
LOADER: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader

Keys = tuple[str | int, ...]  # ("attacks", 0, "epsilons", 2)


class Place(NamedTuple):
    """A position, counted from 1. Line 0: not in the file, but what `source` says ("--set resources.timeout")."""

    line: int
    column: int
    source: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


class Finding(NamedTuple):
    """One thing wrong, before it is sorted among the others."""

    place: Place
    keys: Keys
    message: str


def spell(keys: Keys) -> str:
    """`attacks[0].epsilons[2]`"""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")


def refusal(findings: Iterable[Finding]) -> SuiteError:
    """All findings as one error, in the order of the file; what stands on the command line comes last."""
    ordered = sorted(set(findings), key=lambda finding: (finding.place.line == 0, finding.place, spell(finding.keys)))
    mistakes = [Mistake(str(place), spell(keys), message) for place, keys, message in ordered[:MAX_MISTAKES]]
    more = len(ordered) - len(mistakes)
    return SuiteError(mistakes, f"and {more} more mistakes, not shown: mend these first" if more else "")


@dataclass
class Document:
    """The data of one YAML text, the places of its keys and values, and what had to be refused."""

    source: str
    data: Any = None
    key_places: dict[Keys, Place] = field(default_factory=dict)
    value_places: dict[Keys, Place] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    refused: set[Keys] = field(default_factory=set)  # their values were replaced: say nothing more about them

    def place(self, keys: Keys, *, of_key: bool = False) -> Place:
        """Where the value (or its key) stands; of what is not there, where its parent stands."""
        if of_key and keys in self.key_places:
            return self.key_places[keys]
        for length in range(len(keys), -1, -1):
            if (place := self.value_places.get(keys[:length])) is not None:
                return place
        return Place(1, 1, self.source)

    def find(self, keys: Keys, message: str, *, of_key: bool = False) -> Finding:
        return Finding(self.place(keys, of_key=of_key), keys, message)

    def is_refused(self, keys: Keys) -> bool:
        return any(keys[:length] in self.refused for length in range(len(keys) + 1))


def no_file(path: Path) -> str:
    siblings = [sibling.name for sibling in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    return f"no such file{did_you_mean(path.name, siblings)}"


def read(path: Path) -> Document:
    """The document in a file whose top is a mapping. Raises SuiteError where there is nothing to go on with."""
    if not path.exists():
        raise SuiteError([Mistake(str(path), "", no_file(path))])
    if not path.is_file():
        raise SuiteError([Mistake(str(path), "", "not a file: name the suite's YAML file")])
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SuiteError([Mistake(str(path), "", f"cannot be read: {error.strerror}")]) from error
    return parse(content, str(path))


def parse(content: bytes, source: str) -> Document:
    """Like `read`, for bytes that are at hand. `source` stands before line and column in messages."""
    if len(content) > MAX_BYTES:
        raise SuiteError(
            [Mistake(source, "", f"larger than {MAX_BYTES >> 20} MiB: a suite names its data, it does not hold them")]
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8-sig")
        raise refusal(
            [_at(before, source, f"byte 0x{content[error.start]:02x} is not UTF-8: save the file as UTF-8")]
        ) from error
    document = compose(text, source)
    if not isinstance(document.data, dict) and not document.findings:
        what = "is empty" if document.data is None else f"holds {describe(document.data)}"
        message = f"a suite is a mapping (`name: ...`, `models: ...`), but the file {what}"
        document.findings.append(Finding(Place(1, 1, source), (), message))
    if not isinstance(document.data, dict):
        raise refusal(document.findings)
    return document


def compose(text: str, source: str) -> Document:
    """The document of a text. What is wrong is in its `findings`; `data` is None where the text cannot be parsed."""
    document = Document(source)
    if control := UNPRINTABLE.search(text):
        message = f"control character U+{ord(control[0]):04X}: remove it"
        document.findings.append(_at(text[: control.start()], source, message))
        return document
    try:
        joined = _without_pairs(text)
        events = yaml.parse(text if joined is None else joined, Loader=LOADER)
        document.data = _Composer(document, events, None if joined is None else text).compose()
    except _Stop:
        document.data = None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(mark.line + 1, mark.column + 1, source) if mark else Place(1, 1, source)
        document.findings.append(Finding(place, (), f"not YAML: {_ungrammatical(error, text, place)}"))
    except yaml.YAMLError as error:
        document.findings.append(Finding(Place(1, 1, source), (), f"not YAML: {error}"))
    return document


def _without_pairs(text: str) -> str | None:
    """JSON with something as long in the place of each character in two halves; None where there is none, or no JSON.

    Only in JSON is every backslash in a text in double quotes.
    """
    found = ESCAPE.sub(lambda escape: r"\u0020" * 2 if len(escape[0]) == PAIR else escape[0], text)
    if found == text:
        return None
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return None  # YAML's parser says what is wrong, and where
    return found


# what the parser says (libyaml, or PyYAML's own) -> what it is likely to mean
LIKELY: Mapping[str, str] = {
    "mapping values are not allowed": "is a ':' missing in the line above? Text with ': ' in it needs quotes",
    "expected key": "does this line begin in another column than its like? Is a bracket or a quote left open above?",
    "expected <block end>": "does this line begin in another column than its like? Is a bracket left open above?",
    "expected '-' indicator": "does this line begin in another column than its like?",
    "expected ','": "is a comma or a closing bracket missing?",
    "cannot start any token": "put the text in quotes",
    "unexpected end of stream": "a quote is left open",
}


def _ungrammatical(error: yaml.MarkedYAMLError, text: str, place: Place) -> str:
    """What the parser says, where what it could not go on with begins, and what may be meant."""
    problem = str(error.problem)
    line = text.split("\n")[place.line - 1 :][:1]
    if "cannot start any token" in problem and line and line[0][place.column - 1 :].startswith("\t"):
        return "a tab stands here: indent with spaces"
    context = f" {error.context}" if error.context else ""
    if context and error.context_mark and error.context_mark.line + 1 != place.line:
        context += f" that begins in line {error.context_mark.line + 1}"
    likely = next((f": {meaning}" for words, meaning in LIKELY.items() if words in problem), "")
    return f"{problem}{context}{likely}"


def describe(value: Any) -> str:
    """A value for a message, short: `'abc'`, `3`, `nothing`, `a list`."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case str() if len(value) > 60:
            return f"'{value[:57]}...'"
        case str():
            return f"'{value}'"
        case _:
            return str(value)


def plain(text: str) -> Any:
    """What an unquoted word means. Raises ValueError, with the reason, for a number that is not finite."""
    if text in WORDS:
        return WORDS[text]
    if INTEGER.fullmatch(text):
        return int(text)
    if NOT_FINITE.fullmatch(text):
        raise ValueError(f"{text} is not a finite number")
    if FLOAT.fullmatch(text):
        value = float(text)
    elif fraction := FRACTION.fullmatch(text):
        if float(fraction[5]) == 0:
            raise ValueError(f"{text} divides by zero")
        value = float(fraction[1]) / float(fraction[5])
    else:
        return text
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large for a number")
    return value


class _Stop(Exception):
    """The document cannot be gone on with; the reason is in its findings."""


class _Composer:
    """Builds data from events, without ever expanding anything. json: the text where its quoted parts are JSON's."""

    def __init__(self, document: Document, events: Iterator[Any], json: str | None = None) -> None:
        self.document = document
        self.events = events
        self.json = json

    def compose(self) -> Any:
        next(self.events)  # the stream's start
        if isinstance(next(self.events), yaml.StreamEndEvent):
            return None
        data = self.node(next(self.events), ())
        next(self.events)  # the document's end
        after = next(self.events)
        if not isinstance(after, yaml.StreamEndEvent):
            self.refuse(after, (), "a second document starts here: one file holds one suite")
            raise _Stop
        return data

    def node(self, event: Any, keys: Keys) -> Any:
        place = self.place(event)
        self.document.value_places[keys] = place
        if len(keys) > MAX_DEPTH:
            self.refuse(event, keys[:3], f"nested deeper than {MAX_DEPTH} levels")
            raise _Stop
        if isinstance(event, yaml.AliasEvent):
            return self.replaced(event, keys, f"alias *{event.anchor}: aliases are refused, write the value out")
        if event.anchor is not None:
            self.refuse(event, keys, f"anchor &{event.anchor}: anchors and aliases are refused, write the value out")
        if event.tag is not None:
            self.refuse(event, keys, f"tag {event.tag}: tags are refused, leave it out")
        if isinstance(event, yaml.MappingStartEvent):
            return self.mapping(keys)
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(keys)
        if not event.implicit[0]:  # quoted, or a block of text
            if self.json is None:
                return event.value
            return json.loads(self.json[event.start_mark.index : event.end_mark.index])
        try:
            return plain(event.value)
        except ValueError as error:
            return self.replaced(event, keys, str(error))

    def sequence(self, keys: Keys) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self.node(event, (*keys, len(items))))
        return items

    def mapping(self, keys: Keys) -> dict[str, Any]:
        data: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self.key(event, keys)
            inner = (*keys, key)
            if key in data:
                first = self.document.key_places[inner]
                self.refuse(event, inner, f"the key '{key}' stands twice (first in line {first.line}): remove one")
                self.node(next(self.events), (*keys, key, "(again)"))
                continue
            self.document.key_places[inner] = self.place(event)
            data[key] = self.node(next(self.events), inner)
        return data

    def key(self, event: Any, keys: Keys) -> str:
        before = len(self.document.findings)
        key = self.node(event, (*keys, "(key)"))
        del self.document.value_places[*keys, "(key)"]
        if isinstance(key, str):
            return key
        written = f"'{event.value}'" if isinstance(event, yaml.ScalarEvent) else describe(key)
        if len(self.document.findings) == before:
            self.refuse(event, keys, f"the key {written} is not text: put it in quotes")
        stand_in = f"(line {event.start_mark.line + 1}, column {event.start_mark.column + 1})"
        self.document.refused.add((*keys, stand_in))
        return stand_in

    def place(self, event: Any) -> Place:
        return Place(event.start_mark.line + 1, event.start_mark.column + 1, self.document.source)

    def refuse(self, event: Any, keys: Keys, message: str) -> None:
        self.document.findings.append(Finding(self.place(event), keys, message))

    def replaced(self, event: Any, keys: Keys, message: str) -> None:
        self.refuse(event, keys, message)
        self.document.refused.add(keys)


def _at(before: str, source: str, message: str) -> Finding:
    """A finding at the end of a piece of text."""
    line = before.count("\n") + 1
    return Finding(Place(line, len(before) - before.rfind("\n"), source), (), message)


class _Dumper(yaml.SafeDumper):
    """Quotes every text that would be read back as something else."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    try:
        quoted = plain(text) != text
    except ValueError:
        quoted = True
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'" if quoted else None)


represent: Callable[..., None] = _Dumper.add_representer
represent(str, _represent_text)


def write(data: Any) -> str:
    """YAML that `compose` reads back as the same data (JSON values only)."""
    return str(yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110))
