"""Suites: what is accepted, what it becomes, and how each mistake is told."""

import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench import suite as suites
from bench.contracts import Norm, adapters
from bench.errors import PluginError, SuiteError
from bench.suite import Suite, load, parse, to_yaml
from bench.suite_yaml import compose, write
from tests.bench import suite_plugins

GOOD = """\
name: mine
models:
  - name: net
    adapter: t_net
    args: {width: 8, rate: 1/4}
  - {name: other, adapter: t_net}
datasets:
  - {dataset: t_dots, limit: 100}
evaluations:
  attacks:
    - {attack: t_step, norm: linf, epsilons: [8/255, 1e-3, .1], args: {steps: 5}}
    - {attack: t_lib.near, norm: l2}
  probes: [t_count, {probe: t_count, name: again}]
  detectors:
    - {detector: t_surprise, outliers: {dataset: t_dots, split: train}, args: {weight: 2}}
leaderboard:
  columns: [clean_accuracy, robust_accuracy/linf/worst/0.1, median_distance/l2/near]
  rank_by: t_count/all
"""


def suite(text: str, folder: Path, **options: object) -> Suite:
    return parse(text.encode(), "s.yaml", folder, **options)  # type: ignore[arg-type]


def mistakes(text: str, folder: Path, **options: object) -> list[str]:
    with pytest.raises(SuiteError) as raised:
        suite(text, folder, **options)
    return [str(mistake) for mistake in raised.value.mistakes]


def change(*pairs: tuple[str, str]) -> str:
    """The good suite with some words changed; each must be there once."""
    text = GOOD
    for old, new in pairs:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def test_a_good_suite_becomes_what_it_says(tmp_path: Path) -> None:
    found = suite(GOOD, tmp_path)
    step, near = found.evaluations.attacks
    assert step.epsilons == (0.001, 8 / 255, 0.1)
    assert (step.norm, step.name, near.name, near.epsilons) == (Norm.LINF, "t_step", "near", ())
    assert [probe.name for probe in found.evaluations.probes] == ["t_count", "again"]
    assert (found.datasets[0].name, found.datasets[0].limit, found.datasets[0].split) == ("t_dots", 100, "test")
    assert found.models[0].args == {"width": 8, "rate": 0.25}
    assert found.resources == suites.Resources()


def test_specs_build_the_plugins_they_name(tmp_path: Path) -> None:
    found = suite(GOOD, tmp_path)
    assert found.models[0].build() == suite_plugins.Net(width=8, rate=0.25)
    assert found.datasets[0].build() == suite_plugins.Dots(split="test")
    assert found.evaluations.attacks[0].build() == suite_plugins.Step(norm=Norm.LINF, steps=5)
    assert found.evaluations.probes[0].build() == suite_plugins.Count()
    assert found.evaluations.detectors[0].build() == suite_plugins.Surprise(weight=2.0)
    assert found.evaluations.detectors[0].outliers.build() == suite_plugins.Dots(split="train")


def test_a_registered_model_is_built_by_the_adapter_of_the_registry() -> None:
    assert suites.ModelSpec(name="a", registered="net/3").arguments == {"uri": "models:/net/3"}
    newest = suites.ModelSpec(name="a", registered="net", args={"tracking_uri": "http://x"})
    assert (newest.plugin, newest.arguments) == ("mlflow", {"uri": "models:/net/latest", "tracking_uri": "http://x"})


def test_a_suite_that_is_written_reads_back_the_same(tmp_path: Path) -> None:
    found = suite(change(("rate: 1/4", "rate: 1e-7"), ("name: mine", "name: '010'")), tmp_path)
    assert suite(to_yaml(found), tmp_path) == found


