"""What every registered attack promises (bench.contracts.Attack), on a small net and with small budgets."""

import functools
import random as python_random
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from attacks.autoattack import AutoAttack
from attacks.minmax_universal import MinMaxUniversal
from attacks.standing import StandingAttack
from bench import plugins
from bench.contracts import Attack, Bounds, Budget, Classifier, Goal, Gradients, JointAttack, Knowledge, Samples
from bench.contracts import attacks as registry
from bench.errors import PluginError
from bench.measure import attacked
from bench.metering import Metered, Passes
from tests.attacks import digits
from tests.contracts.examples import EXAMPLES

plugins.load_built_in()

OURS = [name for name in registry if registry.get(name).__module__.startswith("attacks.")]  # not those of other tests
REFUSED = [name for name in OURS if registry.get(name).summary().startswith("Refused: ")]
NUMBA = [name for name in OURS if "numba" in registry.get(name).requires]
USABLE = [name for name in OURS if name not in REFUSED + NUMBA and not registry.get(name).tokens]
FIRST = [name for name in USABLE if not name.startswith("foolbox.")]
LIMITED = [name for name in FIRST if not issubclass(registry.get(name), JointAttack)]
EPSILON = {"linf": 0.1, "l2": 0.6, "l1": 3.0, "l0": 9.0}

# Small budgets, so that all attacks together run in a minute.
BUDGET: dict[str, dict[str, Any]] = {
    "apgd_ce": {"steps": 10},
    "apgd_dlr": {"steps": 10},
    "apgd_t": {"steps": 5, "targets": 2},
    "cw": {"steps": 10, "binary_search": 3},
    "ddn": {"steps": 15},
    "ead": {"steps": 10, "binary_search": 3},
    "fmn": {"steps": 15},
    "minmax_ensemble": {"steps": 5},
    "minmax_transformations": {"steps": 5},
    "minmax_universal": {"steps": 5, "group": 4},
    "patch": {"steps": 5, "positions": 2},
    "restricted": {"args": {"steps": 5}},
    "restricted_minimal": {"args": {"steps": 10, "binary_search": 3}},
    "simba": {"queries": 60},
    "transfer": {"args": {"steps": 5}},
    "fab": {"steps": 5},
    "fab_t": {"steps": 5, "targets": 2},
    "spatial": {"angles": 5, "shifts": 3},
    "square": {"queries": 60},
    "substitute": {"args": {"steps": 5}, "images": 20, "rounds": 2, "epochs": 3, "hidden": [16]},
    "pgd": {"steps": 5},
    "orthogonal_pgd": {"steps": 5},
    "foolbox.binarization_refinement": {},
    "foolbox.boundary": {"steps": 30},
    "foolbox.ddn": {"steps": 10},
    "foolbox.ead": {"steps": 10, "binary_search_steps": 2, "initial_const": 1.0},
    "foolbox.gaussian_blur": {"steps": 10},
    "foolbox.gen": {"steps": 4, "population": 4},
    "foolbox.hop_skip_jump": {"steps": 2, "initial_gradient_eval_steps": 8, "max_gradient_eval_steps": 16},
    "foolbox.l0_fmn": {"steps": 80},
    "foolbox.l1_fmn": {"steps": 10},
    "foolbox.l2_fmn": {"steps": 10},
    "foolbox.linf_fmn": {"steps": 10},
    "foolbox.l2_carlini_wagner": {"steps": 10, "binary_search_steps": 2, "stepsize": 0.1, "initial_const": 1.0},
    "foolbox.linear_search_blended_uniform_noise": {"steps": 10, "directions": 20},
    "foolbox.linear_search_contrast_reduction": {"steps": 10},
    "foolbox.salt_and_pepper_noise": {"steps": 20},
    "foolbox.virtual_adversarial": {"steps": 3, "xi": 0.01},
}


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """AutoAttack's own attacks in its own order, each with the budget above."""
    published = AutoAttack.attacks

    def parts(self: AutoAttack) -> tuple[StandingAttack, ...]:
        return tuple(part.model_copy(update=BUDGET[part.name]) for part in published(self))

    monkeypatch.setattr(AutoAttack, "attacks", parts)


Whole = dict[str, tuple[torch.Tensor, Passes]]


