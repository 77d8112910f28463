"""Corruptions against closed forms, against another library, and by what their definitions promise."""

import numpy as np
import pytest
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from scipy import signal, stats

from adapters.corruptions import CORRUPTIONS, NAMES, corrupt


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def picture(*shape: int) -> np.ndarray:
    """A smooth picture: noise alone has nothing left to blur."""
    grid = np.indices(shape[1:]) / max(shape)
    waves = [0.5 + 0.4 * np.sin(9 * grid[0] + c) * np.cos(7 * grid[1] - c) for c in range(shape[0])]
    return np.stack(waves)


def test_there_are_the_fifteen_of_the_paper_with_five_severities_in_two_variants() -> None:
    assert (
        *("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
        *("snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    ) == NAMES
    for _, settings in CORRUPTIONS.values():
        assert {name: len(values) for name, values in settings.items()} == {"cifar10_c": 5, "imagenet_c": 5}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 20, 28), (3, 33, 32)])
def test_each_keeps_the_shape_and_the_bounds_and_is_settled_by_its_generator(name: str, shape: tuple) -> None:
    x = picture(*shape)
    for severity in (1, 5):
        for variant in ("cifar10_c", "imagenet_c"):
            found, again = (corrupt(x, name, severity, random(3), variant) for _ in range(2))
            assert found.shape == shape
            assert found.min() >= 0
            assert found.max() <= 1
            assert (found == again).all()
    assert (x == picture(*shape)).all()
    assert (found != x).any()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("glass_blur", "elastic_transform")])
def test_the_highest_severity_is_farther_from_the_image_than_the_lowest(name: str) -> None:
    x = picture(3, 32, 32)
    first, last = (
        np.mean([np.abs(corrupt(x, name, severity, random(seed)) - x).mean() for seed in range(5)])
        for severity in (1, 5)
    )
    assert last > first > 0


def test_large_images_get_the_settings_of_imagenet_c_and_small_ones_those_of_cifar10_c() -> None:
    for side, variant in ((32, "cifar10_c"), (128, "imagenet_c")):
        x = picture(1, side, side)
        assert (corrupt(x, "contrast", 3, random()) == corrupt(x, "contrast", 3, random(), variant)).all()


def test_noises_have_the_spread_that_they_are_named_after() -> None:
    grey = np.full((1, 200, 200), 0.5)
    gaussian = corrupt(grey, "gaussian_noise", 2, random(), "cifar10_c")
    assert stats.kstest((gaussian - 0.5).ravel() / 0.06, "norm").pvalue > 0.01
    shot = corrupt(grey, "shot_noise", 3, random(), "cifar10_c")
    assert shot.mean() == pytest.approx(0.5, abs=0.002)
    assert shot.std() == pytest.approx(np.sqrt(0.5 / 100), rel=0.02)  # of a Poisson count of mean 50, over 100
    impulse = corrupt(grey, "impulse_noise", 5, random(), "imagenet_c")
    assert set(np.unique(impulse)) == {0.0, 0.5, 1.0}
    assert (impulse != 0.5).mean() == pytest.approx(0.27, abs=0.01)
    assert (impulse == 1).sum() == pytest.approx((impulse == 0).sum(), rel=0.1)


def test_defocus_is_the_convolution_with_a_smoothed_disk() -> None:
    point = np.zeros((1, 31, 31))
    point[0, 15, 15] = 1
    grid = np.arange(-15, 16)
    disk = (grid[:, None] ** 2 + grid**2 <= 9).astype(float)
    line = np.exp(-np.array([1, 0, 1]) / (2 * 0.1**2))
    expected = signal.convolve2d(disk / disk.sum(), np.outer(line, line) / line.sum() ** 2, mode="same")
    assert corrupt(point, "defocus_blur", 1, random(), "imagenet_c")[0] == pytest.approx(expected, abs=1e-12)


