"""Adversarial examples as data: what is kept is what broke the model, and nothing else changes."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from bench.contracts import Bounds, Keep, Samples
from bench.errors import PluginError
from bench.examples import EXAMPLES, Examples
from bench.levels import LEVELS, dequantised, quantised
from bench.measure import attacked
from bench.metrics.robustness import Attacked, quantised_accuracy, robust_accuracy
from bench.records import Cell, Kind, decode, encode
from tests.bench.test_measure import Minimal, N, Scripted, Threshold, samples

EPSILONS = (0.05, 0.15, 0.35)


def table(keep: Keep | None, attack: Scripted | None = None) -> pa.Table:
    attack = attack or Scripted()
    attack.log.clear()
    return attacked(attack, EPSILONS, "t", Threshold(), samples(), np.arange(N), 0, keep=keep)


def kept(keep: Keep, attack: Scripted | None = None) -> Examples:
    found = Examples.of(decode(encode(table(keep, attack))))
    assert found is not None
    return found


def test_keeping_changes_no_other_column() -> None:
    plain, more = table(None), table(Keep.EXACT)
    same = [name for name in plain.column_names if name != "quantised_prediction"]
    assert more.select(same).equals(plain.select(same))
    assert Examples.of(plain) is None
    assert plain["quantised_prediction"].null_count == N


def test_what_is_kept_is_what_broke_the_model_at_the_distance_on_record() -> None:
    found = kept(Keep.EXACT)
    model = Threshold()
    x, broken = samples().fetch(np.arange(N)), np.isfinite(found.distance) & (found.distance > 0)
    assert (found.crafted == broken).all()
    assert torch.equal(torch.from_numpy(found.real("original")), x)
    classes = model.logits(torch.from_numpy(found.real("adversarial"))).argmax(dim=1).numpy()
    assert (classes[broken] == found.adversarial_prediction[broken]).all()
    assert (classes[broken] != found.label[broken]).all()
    far = np.abs(found.real("adversarial") - found.real("original")).max(axis=1)
    assert far[broken] == pytest.approx(found.distance[broken], abs=1e-6)
    assert (found.real("adversarial")[~broken] == found.real("original")[~broken]).all()


def test_a_sample_is_kept_at_the_smallest_epsilon_that_broke_it() -> None:
    found = kept(Keep.EXACT)
    far = np.abs(found.adversarial - found.original).max(axis=1)[found.crafted]
    assert {round(float(one), 6) for one in far} == set(EPSILONS)
    assert (far[np.abs(found.original[found.crafted, 0] - 0.5) < 0.05] < 0.06).all()


def test_a_search_for_the_smallest_distance_keeps_its_examples_too() -> None:
    assert kept(Keep.EXACT, Minimal()).crafted.sum() == N - 1


def test_eight_bits_are_the_nearest_levels_and_a_quarter_of_the_bytes() -> None:
    exact, rounded = kept(Keep.EXACT), kept(Keep.EIGHT_BIT)
    assert rounded.original.dtype == np.uint8
    assert rounded.original.nbytes * 4 == exact.original.nbytes
    assert np.abs(rounded.real("adversarial") - exact.adversarial).max() <= 0.5 / LEVELS + 1e-7


def test_levels_and_values_are_inverse_in_any_bounds() -> None:
    for bounds in (Bounds(0, 1), Bounds(-2.5, 7)):
        levels = torch.arange(256, dtype=torch.uint8)
        assert torch.equal(quantised(dequantised(levels, bounds), bounds), levels)
        ends = quantised(torch.tensor([bounds.low - 1, bounds.low, bounds.high, bounds.high + 1]), bounds)
        assert ends.tolist() == [0, 0, 255, 255]


def test_an_example_that_rounding_undoes_does_not_count_in_8_bits() -> None:
    """Just across the threshold of one half, between the levels 127 and 128: nearest rounding decides."""

    class Grazes(Scripted):
        def run(self, model: Threshold, x: Tensor, y: Tensor, epsilon: float | None, random: object) -> Tensor:  # type: ignore[override]
            moved = x.clone()
            near = torch.tensor([0.5 + 1e-3, 0.5 + 2.5e-3])[torch.arange(len(x)) % 2]
            moved[:, 0] = torch.where(y == 1, torch.full_like(near, 0.49), near)
            return moved

    records = table(Keep.EXACT, Grazes())
    cell = Cell("m", "d", "a", Kind.ATTACK, records, norm="linf", epsilons=EPSILONS)
    found = Examples.of(records)
    assert found is not None
    model, expected = Threshold(), []
    for row in range(N):  # by hand: each image rounded by numpy, each class by the threshold
        wrong = found.prediction[row] != found.label[row]
        pixel = np.round(found.adversarial[row, 0] * 255) / 255
        stands = (pixel > 0.5) == found.label[row] or not found.crafted[row]
        expected.append(bool(not wrong and stands))
    assert model.classes == 2
    value = quantised_accuracy(cell, EPSILONS[-1]).value
    assert value == pytest.approx(np.mean(expected))
    plain = robust_accuracy(Attacked.of(cell), EPSILONS[-1]).value
    assert value is not None
    assert plain is not None
    assert value >= plain


def test_integers_are_kept_exactly_or_not_at_all() -> None:
    class Counted(Threshold):
        bounds = Bounds(0, 16)

        def logits(self, x: Tensor) -> Tensor:
            return self.net(x.float() / 8)

    x = torch.arange(2 * N).reshape(N, 2)
    data = Samples(np.zeros(N, np.int64), lambda i: x[torch.from_numpy(i)], (2,), Bounds(0, 16), ("a", "b"), "digest")

    def run(keep: Keep) -> pa.Table:
        return attacked(Whole(), (5.0,), "t", Counted(), data, np.arange(N), 0, keep=keep)

    class Whole(Scripted):
        def run(self, model: Threshold, x: Tensor, y: Tensor, epsilon: float | None, random: object) -> Tensor:  # type: ignore[override]
            return (x + 5).clamp(max=16)

    found = Examples.of(run(Keep.EXACT))
    assert found is not None
    assert found.crafted.any()
    assert found.adversarial.dtype == np.dtype("<i8")
    with pytest.raises(PluginError, match="use `keep: exact`"):
        run(Keep.EIGHT_BIT)


def test_the_first_examples_are_chosen_by_index_alone() -> None:
    found = kept(Keep.EXACT)
    assert found.first(2).sample.tolist() == np.flatnonzero(found.crafted)[:2].tolist()


def test_a_table_without_the_columns_holds_no_examples() -> None:
    assert Examples.of(pa.table({field.name: pa.nulls(0, field.type) for field in EXAMPLES})) is None
