"""The YAML of suites: what words mean, where things stand, what is refused."""

import json
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bench import suite_yaml
from bench.errors import SuiteError
from bench.suite_yaml import compose, parse, plain, read, write


def mistakes(text: str | bytes) -> list[str]:
    content = text.encode() if isinstance(text, str) else text
    try:
        document = parse(content, "s.yaml")
    except SuiteError as error:
        return [str(mistake) for mistake in error.mistakes]
    return [str(mistake) for mistake in suite_yaml.refusal(document.findings).mistakes]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8/255", 8 / 255),
        ("-1/3", -1 / 3),
        ("0.5 / 2", 0.25),
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("+3", 3),
        ("-0", 0),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
    ],
)
def test_a_plain_word_that_is_a_number_or_a_constant_is_one(text: str, value: object) -> None:
    assert plain(text) == value
    assert type(plain(text)) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "on",
        "off",
        "yes",
        "No",
        "y",
        "010",
        "00.5",
        "0x1F",
        "0o17",
        "12:30",
        "1:2:3",
        "2026-01-31",
        "1_000",
        "1.2.3",
        "inf",
        "nan",
        "a/3",
        "8/255/2",
        "v1/2",
        "1e",
        "--1",
        "=",
        "<<",
        "1" * 200,
    ],
)
def test_the_traps_of_yaml_1_1_stay_text(text: str) -> None:
    assert plain(text) == text
    assert compose(f"- {text}", "s.yaml").data == [text]


@pytest.mark.parametrize("text", ["8/255", "3", "true", "null", "1e-3"])
def test_quoted_text_is_text(text: str) -> None:
    assert compose(f"a: '{text}'\nb: \"{text}\"\nc: |-\n  {text}\n", "s").data == dict.fromkeys("abc", text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (".inf", ".inf is not a finite number"),
        ("-.INF", "-.INF is not a finite number"),
        (".nan", ".nan is not a finite number"),
        ("1e999", "1e999 is too large for a number"),
        ("1/0", "1/0 divides by zero"),
    ],
)
def test_a_number_that_is_not_finite_is_refused_where_it_stands(text: str, reason: str) -> None:
    assert mistakes(f"a:\n  - 1\n  - {text}\n") == [f"s.yaml:3:5: a[1]: {reason}"]