def test_motion_draws_a_point_out_along_one_line_and_loses_nothing() -> None:
    point = np.zeros((1, 101, 101))
    point[0, 50, 50] = 1
    found = corrupt(point, "motion_blur", 3, random(), "imagenet_c")[0]
    rows, columns = np.nonzero(found)
    assert found.sum() == pytest.approx(1)
    assert abs(stats.pearsonr(rows, columns)[0]) > 0.95
    weights = np.exp(-(np.arange(31) ** 2) / (2 * 8**2))
    assert found[50, 50] == pytest.approx(weights[0] / weights.sum())


def test_brightness_is_added_to_the_value_of_hsv() -> None:
    x = random().random((3, 9, 9))
    hsv = rgb_to_hsv(np.moveaxis(x, 0, -1))
    hsv[..., 2] = np.clip(hsv[..., 2] + 0.3, 0, 1)
    expected = np.moveaxis(hsv_to_rgb(hsv), -1, 0)
    assert corrupt(x, "brightness", 5, random()) == pytest.approx(expected)
    assert (corrupt(np.zeros((3, 2, 2)), "brightness", 5, random()) == 0.3).all()


def test_contrast_keeps_the_mean_of_each_channel() -> None:
    x = picture(3, 12, 12)
    found = corrupt(x, "contrast", 5, random())
    assert found.mean(axis=(1, 2)) == pytest.approx(x.mean(axis=(1, 2)))
    assert found.std(axis=(1, 2)) == pytest.approx(0.15 * x.std(axis=(1, 2)))


def test_pixels_of_a_halved_image_are_the_means_of_blocks() -> None:
    x = random().random((1, 20, 20))
    found = corrupt(x, "pixelate", 2, random(), "imagenet_c")  # to half its size and back
    blocks = x.reshape(1, 10, 2, 10, 2).mean(axis=(2, 4))
    assert found == pytest.approx(blocks.repeat(2, axis=1).repeat(2, axis=2), abs=1e-6)


def test_zoom_blur_is_the_mean_of_the_image_and_its_enlargements_and_keeps_the_middle() -> None:
    flat = np.full((1, 16, 16), 0.3)
    assert corrupt(flat, "zoom_blur", 5, random()) == pytest.approx(flat)
    x = np.zeros((1, 33, 33))
    x[0, 16, 16] = 1
    found = corrupt(x, "zoom_blur", 1, random())
    assert found[0, 13:20, 13:20].sum() > 0.9 * found.sum()
    assert found[0, :8].max() == 0


def test_glass_moves_pixels_and_loses_none() -> None:
    x = random().random((1, 24, 24))
    found = corrupt(x, "glass_blur", 1, random(), "cifar10_c")  # σ .05 blurs nothing
    assert np.sort(found.ravel()) == pytest.approx(np.sort(x.ravel()))
    assert (found != x).any()


def test_fog_adds_a_fractal_that_fills_the_unit_interval() -> None:
    white = np.ones((1, 64, 64))
    fog = corrupt(white, "fog", 1, random(), "cifar10_c")  # (1 + .2 f) / 1.2
    fractal = (1.2 * fog - 1) / 0.2
    assert fractal.min() == pytest.approx(0, abs=1e-9)
    assert fractal.max() == pytest.approx(1)
    assert np.corrcoef(fractal[0, :-1].ravel(), fractal[0, 1:].ravel())[0, 1] > 0.9


def test_an_elastic_transform_bends_by_as_much_as_it_says() -> None:
    """Corners of the affine map move by up to .08 sides: pixels of a ramp by not much more."""
    ramp = np.tile(np.linspace(0, 1, 64), (64, 1))[np.newaxis]
    found = corrupt(ramp, "elastic_transform", 1, random(), "cifar10_c")
    moved = np.abs(found - ramp)[0, 16:48, 16:48]
    assert 0.001 < moved.max() < 0.25
    assert np.abs(np.diff(found[0], axis=1))[16:48, 16:48].max() < 0.05  # still smooth