def attack(name: str, model: Classifier | None = None) -> Attack:
    """With a small budget; one that learns has learnt about the model."""
    made = registry.build(name, BUDGET.get(name, {}))
    return made.restore(made.fit(model or digits.model(), lessons(model or digits.model()), 0)) if made.fits else made


def lessons(model: Classifier) -> Samples:
    """Random inputs of the model, for attacks that learn about it."""
    low, high = model.bounds
    x = torch.rand(30, *model.input_shape, generator=torch.Generator().manual_seed(1)) * (high - low) + low
    names = ("",) * model.classes
    labels = np.zeros(30, dtype=np.int64)
    return Samples(labels, lambda i: x[torch.from_numpy(i)], tuple(model.input_shape), model.bounds, names, "lessons")


def run(name: str, x: torch.Tensor, y: torch.Tensor, start: int = 0, bounds: Bounds = Bounds(0, 1)) -> torch.Tensor:  # noqa: B008
    return metered(name, x, y, start, bounds)[0]


def metered(
    name: str,
    x: torch.Tensor,
    y: torch.Tensor,
    start: int = 0,
    bounds: Bounds = Bounds(0, 1),  # noqa: B008
) -> tuple[torch.Tensor, Passes]:
    """Its result, and the passes that each sample is charged."""
    model, passes = digits.model(bounds), Passes.zero(len(x))
    made = attack(name, model)
    width = 1.0 if made.norm == "l0" else bounds.high - bounds.low
    epsilon = None if made.minimal else EPSILON[made.norm] * width
    random = digits.streams(len(x), start)
    return made.run(Metered(model, passes, np.arange(len(x))), x, y, epsilon, random), passes


def distance(a: torch.Tensor, b: torch.Tensor, norm: str) -> torch.Tensor:
    order = {"l0": 0, "l1": 1, "l2": 2, "linf": float("inf")}[norm]
    return torch.linalg.vector_norm((a.double() - b.double()).flatten(1), order, dim=1)


@pytest.fixture(scope="module")
def whole() -> Whole:
    """Each attack's result and passes on one batch of eight, made once."""
    return {}


def result(name: str, whole: Whole) -> torch.Tensor:
    if name not in whole:
        whole[name] = metered(name, *digits.right(8))
    return whole[name][0]


@pytest.mark.parametrize("name", USABLE)
def test_stays_in_bounds_and_in_the_ball(name: str, whole: Whole) -> None:
    x, _ = digits.right(8)
    adversarial = result(name, whole)
    assert adversarial.shape == x.shape
    assert adversarial.dtype == x.dtype
    assert not adversarial.requires_grad
    assert adversarial.isfinite().all()
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    made = attack(name)
    if not made.minimal:
        assert distance(adversarial, x, made.norm).max() <= EPSILON[made.norm] + 1e-7


@pytest.mark.parametrize("name", USABLE)
def test_a_split_batch_gives_the_same_results_for_the_same_passes(name: str, whole: Whole) -> None:
    x, y = digits.right(8)
    (first, cost), (second, more) = metered(name, x[:4], y[:4]), metered(name, x[4:], y[4:], start=4)
    halves = torch.cat([first, second])
    together = result(name, whole)
    verdicts = [digits.module()(a).argmax(1) != y for a in (halves, together)]
    near = distance(halves, together, "linf") < 2e-3  # sums are rounded differently in batches of other sizes
    assert int(near.sum()) >= 7, distance(halves, together, "linf")
    assert torch.equal(*verdicts)
    spent = whole[name][1]
    for kind in ("forwards", "backwards"):
        apart = np.concatenate([getattr(cost, kind), getattr(more, kind)])
        # HopSkipJump's bisections go on until the last of a block has settled
        same = np.isclose(apart, getattr(spent, kind), atol=4 if name == "foolbox.hop_skip_jump" else 1e-8)
        assert same[near.numpy()].sum() >= near.sum() - 1, (kind, apart, getattr(spent, kind))


@pytest.mark.parametrize("name", USABLE)
def test_is_deterministic_and_leaves_model_inputs_and_generators_alone(name: str, whole: Whole) -> None:
    x, y = digits.right(8)
    expected = result(name, whole)
    net, kept = digits.module(), x.clone()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state(), python_random.getstate()
    again = run(name, x, y)
    assert torch.equal(again, expected)
    assert torch.equal(x, kept)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not net.training
    assert torch.equal(torch.get_rng_state(), states[0])
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), states[1], strict=True))
    assert python_random.getstate() == states[2]