def test_the_metrics_of_a_suite_are_known_before_it_runs(tmp_path: Path) -> None:
    names = suite(GOOD, tmp_path).metric_names()
    assert names[0] == "clean_accuracy"
    assert {"robust_accuracy/linf/t_step/0.0313725", "robust_accuracy/linf/worst/0.001", "forwards/l2/near"} < set(
        names
    )
    assert {"t_count/all", "t_count/all/again", "auroc/t_surprise", "median_distance/l2/near"} < set(names)
    assert "median_distance/linf/t_step" not in names
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "attack: t_lib.near",
            "attack: t_endless, epsilons: [1]",
            "budget: is missing: 't_endless' says neither how many",
        ),
        (
            "attack: t_lib.near",
            "attack: t_endless, epsilons: [1], budget: {queries: 5}, goal: random",
            "goal: 't_endless' needs all classes of the model, and a goal with a target leaves a choice of two",
        ),
        ("args: {steps: 5}", "goal: nearest", "goal: must be "),
        ("args: {steps: 5}", "budget: {queries: 0}", "budget.queries: must be at least 1, got 0"),
        (
            "args: {steps: 5}",
            "budget: {quries: 1, queries: 2}",
            "budget.quries: unknown key 'quries' - did you mean 'queries'?",
        ),
        ("args: {steps: 5}", "budget: {}", "a budget limits `gradients`, `queries` or `seconds`: give one of them"),
        ("name: mine", "name: My Suite", "1:7: name: must be lower-case letters, digits, '-' and '_'"),
        ("name: mine", "name: 3", "1:7: name: must be text, got 3 (put it in quotes)"),
        ("name: mine", "nam: mine", "1:1: nam: unknown key 'nam' - did you mean 'name'? (keys here: name, seed,"),
        ("name: mine", "name: mine\nseed: '1'", "2:7: seed: must be a whole number, got '1' (numbers are written"),
        ("name: mine", "name: mine\nseed: 010", "2:7: seed: must be a whole number, got '010'"),
        ("name: mine", "name: mine\nseed: 1.5", "2:7: seed: must be a whole number, got 1.5"),
        ("name: mine", "name: mine\nseed: -1", "2:7: seed: must be at least 0, got -1"),
        ("name: mine", "name: mine\nname: b", "2:1: name: the key 'name' stands twice (first in line 1): remove one"),
        ("limit: 100", "limit: 0", "8:30: datasets[0].limit: must be greater than 0, got 0"),
        ("limit: 100", "stratified: yes", "8:35: datasets[0].stratified: must be true or false, got 'yes'"),
        ("limit: 100", "split: tset", "8:30: datasets[0].split: 't_dots' has no split 'tset' - did you mean 'test'?"),
        ("attack: t_step", "attack: t_stop", "11:16: evaluations.attacks[0].attack: no attack 't_stop' - did you mean"),
        (
            "attack: t_step, ",
            "",
            "11:7: evaluations.attacks[0].attack: is missing: The attack (`gauntlet list attacks`)",
        ),
        ("norm: linf, ", "", "11:7: evaluations.attacks[0].norm: is missing: How distance is measured: l0, l1, l2 or"),
        ("norm: linf", "norm: linff", "'linff' - did you mean 'linf'? (it has: linf, l2)"),
        (
            "norm: l2}",
            "norm: linf}",
            "12:34: evaluations.attacks[1].norm: 't_lib.near' has no norm 'linf' (it has: l2)",
        ),
        (".1]", "0]", "epsilons[2]: must be greater than 0, got 0"),
        (".1]", "8/255]", "epsilons: 0.0313725 stands twice: remove one"),
        (".1]", ".03137255]", "are both 0.0313725 in metric names (6 digits): remove one"),
        (".1]", "x]", "epsilons[2]: must be a number, got 'x'"),
        ("[8/255, 1e-3, .1]", ".1", "epsilons: must be a list (`[a, b]`, or one `- ...` on each line), got 0.1"),
        ("epsilons: [8/255, 1e-3, .1], ", "", "epsilons: is missing: 't_step' needs the radii of the ball"),
        ("epsilons", "epsilon", "unknown key 'epsilon' - did you mean 'epsilons'?"),
        ("steps: 5", "steps: 0", "args.steps: must be at least 1, got 0"),
        ("steps: 5", "step: 5", "args.step: unknown key 'step' - did you mean 'steps'? (keys here: norm, steps,"),
        ("steps: 5", "norm: l2", "args.norm: belongs beside `attack:`, not under `args:`"),
        ("args: {steps: 5}", "steps: 5", "attacks[0].steps: is an argument of 't_step': put it under `args:`"),
        ("args: {steps: 5}", "args: 5", "attacks[0].args: must be a mapping (`key: value`), got 5"),
        ("width: 8", "width: 8.5", "5:19: models[0].args.width: must be a whole number, got 8.5"),
        (
            "width: 8",
            "size: min",
            "size: must be a whole number, got 'min' (numbers are written like 3, .5, 1e-3",
        ),
        ("width: 8", "bounds: [0, x]", "args.bounds[1]: must be a number, got 'x'"),
        ("width: 8", "data: {dataset: t_dost}", "args.data.dataset: no dataset 't_dost' - did you mean 't_dots'?"),
        ("width: 8", "weights: w.pt", "args.weights: no file 'w.pt'"),
        (
            "t_net\n    args",
            "t_net\n    registered: x\n    args",
            "has one of `adapter:` (built here), `recipe:` (trained here) and `registered:`",
        ),
        ("{name: other, adapter: t_net}", "{name: other}", "6:5: models[1]: a model has one of `adapter:`"),
        ("{name: other, adapter: t_net}", "other", "6:5: models[1]: must be a mapping (`key: value`), got 'other'"),
        (
            "name: other",
            "name: net",
            "6:12: models[1].name: two models are called 'net' (the other: line 3): add a `name:`",
        ),
        ("{probe: t_count, name: again}", "t_count", "probes[1].name: two evaluations are called 't_count' (the other"),
        ("name: again", "name: a/b", "probes[1].name: must be letters, digits, '_', '.' and '-', and start with"),
        ("name: again", "name: worst", "probes[1].name: 'worst' is the engine's own: add a different `name:`"),
        (
            "[t_count, ",
            "[t_cuont, ",
            "13:12: evaluations.probes[0].probe: no probe 't_cuont' - did you mean 't_count'?",
        ),
        ("args: {weight: 2}", "args: {}", "detectors[0].args.weight: is missing"),
        ("split: train", "split: tra", "outliers.split: 't_dots' has no split 'tra' - did you mean 'train'?"),
        ("attack: t_lib.near", "attack: t_broken, epsilons: [1]", "attack: returns NaN: use 't_step' instead"),
        (
            "linf/worst/0.1",
            "linf/worst/0.2",
            "17:29: leaderboard.columns[1]: this suite yields no metric 'robust_accurac",
        ),
        (
            "t_count/all",
            "t_count/al",
            "18:12: leaderboard.rank_by: this suite yields no metric 't_count/al' - did you mean",
        ),
        ("[clean_accuracy,", "[median_distance/l2/near,", "'median_distance/l2/near' stands twice: remove one"),
        ("name: mine", "name: mine\nresources: {gpus_per_worker: .3}", "must be 0, .2, .25, .5 or a whole number"),
        ("name: mine", "name: mine\nresources: {timeout: 0}", "2:22: resources.timeout: must be greater than 0, got 0"),
        ("name: mine", "name: mine\nplugins: [x.py]", "2:11: plugins[0]: plugin 'x.py' cannot be loaded here"),
    ],
)
def test_a_mistake_is_told_once_with_its_place_and_what_would_be_right(
    old: str, new: str, expected: str, tmp_path: Path
) -> None:
    found = mistakes(change((old, new)), tmp_path)
    told = [mistake for mistake in found if expected in mistake]
    assert len(told) == 1, found
    assert told[0].startswith("s.yaml:")
    assert len(found) == 1, found


