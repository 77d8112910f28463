"""How each mistake in a suite is told: once, at its place, with what would be right."""

import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.errors import SuiteError
from bench.suite import to_yaml
from bench.suite_yaml import compose, write
from tests.bench.test_suite import GOOD, change, mistakes, suite

# what stands in the good suite | what is written in its place (⏎: a new line) | a part of what is told
MISTAKES = """
attack: t_lib.near | attack: t_endless, epsilons: [1] | budget: is missing: 't_endless' says neither how many
attack: t_lib.near | attack: t_endless, epsilons: [1], budget: {queries: 5}, goal: random | 't_endless' needs all
args: {steps: 5} | goal: nearest | goal: must be
args: {steps: 5} | budget: {queries: 0} | budget.queries: must be at least 1, got 0
args: {steps: 5} | budget: {quries: 1, queries: 2} | budget.quries: unknown key 'quries' - did you mean 'queries'?
args: {steps: 5} | budget: {} | a budget limits `gradients`, `queries` or `seconds`: give one of them
name: mine | name: My Suite | 1:7: name: must be lower-case letters, digits, '-' and '_'
name: mine | name: 3 | 1:7: name: must be text, got 3 (put it in quotes)
evaluations: | evalutions: | 9:1: evalutions: unknown key 'evalutions' - did you mean 'evaluations'?
name: mine | nam: mine | 1:1: nam: unknown key 'nam' - did you mean 'name'? (keys here: name, seed,
name: mine | name: mine⏎seed: '1' | 2:7: seed: must be a whole number, got '1' (numbers are written
name: mine | name: mine⏎seed: 010 | 2:7: seed: must be a whole number, got '010'
name: mine | name: mine⏎seed: 1.5 | 2:7: seed: must be a whole number, got 1.5
name: mine | name: mine⏎seed: -1 | 2:7: seed: must be at least 0, got -1
name: mine | name: mine⏎name: b | 2:1: name: the key 'name' stands twice (first in line 1): remove one
limit: 100 | limit: 0 | 8:30: datasets[0].limit: must be greater than 0, got 0
limit: 100 | stratified: yes | 8:35: datasets[0].stratified: must be true or false, got 'yes'
limit: 100 | split: tset | 8:30: datasets[0].split: 't_dots' has no split 'tset' - did you mean 'test'?
attack: t_step | attack: t_stop | 11:16: evaluations.attacks[0].attack: no attack 't_stop' - did you mean
attack: t_step, | | 11:7: evaluations.attacks[0].attack: is missing: The attack (`gauntlet list attacks`)
norm: linf, | | 11:7: evaluations.attacks[0].norm: is missing: How distance is measured: l0, l1, l2 or
norm: linf | norm: linff | 'linff' - did you mean 'linf'? (it has: linf, l2)
norm: l2} | norm: linf} | 12:34: evaluations.attacks[1].norm: 't_lib.near' has no norm 'linf' (it has: l2)
.1] | 0] | epsilons[2]: must be greater than 0, got 0
.1] | 8/255] | epsilons: 0.0313725 stands twice: remove one
.1] | .03137255] | are both 0.0313725 in metric names (6 digits): remove one
.1] | x] | epsilons[2]: must be a number, got 'x'
[8/255, 1e-3, .1] | .1 | epsilons: must be a list (`[a, b]`, or one `- ...` on each line), got 0.1
epsilons: [8/255, 1e-3, .1], | | epsilons: is missing: 't_step' needs the radii of the ball
epsilons | epsilon | unknown key 'epsilon' - did you mean 'epsilons'?
steps: 5 | steps: 0 | args.steps: must be at least 1, got 0
steps: 5 | step: 5 | args.step: unknown key 'step' - did you mean 'steps'? (keys here: norm, steps,
steps: 5 | norm: l2 | args.norm: belongs beside `attack:`, not under `args:`
args: {steps: 5} | steps: 5 | attacks[0].steps: is an argument of 't_step': put it under `args:`
args: {steps: 5} | args: 5 | attacks[0].args: must be a mapping (`key: value`), got 5
width: 8 | width: 8.5 | 5:19: models[0].args.width: must be a whole number, got 8.5
width: 8 | size: min | size: must be a whole number, got 'min' (numbers are written like 3, .5, 1e-3
width: 8 | bounds: [0, x] | args.bounds[1]: must be a number, got 'x'
width: 8 | data: {dataset: t_dost} | args.data.dataset: no dataset 't_dost' - did you mean 't_dots'?
width: 8 | weights: w.pt | args.weights: no file 'w.pt'
args: {width: 8, rate: 1/4} | registered: x | has one of `adapter:` (built here), `recipe:` (trained here) and `regi
{name: other, adapter: t_net} | {name: other} | 6:5: models[1]: a model has one of `adapter:`
{name: other, adapter: t_net} | other | 6:5: models[1]: must be a mapping (`key: value`), got 'other'
name: other | name: net | 6:12: models[1].name: two models are called 'net' (the other: line 3): add a `name:`
{probe: t_count, name: again} | t_count | probes[1].name: two evaluations are called 't_count' (the other
name: again | name: a/b | probes[1].name: must be letters, digits, '_', '.' and '-', and start with
name: again | name: worst | probes[1].name: 'worst' is the engine's own: add a different `name:`
[t_count, | [t_cuont, | 13:12: evaluations.probes[0].probe: no probe 't_cuont' - did you mean 't_count'?
args: {weight: 2} | args: {} | detectors[0].args.weight: is missing
split: train | split: tra | outliers.split: 't_dots' has no split 'tra' - did you mean 'train'?
attack: t_lib.near | attack: t_broken, epsilons: [1] | attack: returns NaN: use 't_step' instead
linf/worst/0.1 | linf/worst/0.2 | 17:29: leaderboard.columns[1]: this suite yields no metric 'robust_accurac
t_count/all | t_count/al | 18:12: leaderboard.rank_by: this suite yields no metric 't_count/al' - did you mean
t_count/all | t_cou | rank_by: this suite yields no metric 't_cou' - did you mean 't_count/all'?
t_count/all | speed | this suite yields no metric 'speed' (it yields: clean_accuracy, ece,
[clean_accuracy, | [median_distance/l2/near, | 'median_distance/l2/near' stands twice: remove one
name: mine | name: mine⏎resources: {gpus_per_worker: .3} | must be 0, .2, .25, .5 or a whole number
name: mine | name: mine⏎resources: {nodes: {tier: 'in('}} | must be VALUE, !VALUE, in(VALUE, VALUE) or !in(VALUE, VALUE)
name: mine | name: mine⏎resources: {nodes: {ti er: a}} | must be a label of nodes
name: mine | name: mine⏎resources: {nodes: {ray.io/node-id: a}} | of Ray's own labels there are
name: mine | name: mine⏎resources: {nodes: {ray.io/acelerator-type: a}} | did you mean 'accelerator-type'?
name: mine | name: mine⏎resources: {nodes: {tier: 3}} | must be text, got 3
name: mine | name: mine⏎resources: {timeout: 0} | 2:22: resources.timeout: must be greater than 0, got 0
name: mine | name: mine⏎plugins: [x.py] | 2:11: plugins[0]: plugin 'x.py' cannot be loaded here
"""
# what `--set` is given | a part of what is told
OVERRIDES = """
seed | --set seed: must be KEY=VALUE such as `models[0].args.width=8`, got 'seed'
=1 | --set : must be KEY=VALUE
a..b=1 | --set a..b: must be KEY=VALUE
sed=1 | --set sed: sed: unknown key 'sed' - did you mean 'seed'?
resorces.retries=1 | --set resorces.retries: resorces: unknown key 'resorces' - did you mean 'resources'?
resources.timeout=0 | --set resources.timeout: resources.timeout: must be greater than 0, got 0
models[2].name=x | --set models[2].name: models[2].name: there is no [2]: `models` has 2 entries, counted
evaluation.attacks[0].norm=l2 | [0].norm: there is no `evaluation` - did you mean 'evaluations'?
evaluations.atacks[0].norm=l2 | there is no `evaluations.atacks` - did you mean 'attacks'?
models.name=x | there is no 'name': `models` is a list: write models[0]
name[0]=x | --set name[0]: name[0]: there is no [0]: `name` is 'mine'
seed=*x | --set seed: seed: alias *x: aliases are refused
seed=[ | --set seed: seed: not YAML:
models[0].args.widht=1 | models[0].args.widht: unknown key 'widht' - did you mean 'width'?
"""