@pytest.mark.parametrize("name", USABLE)
def test_takes_an_empty_batch_and_a_batch_of_one(name: str) -> None:
    x, y = digits.right(1)
    assert run(name, x, y).shape == x.shape
    assert run(name, x[:0], y[:0]).shape == (0, *x.shape[1:])


@pytest.mark.parametrize("name", USABLE)
def test_means_the_same_in_other_bounds(name: str, whole: Whole) -> None:
    bounds = Bounds(-1.0, 3.0)
    x, y = digits.right(8, bounds)
    adversarial = run(name, x, y, bounds=bounds)
    made = attack(name)
    assert adversarial.min() >= bounds.low
    assert adversarial.max() <= bounds.high
    if not made.minimal:
        assert distance(adversarial, x, made.norm).max() <= (1 if made.norm == "l0" else 4) * EPSILON[made.norm] + 4e-7
    broken = digits.model(bounds).logits(adversarial).argmax(1) != y
    reference = digits.module()(result(name, whole)).argmax(1) != y
    assert int((broken == reference).sum()) >= 6  # a descent in other units is rounded differently


@pytest.mark.parametrize("name", USABLE)
def test_takes_samples_that_are_misclassified_already(name: str) -> None:
    x, y = digits.right(4)
    y = (y + 1) % 10
    made = attack(name)
    moved = run(name, x, y)
    assert moved.isfinite().all()
    if not made.minimal:
        assert distance(moved, x, made.norm).max() <= EPSILON[made.norm] + 1e-6


def records(name: str, model: Classifier, x: torch.Tensor, y: torch.Tensor, **wanted: Any) -> dict[str, Any]:
    """What the engine records of the attack on these samples. wanted: its goal and its budget."""
    made = attack(name, model)
    data = Samples(y.numpy(), lambda i: x[torch.from_numpy(i)], tuple(x.shape[1:]), model.bounds, ("",) * 10, "digest")
    return attacked(made, (EPSILON[made.norm],), "t", model, data, np.arange(len(x)), 0, **wanted).to_pydict()


class Fragile(digits.DigitsNet):
    """NaN for every input whose corner, which is black in every digit here, is not nearly black."""

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        good = x.flatten(1)[:, 0] < 0.02
        return torch.where(good[:, None], super().logits(x), torch.nan)


@pytest.mark.parametrize("name", FIRST)
def test_a_model_that_returns_nan_neither_stops_it_nor_lets_it_out_of_the_ball(name: str) -> None:
    x, y = digits.right(6)
    assert bool((x.flatten(1)[:, 0] == 0).all())
    found = records(name, Fragile(digits.module()), x, y)
    assert len(found["broken"]) == 6
    for far, broken in zip(found["distance"], found["broken"], strict=True):
        assert far is None or np.isfinite(far)
        assert not broken[0] or far <= EPSILON[attack(name).norm] + 1e-6


@pytest.mark.parametrize("name", FIRST)
def test_half_precision_is_refused_before_any_pass(name: str) -> None:
    x, y = digits.right(3)
    with pytest.raises(PluginError, match=r"(?s)float16.*float32"):
        records(name, digits.model(), x.half(), y)


def outcome(name: str, model: Classifier, x: torch.Tensor, y: torch.Tensor) -> tuple[dict[str, Any], str]:
    """The records, or what a refusal says."""
    try:
        return records(name, model, x, y), ""
    except PluginError as problem:
        return {}, str(problem)


@functools.cache
def family(name: str) -> Classifier:
    adapter, weights = EXAMPLES[name]()
    return adapter.build(weights)


def digest(model: Classifier) -> list[torch.Tensor]:
    """Copies of all parameters and buffers, and the modes."""
    if model.module is None:
        return []
    modes = torch.tensor([part.training for part in model.module.modules()])
    return [modes, *(tensor.clone() for tensor in (*model.module.parameters(), *model.module.buffers()))]


