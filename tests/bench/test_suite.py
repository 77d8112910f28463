"""Suites: what is accepted, and what it becomes. How mistakes are told is in test_suite_mistakes.py."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from bench import suite as suites
from bench.contracts import Norm, adapters
from bench.errors import PluginError, SuiteError
from bench.suite import Suite, load, parse, to_yaml
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