def test_keys_and_values_know_their_lines_and_columns() -> None:
    document = compose("a: {b: 1, é: [2,\n  3]}\n# note\nc:\n  - d: 'x'\n", "s.yaml")
    assert document.data == {"a": {"b": 1, "é": [2, 3]}, "c": [{"d": "x"}]}
    assert str(document.place(("a", "b"), of_key=True)) == "s.yaml:1:5"
    assert str(document.place(("a", "b"))) == "s.yaml:1:8"
    assert str(document.place(("a", "é", 1))) == "s.yaml:2:3"
    assert str(document.place(("c", 0, "d"))) == "s.yaml:5:8"
    assert str(document.place(("c", 0, "missing"))) == "s.yaml:5:5"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", "s.yaml:3:1: a: the key 'a' stands twice (first in line 1): remove one"),
        ("a: !!python/object:os.system x", "s.yaml:1:4: a: tag tag:yaml.org,2002:python/object:os.system: tags are"),
        ("a: ! x", "s.yaml:1:4: a: tag !: tags are refused, leave it out"),
        ("a: &b 1", "s.yaml:1:4: a: anchor &b: anchors and aliases are refused, write the value out"),
        ("a: *b", "s.yaml:1:4: a: alias *b: aliases are refused, write the value out"),
        ("1: x", "s.yaml:1:1: the key '1' is not text: put it in quotes"),
        ("true: x", "s.yaml:1:1: the key 'true' is not text: put it in quotes"),
        ("a: {[1, 2]: x}", "s.yaml:1:5: a: the key a list is not text: put it in quotes"),
        ("a: 1\n---\nb: 2\n", "s.yaml:2:1: a second document starts here: one file holds one suite"),
        ("- 1\n", "s.yaml:1:1: a suite is a mapping (`name: ...`, `models: ...`), but the file holds a list"),
        ("", "s.yaml:1:1: a suite is a mapping (`name: ...`, `models: ...`), but the file is empty"),
        ("# only a note\n", "s.yaml:1:1: a suite is a mapping (`name: ...`, `models: ...`), but the file is empty"),
        ("a: 1\nb: [1,\n", "not YAML: "),
        ("a:\n\tb: 1\n", "s.yaml:2:1: not YAML: a tab stands here: indent with spaces"),
        (
            "a: [1,\n  2\nb: 3\n",
            "s.yaml:3:2: not YAML: did not find expected ',' or ']' while parsing a flow sequence that",
        ),
        ("a:\n  - 1\n - 2\n", "s.yaml:3:2: not YAML: "),
        ("a: 'x\n", "a quote is left open"),
        ("a: @x\n", "put the text in quotes"),
        ("a: 1\nb: x: y\n", "s.yaml:2:5: not YAML: mapping values are not allowed"),
        ("a: 1\nb: \x07\n", "s.yaml:2:4: control character U+0007: remove it"),
        ("a: 1\nb: '\ufffe'\n", "s.yaml:2:5: control character U+FFFE: remove it"),
        (b"a: 1\nb: \xff\n", "s.yaml:2:4: byte 0xff is not UTF-8: save the file as UTF-8"),
        ("a: 1".encode("utf-16"), "s.yaml:1:1: byte 0xff is not UTF-8: save the file as UTF-8"),
        (b"a: " + b"x" * suite_yaml.MAX_BYTES, "s.yaml: larger than 1 MiB: "),
    ],
)
def test_what_a_suite_may_not_hold_is_refused_at_its_place(text: str | bytes, expected: str) -> None:
    found = mistakes(text)
    assert len(found) == 1
    assert expected in found[0]


def test_a_document_may_be_twenty_deep_and_no_deeper() -> None:
    assert mistakes("a: " + "[" * 19 + "1" + "]" * 19) == []
    assert mistakes("a: " + "[" * 20 + "1" + "]" * 20) == ["s.yaml:1:24: a[0][0]: nested deeper than 20 levels"]


@pytest.mark.parametrize(
    "bomb",
    [
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)),
        "a: " + "[" * 300_000,
        "a: " + "{a: " * 200_000,
        "? " * 300_000,
    ],
    ids=["aliases", "lists", "mappings", "keys"],
)
def test_a_bomb_costs_nothing(bomb: str) -> None:
    start = time.thread_time()
    assert mistakes(bomb)
    assert time.thread_time() - start < 5


def test_every_mistake_is_told_at_once_in_the_order_of_the_file() -> None:
    found = mistakes("a: !x 1\nb: &y 2\na: 3\nc: *y\nd: .nan\n")
    assert [mistake.split(":")[1] for mistake in found] == ["1", "2", "3", "4", "5"]


def test_a_flood_of_mistakes_is_cut_and_says_so() -> None:
    document = parse(("a: 1\n" * 300).encode(), "s.yaml")
    error = suite_yaml.refusal(document.findings)
    assert len(error.mistakes) == suite_yaml.MAX_MISTAKES
    assert "199 more mistakes" in str(error)


def test_a_byte_order_mark_is_no_part_of_the_first_key() -> None:
    assert parse("\ufeffname: x".encode(), "s.yaml").data == {"name": "x"}


def test_a_file_that_is_not_there_is_told_with_the_nearest_one(tmp_path: Path) -> None:
    (tmp_path / "quickstart.yaml").write_text("name: x")
    with pytest.raises(SuiteError, match=r"quikstart.yaml: no such file - did you mean 'quickstart.yaml'\?"):
        read(tmp_path / "quikstart.yaml")
    with pytest.raises(SuiteError, match="not a file: name the suite's YAML file"):
        read(tmp_path)