def test_mistakes_of_every_stage_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = change(
        ("adapter: t_net\n", "adapter: t_nt\n"),
        ("limit: 100", "limit: x"),
        ("norm: linf", "norm: l0"),
        ("again", "!a b"),
    )
    found = mistakes(text + "typo: 1\n", tmp_path)
    assert [mistake.split(":")[1] for mistake in found] == ["4", "8", "11", "13", "19"]


def test_a_word_on_the_command_line_wins(tmp_path: Path) -> None:
    overrides = ["models[0].args.width=32", "resources.batch_size=8", "evaluations.attacks[0].epsilons=[1/4]", "seed=7"]
    found = suite(GOOD.replace("worst/0.1", "worst/0.25"), tmp_path, overrides=overrides)
    assert (found.models[0].args["width"], found.resources.batch_size, found.seed) == (32, 8, 7)
    assert found.evaluations.attacks[0].epsilons == (0.25,)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed", "--set seed: must be KEY=VALUE such as `models[0].args.width=8`, got 'seed'"),
        ("=1", "--set : must be KEY=VALUE"),
        ("a..b=1", "--set a..b: must be KEY=VALUE"),
        ("sed=1", "--set sed: sed: unknown key 'sed' - did you mean 'seed'?"),
        ("resorces.retries=1", "--set resorces.retries: resorces: unknown key 'resorces' - did you mean 'resources'?"),
        ("resources.timeout=0", "--set resources.timeout: resources.timeout: must be greater than 0, got 0"),
        ("models[2].name=x", "--set models[2].name: models[2].name: there is no [2]: `models` has 2 entries, counted"),
        ("models.name=x", "there is no 'name': `models` is a list: write models[0]"),
        ("name[0]=x", "--set name[0]: name[0]: there is no [0]: `name` is 'mine'"),
        ("seed=*x", "--set seed: seed: alias *x: aliases are refused"),
        ("seed=[", "--set seed: seed: not YAML: "),
        ("models[0].args.widht=1", "models[0].args.widht: unknown key 'widht' - did you mean 'width'?"),
    ],
)
def test_a_wrong_word_on_the_command_line_is_told_as_such(override: str, expected: str, tmp_path: Path) -> None:
    found = mistakes(GOOD, tmp_path, overrides=[override])
    assert len(found) == 1
    assert expected in found[0]
    assert found[0].startswith("--set ")


