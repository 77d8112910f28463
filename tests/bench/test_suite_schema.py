"""The JSON schema of suites agrees with what `load` accepts, and the built-in suites are right."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from bench import plugins
from bench.contracts import REGISTRIES, adapters
from bench.errors import PluginError, SuiteError
from bench.suite import Evaluations, Leaderboard, Resources, Suite, json_schema, load, parse, to_yaml
from bench.suite_parts import KINDS
from bench.suite_yaml import compose, read
from tests.bench import suite_plugins
from tests.bench.test_suite import GOOD, change

SUITES = sorted((Path(__file__).parents[2] / "suites").glob("*.yaml"))


@functools.cache
def validator(known: tuple[str, ...]) -> jsonschema.Draft202012Validator:
    """Of the plugins that are registered: making it takes longer than using it."""
    return jsonschema.Draft202012Validator(json_schema())


def errors(data: Any) -> list[str]:
    known = tuple(f"{kind}.{name}" for kind, registry in REGISTRIES.items() for name in registry.names())
    return [error.message for error in validator(known).iter_errors(data)]


def test_the_schema_is_one_and_knows_the_plugins_that_are_registered() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    attacks = json_schema()["$defs"]["AttackSpec"]["properties"]["attack"]["enum"]
    assert {"t_step", "t_lib.near", "t_broken"} <= set(attacks)
    assert suite_plugins.Step.name in attacks


def test_a_plugin_with_fields_that_yaml_cannot_hold_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Called(suite_plugins.Net):
        callback: Callable[[], None] = print

    monkeypatch.setitem(adapters._classes, "t_called", Called)
    with pytest.raises(PluginError, match="adapter 't_called': a field has a type that YAML cannot hold"):
        json_schema()


def test_a_good_suite_validates_as_read_and_as_an_editor_reads_it() -> None:
    data = compose(GOOD, "s.yaml").data
    assert errors(data) == []
    data["evaluations"]["attacks"][0]["epsilons"] = ["8/255", 0.001, ".5"]  # YAML 1.2 has no fractions: text
    data["models"][0]["args"]["rate"] = "1/4"
    data["evaluations"]["attacks"][0]["epsilons"].pop()
    assert errors(data) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("attack: t_step", "attack: t_stop"),
        ("steps: 5", "step: 5"),
        ("steps: 5", "steps: 0"),
        ("steps: 5", "steps: '5'"),
        ("norm: l2}", "norm: linf}"),
        ("norm: linf, ", ""),
        ("epsilons: [8/255, 1e-3, .1], ", ""),
        (".1]", "0]"),
        (".1]", "x]"),
        ("[t_count, ", "[t_cuont, "),
        ("args: {weight: 2}", "args: {}"),
        (", args: {weight: 2}", ""),
        ("split: train", "split: tra"),
        ("{name: other, adapter: t_net}", "{name: other}"),
        ("t_net\n    args", "t_net\n    registered: x\n    args"),
        ("width: 8", "bounds: [0, x]"),
        ("width: 8", "data: {}"),
        ("name: mine", "name: My Suite"),
        ("name: mine", "nam: mine"),
    ],
)
def test_the_schema_refuses_what_load_refuses(old: str, new: str, tmp_path: Path) -> None:
    text = change((old, new))
    assert errors(compose(text, "s.yaml").data)
    with pytest.raises(SuiteError, match=r"s\.yaml:\d+:\d+: "):
        parse(text.encode(), "s.yaml", tmp_path)


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.name)
def test_a_built_in_suite_is_right_and_validates(path: Path, tmp_path: Path) -> None:
    plugins.load_built_in()
    suite = load(path)
    assert suite.name == path.stem
    assert errors(read(path).data) == []
    assert parse(to_yaml(suite).encode(), "again.yaml", path.parent) == suite
    typo = path.read_text().replace("\ndatasets:", "\ndataset:", 1)
    assert errors(compose(typo, "typo.yaml").data)


DOCS = (Path(__file__).parents[2] / "docs" / "suite.md").read_text()


def test_every_key_of_a_suite_is_in_the_docs() -> None:
    parts = [Suite, Evaluations, Resources, Leaderboard, *KINDS.values()]
    keys = {key for part in parts for key in part.model_fields}
    assert [key for key in sorted(keys) if f"`{key}`" not in DOCS] == []


def test_the_example_in_the_docs_is_right(tmp_path: Path) -> None:
    plugins.load_built_in()
    example = DOCS.partition("```yaml\n")[2].partition("```")[0]
    assert parse(example.encode(), "docs/suite.md", tmp_path).name == "my-networks"
    assert errors(compose(example, "docs/suite.md").data) == []
