"""What the attacks of a suite need beyond right arguments, and what an attack that makes outliers may not be."""

from pathlib import Path

import pytest

import attacks.cw
import attacks.fgsm
import attacks.minmax_ensemble
import attacks.minmax_transformations
import attacks.minmax_universal
import attacks.pgd
import attacks.restricted
import attacks.substitute  # noqa: F401 - all of them register attacks
from bench.errors import SuiteError
from bench.suite import AttackSpec, Suite, parse
from bench.suite_parts import CrafterSpec
from tests.bench import suite_plugins  # noqa: F401 - registers the model and the data

TEXT = """\
name: joint
models: [{{name: net, adapter: t_net}}]
datasets: [{{dataset: t_dots, limit: 100}}]
evaluations:
  attacks: [{attack}]
resources: {{batch_size: {block}}}
leaderboard: {{columns: {columns}}}
"""


def suite(folder: Path, attack: str, block: int = 100, columns: str = "[clean_accuracy]") -> Suite:
    return parse(TEXT.format(attack=attack, block=block, columns=columns).encode(), "s.yaml", folder)


def mistake(folder: Path, attack: str, block: int = 100) -> str:
    with pytest.raises(SuiteError) as raised:
        suite(folder, attack, block)
    [found] = map(str, raised.value.mistakes)
    return found


def test_tasks_must_hold_whole_groups(tmp_path: Path) -> None:
    attack = "{attack: minmax_universal, norm: linf, epsilons: [.1], args: {group: 6}}"
    assert suite(tmp_path, attack, block=96).resources.batch_size == 96
    found = mistake(tmp_path, attack)
    assert "attacks[0].attack: 'minmax_universal' moves 6 samples together" in found
    assert "`resources.batch_size` has to be a multiple of that, and is 100 (96 is)" in found


def test_an_attack_over_domains_takes_one_epsilon(tmp_path: Path) -> None:
    found = mistake(tmp_path, "{attack: minmax_ensemble, norm: linf, epsilons: [.1, .2]}")
    assert "attacks[0].epsilons: 'minmax_ensemble' takes one: name the attack once for each" in found


def test_a_budget_of_each_sample_and_a_target_say_nothing_of_many_domains(tmp_path: Path) -> None:
    attack = "{attack: minmax_ensemble, norm: linf, epsilons: [.1]"
    assert "budget: 'minmax_ensemble' takes no budget" in mistake(tmp_path, f"{attack}, budget: {{queries: 10}}}}")
    assert "goal: 'minmax_ensemble' takes no goal" in mistake(tmp_path, f"{attack}, goal: random}}")


def test_domains_are_columns_where_they_are_known_beforehand(tmp_path: Path) -> None:
    args = "{transformations: [identity, {kind: rotate, by: -15}]}"
    attack = f"{{attack: minmax_transformations, name: mm, norm: linf, epsilons: [.1], args: {args}}}"
    columns = (
        "[attack_success_all/linf/mm/0.1, attack_success_in/linf/mm/identity/0.1, domain_weight/linf/mm/rotate_-15]"
    )
    assert len(suite(tmp_path, attack, columns=columns).leaderboard.columns) == 3
    wrong = "{attack: minmax_transformations, norm: linf, epsilons: [.1], args: {transformations: [{kind: rotat}]}}"
    assert "transformations" in mistake(tmp_path, wrong)
    assert "rotate" in mistake(tmp_path, wrong)


def test_an_attack_that_learns_is_told_what_from_and_crafts_on_its_own(tmp_path: Path) -> None:
    attack = "{attack: substitute, norm: linf, epsilons: [.1], args: {attack: fgsm}"
    on = "fit_on: {dataset: t_dots, split: train}"
    found = suite(tmp_path, f"{attack}, {on}}}", columns="[fit_queries/substitute]")
    assert found.evaluations.attacks[0].fit_on is not None
    assert "crafted_on: 'substitute' crafts on a model of its own" in mistake(tmp_path, f"{attack}, crafted_on: net}}")
    other = f"{{attack: minmax_ensemble, norm: linf, epsilons: [.1], {on}}}"
    assert "fit_on: 'minmax_ensemble' is not fitted: remove it" in mistake(tmp_path, other)


