"""AutoAttack and its parts against the public implementation, and what the parts promise each other."""

import importlib.util
import logging

import pytest
import torch

from attacks.apgd import Ascent, checkpoints
from attacks.apgd_ce import AutoPGDCrossEntropy, AutoPGDLogitsRatio
from attacks.apgd_t import AutoPGDTargeted
from attacks.autoattack import AutoAttack
from attacks.fab import FastAdaptiveBoundary, FastAdaptiveBoundaryTargeted
from attacks.losses import ce, dlr, dlr_targeted, margin
from attacks.square import SquareAttack
from attacks.standing import StandingAttack
from bench.contracts import Norm
from bench.errors import PluginError
from tests.attacks import digits

ORACLE = importlib.util.find_spec("pyautoattack") is not None
EPSILON = {Norm.LINF: 0.1, Norm.L2: 0.6, Norm.L1: 2.0}
NAMES = {Norm.LINF: "Linf", Norm.L2: "L2", Norm.L1: "L1"}
TARGETS = 3  # of the nine classes that might be aimed at: the same code a third as often


def parts(norm: Norm) -> dict[str, StandingAttack]:
    return {
        "apgd-ce": AutoPGDCrossEntropy(norm=norm), "apgd-dlr": AutoPGDLogitsRatio(norm=norm),
        "apgd-t": AutoPGDTargeted(norm=norm, targets=TARGETS),
        "fab-t": FastAdaptiveBoundaryTargeted(norm=norm, targets=TARGETS),
        "fab": FastAdaptiveBoundary(norm=norm), "square": SquareAttack(norm=norm, queries=300),
    }  # fmt: skip


