"""What the engine makes of certificates: records of their own, and samples that an attack is spared."""

import numpy as np
import pytest

import bench.certificates.linear_bounds  # noqa: F401 - registers the certificate
from attacks.autoattack import AutoAttack
from attacks.pgd import ProjectedGradientDescent
from attacks.simba import SimpleBlackBox
from bench import measure
from bench.certificates.linear_bounds import QuickBounds
from bench.contracts import Attack, Bounds, Gradients, Norm, Samples
from tests.attacks import digits

INDICES = np.arange(12)


def samples() -> Samples:
    x, y = digits.right(12)
    y = y.clone()
    y[0] = (y[0] + 1) % 10  # wrong untouched
    names = tuple("0123456789")
    return Samples(y.numpy(), lambda indices: x[indices], (1, 8, 8), Bounds(0, 1), names, "digest")


def test_a_certificates_records_hold_a_verdict_per_epsilon_that_never_comes_back_at_a_larger_one() -> None:
    table = measure.certified(QuickBounds(), (0.0005, 0.005, 0.1), digits.model(), samples(), INDICES)
    proved = np.array(table["proved"].to_pylist())
    assert proved.shape == (12, 3)
    assert (np.diff(proved.astype(int), axis=1) <= 0).all()
    assert proved.sum(axis=0)[0] > proved.sum(axis=0)[2] == 0
    assert not proved[0].any()


@pytest.mark.parametrize("attack", [AutoAttack(), ProjectedGradientDescent(), SimpleBlackBox(norm=Norm.LINF)])
def test_an_attack_spends_nothing_on_what_is_proved(attack: Attack) -> None:
    table = measure.attacked(attack, (0.0001,), "test", digits.model(), samples(), INDICES[:4], 0, prove=True)
    assert np.array(table["proved"].to_pylist())[:, 0].tolist() == [False, True, True, True]
    assert table["forwards"].to_numpy().tolist() == [0, 0, 0, 0]
    assert np.array(table["broken"].to_pylist())[:, 0].tolist() == [True, False, False, False]


def test_no_proof_is_tried_where_the_suite_says_so() -> None:
    table = measure.attacked(AutoAttack(), (0.4,), "test", digits.model(), samples(), INDICES[:4], 0)
    assert table["proved"].null_count == 4
    assert (table["forwards"].to_numpy()[1:] > 0).all()


def test_a_model_that_cannot_be_bounded_is_attacked_in_full() -> None:
    model = digits.model()
    model.gradients = Gradients.SURROGATE
    table = measure.attacked(AutoAttack(), (0.4,), "test", model, samples(), INDICES[:4], 0, prove=True)
    assert table["proved"].null_count == 4
    assert np.array(table["broken"].to_pylist()).all()


@pytest.mark.parametrize(("gradients", "proofs"), [(Gradients.SURROGATE, [None]), (Gradients.EXACT, [[False]])])
def test_whether_a_proof_was_tried_does_not_depend_on_a_block_in_which_nothing_is_right(
    gradients: Gradients, proofs: list[object]
) -> None:
    """The records of such a block said that nothing was proved, those of the others that nothing had been tried, and
    no leaderboard could be made of the two."""
    model = digits.model()
    model.gradients = gradients
    table = measure.attacked(AutoAttack(), (0.4,), "test", model, samples(), INDICES[:1], 0, prove=True)
    assert table["proved"].to_pylist() == proofs