def test_a_word_on_the_command_line_mends_what_the_file_has_wrong(tmp_path: Path) -> None:
    assert suite("seed: x\n" + GOOD, tmp_path, overrides=["seed=1"]).seed == 1


def test_a_registered_model_is_checked_by_the_adapter_of_the_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Registry(suite_plugins.Net):
        uri: str
        tracking_uri: str | None = None

    monkeypatch.setitem(adapters._classes, "mlflow", Registry)
    old = "{name: other, adapter: t_net}"
    assert suite(change((old, "{name: other, registered: net/2}")), tmp_path).models[1].registered == "net/2"
    found = mistakes(change((old, "{name: other, registered: net, args: {tracking_url: x, uri: y}}")), tmp_path)
    assert "args.tracking_url: unknown key 'tracking_url' - did you mean 'tracking_uri'?" in found[0]
    assert "args.uri: is given by `registered:`, remove it" in found[1]
    assert (
        "must be the name of a registered model" in mistakes(change((old, "{name: o, registered: a/b/c}")), tmp_path)[0]
    )


def test_plugins_are_loaded_before_names_are_checked(tmp_path: Path) -> None:
    seen: list[tuple[Sequence[str], Path]] = []

    def load_plugins(entries: Sequence[str], folder: Path) -> None:
        seen.append((entries, folder))
        if entries == ["bad.module"]:
            raise PluginError("plugin 'bad.module' cannot be imported: ImportError()", "mend it")

    suite(GOOD + "plugins: [some.module]\n", tmp_path, load_plugins=load_plugins)
    assert seen == [(["some.module"], tmp_path)]
    found = mistakes(GOOD + "plugins: [some.module, bad.module]\n", tmp_path, load_plugins=load_plugins)
    assert found == ["s.yaml:19:24: plugins[1]: plugin 'bad.module' cannot be imported: ImportError() (mend it)"]


def test_load_reads_a_file_and_names_it_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(GOOD)
    assert load(Path("mine.yaml")).name == "mine"
    Path("mine.yaml").write_text(GOOD.replace("t_step", "t_stpe"))
    with pytest.raises(
        SuiteError, match=r"^mine\.yaml:11:16: evaluations\.attacks\[0\]\.attack: no attack 't_stpe' - did"
    ):
        load(Path("mine.yaml"))


PLACES = sorted((keys for keys in compose(GOOD, "s.yaml").value_places if keys), key=str)
JUNK = st.sampled_from(
    [None, True, -1, 0, 3, 0.5, 1e300, 10**80, "", "x", "t_step", "net", "../..", "a/b.py", [], {}, [[]], [{}]]
) | st.sampled_from([{"attack": "t_step"}, {"dataset": "t_dots", "args": {"path": ["x"]}}, {"norm": "l2", "x": {}}])