@pytest.mark.skipif(not ORACLE, reason="pip install --no-deps pyautoattack==0.2.0")
@pytest.mark.parametrize("norm", list(EPSILON))
@pytest.mark.parametrize("name", ["apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "fab", "square"])
def test_a_part_breaks_what_the_public_one_breaks(name: str, norm: Norm) -> None:
    from pyautoattack import AutoAttack as Public

    logging.getLogger("auto-attack").setLevel(logging.ERROR)
    n = 24
    x, y = digits.right(n)
    theirs = Public(digits.module(), norm=NAMES[norm], eps=EPSILON[norm], version="standard", seed=0)
    theirs.attacks_to_run, theirs.square.n_queries = [name], 300
    theirs.apgd.n_restarts = 5 if norm is Norm.L1 else 1
    theirs.apgd_targeted.n_target_classes = theirs.fab.n_target_classes = TARGETS
    with torch.random.fork_rng():
        moved = theirs.run_standard_evaluation(x, y, batch_size=n)[0]
    expected = digits.module()(moved).argmax(1) != y
    _, broken = parts(norm)[name].strike(digits.model(), x, y, EPSILON[norm], digits.streams(n))
    assert int(expected.sum()) > 0
    # Square is a search of 300 random queries: it differs with the numbers drawn
    room = 4 if name == "square" else 1
    assert int((expected & ~broken).sum()) <= room


@pytest.mark.parametrize("norm", list(EPSILON))
@pytest.mark.parametrize("name", list(parts(Norm.LINF)))
def test_what_it_calls_broken_is_broken_inside_the_ball_and_the_rest_comes_back_as_it_was(
    name: str, norm: Norm
) -> None:
    x, y = digits.right(20)
    moved, broken = parts(norm)[name].strike(digits.model(), x, y, EPSILON[norm], digits.streams(20))
    assert torch.equal(digits.module()(moved).argmax(1) != y, broken)
    assert torch.equal(moved[~broken], x[~broken])
    assert bool(broken.any())


def test_the_ensemble_breaks_all_that_any_of_its_parts_breaks_and_gives_no_pass_to_what_is_broken() -> None:
    x, y = digits.right(16)
    whole = AutoAttack()
    seen: list[int] = []

    class Watching(digits.DigitsNet):
        def rows(self, rows: torch.Tensor) -> "Watching":
            return self

        def logits(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(len(x))
            return super().logits(x)

    _, broken = whole.strike(Watching(digits.module()), x, y, 0.2, digits.streams(16))
    for part in whole.attacks()[:3]:
        alone = part.strike(digits.model(), x, y, 0.2, digits.streams(16, purpose=part.name))[1]
        assert not bool((alone & ~broken).any())
    assert seen[0] == 16
    assert seen == sorted(seen, reverse=True)  # nothing comes back into the batch


def test_checkpoints_are_those_of_the_paper() -> None:
    assert checkpoints(100, Norm.LINF) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(100, Norm.L1) == list(range(4, 101, 4))
    assert checkpoints(1, Norm.L2) == [1]


def test_losses_by_hand() -> None:
    logits, y = torch.tensor([[5.0, 3.0, 1.0, 0.0], [1.0, 2.0, 4.0, 0.0]]), torch.tensor([0, 1])
    torch.testing.assert_close(margin(logits, y), torch.tensor([-2.0, 2.0]))
    torch.testing.assert_close(dlr(logits, y), torch.tensor([-2 / 4, 2 / 3]))
    torch.testing.assert_close(dlr_targeted(logits, y, torch.tensor([1, 2])), torch.tensor([-2 / 4.5, 2 / 3.5]))
    torch.testing.assert_close(dlr(1000 * logits + 7, y), dlr(logits, y))


def test_too_few_classes_are_an_error_that_names_the_way_out() -> None:
    model = digits.model()
    model.classes = 3
    x, y = digits.right(2)
    with pytest.raises(PluginError, match=r"(?s)compares 4 logits, and this model has 3 classes.*use apgd_ce"):
        AutoAttack().run(model, x, y, 0.1, digits.streams(2))


def test_a_stochastic_model_needs_the_version_that_averages() -> None:
    model = digits.model()
    model.stochastic = True
    x, y = digits.right(8)
    with pytest.raises(PluginError, match="set `version: rand`"):
        AutoAttack().run(model, x, y, 0.1, digits.streams(8))


def test_averaging_finds_its_way_where_one_pass_is_lost_in_noise() -> None:
    class Noisy(digits.DigitsNet):
        generator = torch.Generator()

        def logits(self, x: torch.Tensor) -> torch.Tensor:
            noise = torch.rand(x.shape, generator=self.generator) - 0.5
            return super().logits((x + noise).clamp(0, 1))

    x, y = digits.right(40)
    stands = {}
    for eot in (1, 20):
        model = Noisy(digits.module())
        model.generator.manual_seed(0)
        # without judging on the way: where the ascent ends up, on the net without noise
        climb = Ascent(model, lambda logits, rows: ce(logits, y[rows]), Norm.LINF, 0.15, eot).climb
        best = climb(x, y, torch.arange(40), x, 10, judge=False)[2]
        stands[eot] = float(ce(digits.module()(best), y).mean())
    assert stands[20] > stands[1]


def test_the_versions_hold_the_published_attacks_and_budgets() -> None:
    standard = AutoAttack().attacks()
    assert [part.name for part in standard] == ["apgd_ce", "apgd_t", "fab_t", "square"]
    assert (standard[0].steps, standard[1].targets, standard[2].steps, standard[3].queries) == (100, None, 100, 5000)  # type: ignore[attr-defined]
    rand = AutoAttack(version="rand").attacks()
    assert [(part.name, part.eot) for part in rand] == [("apgd_ce", 20), ("apgd_dlr", 20)]  # type: ignore[attr-defined]
    plus = AutoAttack(version="plus").attacks()
    assert [part.name for part in plus] == ["apgd_ce", "apgd_dlr", "fab", "square", "apgd_t", "fab_t"]
    assert [part.restarts for part in plus[:3]] == [5, 5, 5]  # type: ignore[attr-defined]
