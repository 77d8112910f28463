"""Rotations and translations: against scipy's, the limits, the grid, and the draws."""

import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage

from attacks.foolbox_import import PyTorchTensor, exported
from attacks.spatial import Spatial
from attacks.transformations import rigidly_moved
from bench.errors import PluginError
from tests.attacks import digits


def one(value: float) -> torch.Tensor:
    return torch.tensor([value])


@pytest.mark.parametrize(("degrees", "right", "down"), [(20, 0, 0), (-33, 0, 0), (0, 1.5, -0.5), (15, 2, 1)])
def test_a_move_is_that_of_scipy_on_an_image_that_is_not_square(degrees: float, right: float, down: float) -> None:
    image = torch.rand(1, 1, 7, 11, generator=torch.Generator().manual_seed(0))
    image[..., [0, -1], :] = 0  # scipy interpolates differently where the border itself is not the fill
    image[..., :, [0, -1]] = 0
    ours = rigidly_moved(image, one(degrees), one(right), one(down), 0.0)[0, 0].numpy()
    turn = np.deg2rad(degrees)
    back = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])  # of (down, right) to the source
    centre = np.array([3.0, 5.0])
    offset = centre - back @ (centre + np.array([down, right]))
    theirs = ndimage.affine_transform(image[0, 0].numpy(), back, offset, order=1, mode="constant")
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_the_grid_has_every_combination_the_mildest_first_and_keeps_the_limits() -> None:
    attack = Spatial(degrees=20, pixels=2, angles=5, shifts=3)
    grid = attack.grid()
    every = set(itertools.product((-20.0, -10.0, 0.0, 10.0, 20.0), (-2.0, 0.0, 2.0), (-2.0, 0.0, 2.0)))
    assert {tuple(point) for point in grid.tolist()} == every
    assert len(grid) == 45
    assert grid[0].tolist() == [0, 0, 0]
    assert [abs(point[0]) for point in grid[1:3].tolist()] == [10, 10]
    assert len(Spatial().grid()) == 31 * 5 * 5
    assert Spatial(angles=1, shifts=1).grid().tolist() == [[0, 0, 0]]


def test_it_finds_what_a_plain_loop_over_the_grid_finds_and_hands_back_that_very_image() -> None:
    x, y = digits.right(40)
    attack = Spatial(degrees=15, pixels=0.3, angles=5, shifts=3)
    moved = attack.run(digits.model(), x, y, 1.0, digits.streams(40))
    for row in range(40):
        expected = x[row : row + 1]
        for degrees, right, down in attack.grid().tolist():
            tried = rigidly_moved(x[row : row + 1], one(degrees), one(right), one(down), 0.0).clamp(0, 1)
            if int(digits.module()(tried).argmax(1)) != int(y[row]):
                expected = tried
                break
        torch.testing.assert_close(moved[row : row + 1], expected)
    assert 5 < int((digits.module()(moved).argmax(1) != y).sum()) < 40


def test_the_ball_holds_besides_and_a_sample_draws_for_itself() -> None:
    x, y = digits.right(20)
    near = Spatial(norm="l2", degrees=30, pixels=1).run(digits.model(), x, y, 0.8, digits.streams(20))
    assert float((near - x).flatten(1).norm(dim=1).max()) <= 0.8
    attack = Spatial(tries=10)
    whole = attack.run(digits.model(), x, y, 1.0, digits.streams(20))
    part = attack.run(digits.model(), x[7:], y[7:], 1.0, digits.streams(13, 7))
    torch.testing.assert_close(whole[7:], part)
    assert not torch.equal(whole, x)


def test_more_tries_break_no_less_and_other_inputs_are_refused() -> None:
    x, y = digits.right(60)
    counts = []
    for tries in (1, 10, 100):
        moved = Spatial(tries=tries).run(digits.model(), x, y, 1.0, digits.streams(60))
        counts.append(int((digits.module()(moved).argmax(1) != y).sum()))
    assert counts == sorted(counts)
    assert counts[0] < counts[2]
    with pytest.raises(PluginError, match="'spatial' changes images"):
        Spatial().run(digits.model(), x.flatten(1), y, 1.0, digits.streams(60))


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_foolbox_moves_by_less_than_it_says_and_slants_what_is_not_square() -> None:
    image = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    theirs = exported.spatial_attack.rotate_and_shift(PyTorchTensor(image), translation=(2.0, 0.0)).raw
    torch.testing.assert_close(theirs, rigidly_moved(image, one(0), one(-2 * 7 / 8), one(0), 0.0), atol=1e-5, rtol=0)
    turned = exported.spatial_attack.rotate_and_shift(
        PyTorchTensor(image), rotation=20.0
    ).raw  # on a square the two turn alike
    torch.testing.assert_close(turned, rigidly_moved(image, one(-20), one(0), one(0), 0.0), atol=1e-5, rtol=0)
    bar = torch.zeros(1, 1, 5, 21)
    bar[..., 2, :] = 1  # a bar across the middle, turned by a right angle: as high as the image, one pixel wide
    ours = rigidly_moved(bar, one(90), one(0), one(0), 0.0)
    assert float(ours[..., 10].sum()) == pytest.approx(5, abs=1e-4)
    assert float(ours.sum()) == pytest.approx(5, abs=1e-4)
    # theirs fills the height with what lay within the width, 21 pixels squeezed into 5
    theirs = exported.spatial_attack.rotate_and_shift(PyTorchTensor(bar), rotation=90.0).raw
    assert float((theirs[..., 10] > 0.5).sum()) == 5
    assert not torch.allclose(theirs, ours, atol=0.1)