def test_gradients_of_another_precision_are_for_attacks_that_ask_a_copy_of_the_model(tmp_path: Path) -> None:
    attack = "{{attack: {}, norm: linf, epsilons: [.1], gradient_passes: {}}}"
    assert suite(tmp_path, attack.format("pgd", "bfloat16")).evaluations.attacks[0].gradient_passes == "bfloat16"
    found = mistake(tmp_path, attack.format("fgsm", "compiled"))
    assert "attacks[0].gradient_passes: 'fgsm' asks the model itself: remove it, or take one of " in found
    assert "gradient_passes: must be 'float32', 'bfloat16' or 'compiled'" in mistake(
        tmp_path, attack.format("fgsm", "float64")
    )


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ("{attack: pdg}", "args.attack: no attack 'pdg' - did you mean 'pgd'?"),
        ("{args: {stepz: 3}}", "args.args.stepz: unknown key 'stepz' - did you mean 'steps'?"),
        ("{attack: fgsm, args: {steps: 3}}", "args.args.steps: unknown key 'steps'"),
        ("{attack: cw}", "args.attack: 'cw' has no norm 'linf' (it has: l2)"),
    ],
)
def test_an_attack_inside_another_is_checked_at_its_place(args: str, expected: str, tmp_path: Path) -> None:
    attack = f"{{attack: restricted, norm: linf, epsilons: [.1], args: {args}}}"
    assert f"attacks[0].{expected}" in mistake(tmp_path, attack)


CRAFTED = TEXT.replace("attacks: [{attack}]", "detectors: [{{detector: t_surprise, args: {{weight: 2}}, {attack}}}]")


@pytest.mark.parametrize(
    ("crafter", "expected"),
    [
        ("{attack: pdg, norm: linf, epsilons: [.1]}", "adversarial.attack: no attack 'pdg' - did you mean 'pgd'?"),
        ("{attack: pgd, norm: linf}", "adversarial.epsilons: is missing: 'pgd' needs the radii of the ball"),
        ("{attack: pgd, norm: linf, epsilons: [.1, .2]}", "adversarial.epsilons: takes one: name the detector once"),
        ("{attack: pgd, norm: linf, epsilons: [.1], keep: 8bit}", "adversarial.keep: unknown key 'keep' (keys here:"),
        ("{attack: pgd, norm: linf, epsilons: [.1], goal: random}", "adversarial.goal: unknown key 'goal'"),
        ("{attack: pgd, norm: linf, epsilons: [.1], name: p}", "adversarial.name: unknown key 'name'"),
        ("{attack: pgd, norm: linf, epsilons: [.1], steps: 3}", "adversarial.steps: is an argument of 'pgd': put it"),
        (
            "{attack: substitute, norm: linf, epsilons: [.1], args: {attack: fgsm}}",
            "adversarial.attack: 'substitute' learns about the model first",
        ),
        (
            "{attack: minmax_universal, norm: linf, epsilons: [.1]}",
            "adversarial.attack: 'minmax_universal' looks for what several domains share",
        ),
    ],
)
def test_an_attack_that_makes_outliers_has_nothing_that_would_be_ignored(
    crafter: str, expected: str, tmp_path: Path
) -> None:
    text = CRAFTED.format(attack=f"adversarial: {crafter}", block=100, columns="[clean_accuracy]")
    with pytest.raises(SuiteError) as raised:
        parse(text.encode(), "s.yaml", tmp_path)
    [found] = map(str, raised.value.mistakes)
    assert f"detectors[0].{expected}" in found


def test_an_attack_that_makes_outliers_is_that_attack_of_the_suite() -> None:
    entry = {"attack": "pgd", "norm": "linf", "epsilons": (0.1,), "args": {"steps": 3}}
    assert CrafterSpec.model_validate(entry).attack_spec == AttackSpec.model_validate(entry)