def put(data: dict[str, object], keys: Sequence[str | int], junk: object) -> None:
    """Replace a value, if an earlier replacement has not removed its place."""
    target: object = data
    try:
        for key in keys[:-1]:
            target = target[key]  # type: ignore[index]
        target[keys[-1]] = junk  # type: ignore[index]
    except (KeyError, IndexError, TypeError):
        return


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(PLACES), JUNK), min_size=1, max_size=3))
def test_whatever_stands_anywhere_is_accepted_or_told_with_a_place(
    tmp_path: Path, changes: list[tuple[tuple[str | int, ...], object]]
) -> None:
    data = compose(GOOD, "s.yaml").data
    for keys, junk in changes:
        put(data, keys, junk)
    told = ()
    try:
        found = suite(write(data), tmp_path)
    except SuiteError as error:
        told = error.mistakes
    assert told or suite(to_yaml(found), tmp_path) == found
    assert all(mistake.where.startswith("s.yaml:") and mistake.message for mistake in told)


@pytest.mark.parametrize("entry", ["{{name: m{}, adapter: t_nett}}", "{{nam: m, adapter: t_{}}}", "{{m{}: 1}}", "m{}"])
def test_a_megabyte_of_mistakes_is_told_in_seconds(entry: str, tmp_path: Path) -> None:
    models = "".join(f"  - {entry.format(number)}\n" for number in range(25_000))
    start = time.process_time()
    assert mistakes(f"name: x\nmodels:\n{models}", tmp_path)
    assert time.process_time() - start < 10


def test_a_baseline_is_a_model_of_the_suite_and_gives_ratios_as_columns(tmp_path: Path) -> None:
    good = change(("{name: other, adapter: t_net}", "{name: other, adapter: t_net, baseline: net}"))
    assert suite(good, tmp_path).models[1].baseline == "net"
    [found] = mistakes(good.replace("baseline: net", "baseline: nett"), tmp_path)
    assert found.endswith("models[1].baseline: no model 'nett' in this suite - did you mean 'net'?")


def test_an_attack_is_crafted_on_a_model_of_the_suite(tmp_path: Path) -> None:
    good = change(("{attack: t_lib.near, norm: l2}", "{attack: t_lib.near, norm: l2, crafted_on: net}"))
    assert suite(good, tmp_path).evaluations.attacks[1].crafted_on == "net"
    [found] = mistakes(good.replace("crafted_on: net", "crafted_on: nett"), tmp_path)
    assert found.endswith("attacks[1].crafted_on: no model 'nett' in this suite - did you mean 'net'?")


def test_a_probe_that_compares_needs_a_model_with_a_baseline(tmp_path: Path) -> None:
    paired = change(("probes: [t_count, {probe: t_count, name: again}]", "probes: [t_count, t_paired]"))
    [found] = mistakes(paired, tmp_path)
    assert "evaluations.probes[1]: 't_paired' compares a model with its baseline: add `baseline: NAME`" in found
    with_baseline = paired.replace("{name: other, adapter: t_net}", "{name: other, adapter: t_net, baseline: net}")
    assert suite(with_baseline, tmp_path).evaluations.probes[1].probe == "t_paired"


def test_metrics_by_groups_are_checked_and_may_be_columns(tmp_path: Path) -> None:
    groups = "leaderboard:\n  groups: [{by: land, metrics: [clean_accuracy, robust_accuracy/linf/worst/0.1]}]"
    good = change(("leaderboard:", groups), ("columns: [clean_accuracy,", "columns: [worst_group/land/clean_accuracy,"))
    assert suite(good, tmp_path).leaderboard.groups[0].by == "land"
    single = good.replace("worst_group/land/clean_accuracy", "group/land/FR/clean_accuracy")
    assert suite(single, tmp_path).leaderboard.columns[0] == "group/land/FR/clean_accuracy"
    [found] = mistakes(good.replace("metrics: [clean_accuracy", "metrics: [clean_acuracy"), tmp_path)[:1]
    assert "leaderboard.groups[0].metrics[0]: this suite yields no metric 'clean_acuracy' - did you mean" in found
    [found] = mistakes(good.replace("worst_group/land", "worst_group/lan"), tmp_path)
    assert (
        "leaderboard.columns[0]: this suite yields no metric 'worst_group/lan/clean_accuracy' - did you mean" in found
    )
    twice = good.replace("groups: [", "groups: [{by: land}, ")
    assert "the column 'land' stands twice" in mistakes(twice, tmp_path)[0]
