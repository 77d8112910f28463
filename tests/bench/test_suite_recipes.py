"""Models by recipe, and profiles: other forms that a suite holds itself."""

from pathlib import Path

import jsonschema
import pytest

from bench import plugins, verbs
from bench.contracts import adapters
from bench.errors import SuiteError
from bench.suite import json_schema, load, parse, to_yaml
from tests.bench.test_suite import mistakes, suite

plugins.load_built_in()

RECIPE = """\
name: mine
models:
  - name: net
    recipe: {family: small_cnn, width: 8, epochs: 1/1}
datasets:
  - {dataset: digits, limit: 100}
evaluations:
  attacks: [{attack: fgsm, norm: linf, epsilons: [.1]}]
profiles:
  full:
    datasets[0].limit: 200
    models[0].recipe.width: 16
    resources.timeout: 60
  wrong:
    models[0].recipe.width: 1
"""


def test_a_recipe_is_an_adapter_with_its_arguments(tmp_path: Path) -> None:
    found = suite(RECIPE.replace("1/1", "3"), tmp_path)
    model = found.models[0]
    assert (model.plugin, model.arguments) == ("small_cnn", {"width": 8, "epochs": 3})
    assert model.build() == adapters.build("small_cnn", {"width": 8, "epochs": 3})
    assert parse(to_yaml(found).encode(), "again.yaml", tmp_path) == found


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("small_cnn", "smal_cnn", "4:22: models[0].recipe.family: no family 'smal_cnn' - did you mean 'small_cnn'?"),
        ("small_cnn", "onnx", "4:22: models[0].recipe.family: 'onnx' is not trained: name it under `adapter:`"),
        ("family: small_cnn, ", "", "4:13: models[0].recipe: needs `family:`, an adapter that trains"),
        ("family: small_cnn", "famly: small_cnn", "4:13: models[0].recipe: needs `family:` (not 'famly:'), an adapter"),
        ("width: 8", "widht: 8", "4:33: models[0].recipe.widht: unknown key 'widht' - did you mean 'width'?"),
        ("width: 8", "width: 1", "4:40: models[0].recipe.width: must be at least 2, got 1"),
        ("1/1", "3}\n    args: {width: 2", "5:5: models[0].args: belongs into `recipe:`, beside `family:`"),
        ("1/1", "3}\n    adapter: small_cnn\n    args: {", "has one of `adapter:` (built here), `recipe:`"),
        ("{family: small_cnn, width: 8, epochs: 1/1}", "small_cnn", "models[0].recipe: must be a mapping"),
    ],
)
def test_a_mistake_in_a_recipe_is_told_at_its_place(old: str, new: str, expected: str, tmp_path: Path) -> None:
    text = RECIPE.replace(old, new, 1).replace("1/1", "3")
    assert any(expected in mistake for mistake in mistakes(text, tmp_path)), mistakes(text, tmp_path)


def test_a_teacher_inside_a_recipe_is_checked_at_its_place(tmp_path: Path) -> None:
    recipe = "{family: binarised, data: {dataset: digits}, train: {teacher: {adapter: smal_cnn}}}"
    text = RECIPE.replace("{family: small_cnn, width: 8, epochs: 1/1}", recipe)
    [told] = [told for told in mistakes(text, tmp_path) if "train.teacher" in told]
    assert "4:85: models[0].recipe.train.teacher.adapter: no adapter 'smal_cnn' - did you mean 'small_cnn'?" in told


def test_a_profile_changes_what_it_names_and_set_comes_last(tmp_path: Path) -> None:
    text = RECIPE.replace("1/1", "3")
    assert suite(text, tmp_path).datasets[0].limit == 100
    full = suite(text, tmp_path, profile="full", overrides=["resources.timeout=5"])
    assert full.datasets[0].limit == 200
    assert full.models[0].arguments["width"] == 16
    assert full.resources.timeout == 5
    assert suite(text, tmp_path, profile="full").resources.timeout == 60


def test_a_mistake_of_a_profile_is_told_where_the_profile_stands(tmp_path: Path) -> None:
    text = RECIPE.replace("1/1", "3")
    found = mistakes(text, tmp_path, profile="wrong")
    assert found == ["s.yaml:15:29: models[0].recipe.width: must be at least 2, got 1"]
    nowhere = text.replace("models[0].recipe.width: 1\n", "models[3].recipe.width: 1\n")
    assert "`models` has 1 entries" in mistakes(nowhere, tmp_path, profile="wrong")[0]
    badly = text.replace("    models[0].recipe.width: 1\n", "    '[width': 1\n")
    assert "must be the path of a key" in mistakes(badly, tmp_path, profile="wrong")[0]


def test_the_mistakes_of_all_profiles_are_told_at_once_each_once(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(RECIPE.replace("1/1", "3").replace("limit: 200", "limit: 0").replace("[.1]", "[x]"))
    with pytest.raises(SuiteError) as raised:
        verbs.check_suite(path, [], None)
    assert [str(mistake).removeprefix(f"{path}:").split(" ")[0] for mistake in raised.value.mistakes] == [
        "8:51:",
        "11:24:",
        "15:29:",
    ]
    path.write_text(RECIPE.replace("1/1", "3"))
    assert verbs.check_suite(path, [], "full").datasets[0].limit == 200


def test_an_unknown_profile_is_an_error_with_the_nearest_name(tmp_path: Path) -> None:
    found = mistakes(RECIPE.replace("1/1", "3"), tmp_path, profile="ful")
    assert found == ["--profile ful: no profile 'ful' in s.yaml - did you mean 'full'? (it has: full, wrong)"]


def test_the_schema_knows_the_arguments_of_families() -> None:
    validator = jsonschema.Draft202012Validator(json_schema())

    def errors(recipe: dict[str, object]) -> list[str]:
        model = {"name": "net", "recipe": recipe}
        return [error.message for error in validator.iter_errors({"models": [model], "name": "x", "datasets": []})]

    good = {"family": "binarised", "variant": "C", "train": {"adversary": "pgd", "epochs": 3}}
    assert len(errors(good)) == len(errors(good | {"train": {"adversary": {"kind": "fgsm"}}}))
    for wrong in ({"variant": "D"}, {"train": {"adversary": "pdg"}}, {"family": "onnx"}, {"with": 3}):
        assert len(errors(good | wrong)) > len(errors(good)), wrong


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "suites").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_profile_of_a_built_in_suite_is_right(path: Path) -> None:
    for profile in load(path).profiles:
        try:
            load(path, profile=profile)
        except SuiteError as error:
            pytest.fail(f"{path.name}, profile {profile}: {error}")