def test_the_slow_parser_reads_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a: {b: 1, é: [2,\n  3]}\nc:\n  - d: 'x'\n    e: 8/255\n    f: |\n      g\n"
    fast = compose(text, "s")
    monkeypatch.setattr(suite_yaml, "LOADER", yaml.SafeLoader)
    slow = compose(text, "s")
    assert (slow.data, slow.value_places, slow.key_places) == (fast.data, fast.value_places, fast.key_places)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)
    | st.sampled_from(["8/255", "1e-3", ".5", "yes", "010", "12:30", ".inf", "1/0", "null", "", "~", "2026-01-01"])
)
KEYS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8) | st.sampled_from(["1", "on", ".5", "null"])
DATA = st.recursive(SCALARS, lambda d: st.lists(d, max_size=4) | st.dictionaries(KEYS, d, max_size=4), max_leaves=12)


@given(st.dictionaries(KEYS, DATA, max_size=4))
def test_what_is_written_reads_back_the_same(data: dict[str, object]) -> None:
    document = compose(write(data), "s.yaml")
    assert document.findings == []
    assert document.data == data


def test_json_writes_a_character_in_two_halves_and_it_is_read_as_one():
    """As `json.dumps` does it by default; the standard library's reader says what it means."""
    data = {"name": "a \U0001f600\\ud83d\\ude00\\", "\U0001f600": ["\U00010000", "\U0010ffff", "ü😀"], "n": 3, "f": 0.5}
    for ascii_ in (True, False):
        text = json.dumps(data, ensure_ascii=ascii_)
        assert compose(text, "x").data == json.loads(text) == data
        assert compose(text, "x").findings == []


def test_what_stands_behind_such_a_character_keeps_its_place_and_its_refusals():
    text = '{"a": "ü\\ud83d\\ude00", "b": [1e999],\n "\\ud83d\\ude00": 1, "\\ud83d\\ude00": 2}'
    document = compose(text, "x")
    assert document.value_places["b", 0][:2] == (1, text.index("1e999") + 1)
    told = {(place[:2], message[:24]) for place, _, message in document.findings}
    second = text.splitlines()[1].rindex('"\\ud83d') + 1
    assert told == {
        ((1, text.index("1e999") + 1), "1e999 is too large for a"),
        ((2, second), "the key '\U0001f600' stands twice"[:24]),
    }


HALVES = {
    "half a character": ('{"a": "\\ud83d"}', "not YAML"),
    "halves the other way round": ('{"a": "\\ude00\\ud83d"}', "not YAML"),
    "a bracket that is missing": ('{"a": "\\ud83d\\ude00"', "not YAML"),
    "depth": ('{"a": "\\ud83d\\ude00", "b": ' + "[" * 50 + "]" * 50 + "}", "nested deeper"),
    "control characters": ('{"a": "\\ud83d\\ude00\x01"}', "control character"),
}


@pytest.mark.parametrize("what", HALVES)
def test_json_that_is_wrong_is_refused_with_its_place(what: str):
    text, told = HALVES[what]
    (finding,) = compose(text, "x").findings
    assert finding.message.startswith(told)
    assert finding.place.line == 1
    assert finding.place.column > 6


def test_outside_double_quotes_a_backslash_is_text_in_yaml():
    assert compose("a: \\ud83d\\ude00\nb: '\\ud83d\\ude00'\n", "x").data == dict.fromkeys("ab", "\\ud83d\\ude00")


def test_many_such_characters_are_read_in_no_time():
    text = json.dumps({"a": "\U0001f600" * 20_000, "b": ["\U0001f600"] * 10_000})
    before = time.thread_time()
    assert compose(text, "x").data == json.loads(text)
    assert time.thread_time() - before < 10