def copes(name: str, model: Classifier) -> None:
    """Every promise at once: of three samples the last has a label that the model does not give it."""
    x = torch.rand(3, *model.input_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = model.logits(x).argmax(1)
    y[2] = (y[2] + 1) % model.classes
    before = digest(model)
    found, told = outcome(name, model, x, y)
    assert all(torch.equal(*pair) for pair in zip(digest(model), before, strict=True)), name
    blind = registry.get(name).knowledge is Knowledge.WHITE_BOX and model.gradients is Gradients.NONE
    if told:
        said = ["classes"] * (model.classes < 4) + ["stochastic"] * model.stochastic
        said += ["nor a model it was made from", "reads a torch module", "texts"] + ["images"] * (x.ndim != 4)
        assert blind or any(words in told for words in said), f"{name}: {told}"
        return
    assert [verdict is not None for verdict in found["broken"]] == [True] * 3, name
    assert not any(found["escaped"]), name
    assert found["distance"][2] == 0 or model.stochastic, name
    for far, broken in zip(found["distance"], found["broken"], strict=True):
        assert not broken[0] or far <= EPSILON[attack(name).norm] + 1e-6, name
    alone, told = outcome(name, model, x[:1], y[:1])
    assert not told, f"{name}, a batch of one: {told}"
    if not model.stochastic and not isinstance(attack(name), MinMaxUniversal):  # its samples share a perturbation
        assert alone["broken"][0] == found["broken"][0], name
    made = attack(name, model)
    radius = None if made.minimal else EPSILON[made.norm]
    none = made.run(model, x[:0], y[:0], radius, digits.streams(0))
    assert none.shape == (0, *x.shape[1:]), name
    _, told = outcome(name, model, x.half(), y)
    assert "float16" in told, name


FAMILIES = [name for name in EXAMPLES if name != "lstm"]  # which takes tokens: tests/adapters/test_texts.py


@pytest.mark.parametrize("name", FAMILIES)
def test_every_attack_of_ours_copes_with_every_family_or_says_why_not(name: str) -> None:
    for attack_name in FIRST:
        copes(attack_name, family(name))


@pytest.mark.parametrize("place", range(len(FAMILIES)))
def test_every_attack_of_foolbox_copes_with_some_family_or_says_why_not(place: int) -> None:
    """Dealt out in turn; all of them with all families is a test of its own, and slow."""
    for attack_name in [name for name in USABLE if name not in FIRST][place :: len(FAMILIES)]:
        copes(attack_name, family(FAMILIES[place]))


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_attack_of_foolbox_copes_with_every_family_or_says_why_not(name: str) -> None:
    for attack_name in [known for known in USABLE if known not in FIRST]:
        copes(attack_name, family(name))


@pytest.mark.parametrize("name", USABLE)
def test_its_threat_model_has_no_gap(name: str) -> None:
    made = attack(name)
    assert made.allowance.stated or made.exhaustive, "say `allowance`, or be `exhaustive`"


@pytest.mark.parametrize("name", [name for name in LIMITED if registry.build(name, {}).takes_targets])
def test_with_a_target_it_breaks_a_sample_only_by_reaching_it(name: str) -> None:
    x, y = digits.right(6)
    found = records(name, digits.model(), x, y, goal=Goal.RUNNER_UP)
    aims = digits.module()(x).scatter(1, y[:, None], -torch.inf).argmax(1).tolist()
    for broken, answer, aim in zip(found["broken"], found["adversarial_prediction"], aims, strict=True):
        assert not broken[0] or answer == aim
    assert not any(found["escaped"])


@pytest.mark.parametrize("name", sorted(set(FIRST) - set(LIMITED)))
def test_an_attack_over_several_domains_takes_neither_goal_nor_budget(name: str) -> None:
    x, y = digits.right(2)
    for wanted in ({"goal": Goal.RANDOM}, {"budget": Budget(queries=4)}):
        with pytest.raises(PluginError, match="takes neither goal nor budget"):
            records(name, digits.model(), x, y, **wanted)


@pytest.mark.parametrize("name", LIMITED)
def test_it_is_held_to_its_budget(name: str) -> None:
    x, y = digits.right(5)
    found = records(name, digits.model(), x, y, budget=Budget(queries=4, gradients=3))
    assert max(found["forwards"]) <= 4
    assert max(found["backwards"]) <= 3
    assert not any(found["escaped"])


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_attack_says_why_and_what_to_use(name: str) -> None:
    with pytest.raises(ValidationError, match=rf"(?s){name} is refused: it .*use foolbox\."):
        registry.build(name, {})


@pytest.mark.parametrize("name", OURS)
def test_has_a_help_line_and_norms(name: str) -> None:
    cls = registry.get(name)
    assert cls.summary().endswith(".")
    assert cls.norms
    assert "torch" in cls.requires