def table(text: str) -> list[list[str]]:
    return [[cell.strip().replace("⏎", "\n") for cell in line.split(" |")] for line in text.strip().split("\n")]


@pytest.mark.parametrize(("old", "new", "expected"), table(MISTAKES))
def test_a_mistake_is_told_once_with_its_place_and_what_would_be_right(
    old: str, new: str, expected: str, tmp_path: Path
) -> None:
    [found] = mistakes(change((old, new)), tmp_path)
    assert expected in found
    assert found.startswith("s.yaml:")


def test_a_long_list_of_metrics_is_cut_and_says_so(tmp_path: Path) -> None:
    count = len(suite(GOOD, tmp_path).metric_names())
    [found] = mistakes(change(("t_count/all", "speed")), tmp_path)
    assert found.endswith(f", and {count - 40} more)")


@pytest.mark.parametrize(("override", "expected"), table(OVERRIDES))
def test_a_wrong_word_on_the_command_line_is_told_as_such(override: str, expected: str, tmp_path: Path) -> None:
    [found] = mistakes(GOOD, tmp_path, overrides=[override])
    assert expected in found
    assert found.startswith("--set ")


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


def test_a_word_on_the_command_line_mends_what_the_file_has_wrong(tmp_path: Path) -> None:
    assert suite("seed: x\n" + GOOD, tmp_path, overrides=["seed=1"]).seed == 1


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


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
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
    start = time.thread_time()
    assert mistakes(f"name: x\nmodels:\n{models}", tmp_path)
    assert time.thread_time() - start < 30
