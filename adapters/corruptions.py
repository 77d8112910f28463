"""The fifteen common corruptions at five severities: Hendrycks and Dietterich 2019, section 3 and appendix B.

Each function takes an image x (channels, height, width) float64 in [0, 1], the settings of one severity and a random
generator, and returns an image of the same shape; `corrupt` clips it. The settings are those of the published sets:
CIFAR-10-C for small images, ImageNet-C for large ones. Lengths in pixels are not scaled with the image, as there.

Departures from the published sets: images stay real numbers, except where a corruption itself works on bytes (JPEG);
frost is drawn, not one of six photographs; glass blur really swaps pixels, where the authors' program copies one over
the other; a motion's border is repeated. So compare with published figures by trend.
"""

import io
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Pixels = NDArray[np.float64]
Random = np.random.Generator
Variant = Literal["cifar10_c", "imagenet_c"]

SEVERITIES = 5
LARGE = 128  # pixels of the shorter side, from which the settings are those of ImageNet-C
_GREY = np.array([0.299, 0.587, 0.114])  # luminance of red, green and blue, ITU-R BT.601


def corrupt(x: Pixels, corruption: str, severity: int, random: Random, variant: Variant | None = None) -> Pixels:
    """x (1 or 3, height, width) in [0, 1] corrupted, clipped to [0, 1].

    severity: 1 to 5. variant: whose settings; None: by the shorter side. Raises KeyError for an unknown corruption.
    """
    variant = variant or ("imagenet_c" if min(x.shape[1:]) >= LARGE else "cifar10_c")
    function, settings = CORRUPTIONS[corruption]
    found: Pixels = np.clip(function(x, settings[variant][severity - 1], random), 0, 1)
    return found


# --- noise


def _gaussian_noise(x: Pixels, sigma: float, random: Random) -> Pixels:
    return x + random.normal(scale=sigma, size=x.shape)


def _shot_noise(x: Pixels, photons: float, random: Random) -> Pixels:
    """Poisson noise; photons: at a value of 1."""
    return random.poisson(x * photons) / photons


def _impulse_noise(x: Pixels, share: float, random: Random) -> Pixels:
    """Salt and pepper, equally often, on a share of the values."""
    hit, salt = random.random(x.shape) < share, random.random(x.shape) < 0.5
    return np.where(hit, salt.astype(np.float64), x)


# --- blur


def _defocus_blur(x: Pixels, setting: tuple[float, float], random: Random) -> Pixels:
    """Convolution with a disk, itself smoothed."""
    radius, smoothing = setting
    reach = int(radius) + 2
    grid = np.arange(-reach, reach + 1)
    disk = (grid[:, np.newaxis] ** 2 + grid**2 <= radius**2).astype(np.float64)
    width = 1 if radius <= 8 else 2
    kernel = ndimage.gaussian_filter(disk / disk.sum(), smoothing, radius=width, mode="mirror")
    return np.stack([ndimage.correlate(channel, kernel, mode="mirror") for channel in x])


def _glass_blur(x: Pixels, setting: tuple[float, int, int], random: Random) -> Pixels:
    """Blurred, pixels swapped with near ones, blurred again. setting: σ, the farthest swap, rounds."""
    sigma, reach, rounds = setting
    _, height, width = x.shape
    places = np.arange(height * width).reshape(height, width)
    rows, columns = range(height - reach, reach, -1), range(width - reach, reach, -1)
    for shifts in random.integers(-reach, reach, (rounds, max(0, len(rows)), max(0, len(columns)), 2)):
        for row, line in zip(rows, shifts, strict=True):
            for column, (down, right) in zip(columns, line.tolist(), strict=True):
                here, there = (row, column), (row + down, column + right)
                places[here], places[there] = places[there], places[here]
    shuffled = _blurred(x, sigma).reshape(len(x), -1)[:, places.ravel()].reshape(x.shape)
    return _blurred(shuffled, sigma)


def _motion_blur(x: Pixels, setting: tuple[int, float], random: Random) -> Pixels:
    radius, sigma = setting
    return _smeared(x, radius, sigma, random.uniform(-45, 45))


def _zoom_blur(x: Pixels, setting: tuple[float, float], random: Random) -> Pixels:
    """The mean of the image and of its enlargements. setting: end (excluded) and step of the factors from 1 on."""
    factors = np.arange(1, *setting)
    return (x + sum(_enlarged(x, factor) for factor in factors)) / (len(factors) + 1)


# --- weather


def _snow(x: Pixels, setting: tuple[float, ...], random: Random) -> Pixels:
    """setting: mean and σ of the flakes, size, a threshold, radius and σ of their motion, share of the colours."""
    mean, sigma, size, threshold, radius, length, share = setting
    flakes = _enlarged(random.normal(mean, sigma, (1, *x.shape[1:])), size)
    flakes = np.where(flakes < threshold, 0.0, np.clip(flakes, 0, 1))
    flakes = _smeared(flakes, int(radius), length, random.uniform(-135, -45))
    whitened = np.maximum(x, 1.5 * _luminance(x) + 0.5)
    return share * x + (1 - share) * whitened + flakes + np.flip(flakes, axis=(1, 2))


def _frost(x: Pixels, setting: tuple[float, float], random: Random) -> Pixels:
    """The image and ice in front of it, weighted. The ice is drawn: ridges of a fractal, bluish white."""
    weight, ice = setting
    ridges = 1 - np.abs(2 * _fractal(x.shape[1:], 1.6, random) - 1)
    colours = np.array([0.85, 0.95, 1.0])[:, np.newaxis, np.newaxis] * ridges**2
    return weight * x + ice * (colours if len(x) == 3 else _luminance(colours))


def _fog(x: Pixels, setting: tuple[float, float], random: Random) -> Pixels:
    """setting: thickness, and how fast the fractal's detail fades."""
    thickness, decay = setting
    brightest = float(x.max())
    return (x + thickness * _fractal(x.shape[1:], decay, random)) * brightest / (brightest + thickness)


def _brightness(x: Pixels, added: float, random: Random) -> Pixels:
    """Added to the value of hue, saturation and value: colours are scaled, and black, which has none, becomes grey."""
    value: Pixels = x.max(axis=0)
    wanted = np.clip(value + added, 0, 1)
    found: Pixels = np.where(value > 0, x * (wanted / np.where(value > 0, value, 1)), wanted)
    return found


# --- digital


def _contrast(x: Pixels, kept: float, random: Random) -> Pixels:
    means: Pixels = x.mean(axis=(1, 2), keepdims=True)
    return (x - means) * kept + means


def _elastic_transform(x: Pixels, setting: tuple[float, float, float], random: Random) -> Pixels:
    """A random affine map, then a smooth random displacement.

    setting: height and smoothness of the displacement, and the reach of the affine map's corners, all in units of the
    shorter side.
    """
    side = min(x.shape[1:])
    height, smoothness, reach = (side * value for value in setting)
    centre, third = np.array(x.shape[1:]) // 2, side // 3
    corners = centre + third * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = corners + random.uniform(-reach, reach, corners.shape)
    back = np.linalg.solve(np.column_stack([moved, np.ones(3)]), corners)  # maps what is moved to where it came from
    x = np.stack([ndimage.affine_transform(c, back[:2].T, back[2], order=1, mode="mirror") for c in x])
    shifts = [
        height * ndimage.gaussian_filter(random.uniform(-1, 1, x.shape[1:]), smoothness, mode="reflect", truncate=3)
        for _ in range(2)
    ]
    places = np.indices(x.shape[1:]) + np.stack(shifts)
    return np.stack([ndimage.map_coordinates(channel, places, order=1, mode="reflect") for channel in x])


def _pixelate(x: Pixels, scale: float, random: Random) -> Pixels:
    height, width = x.shape[1:]
    small = max(1, int(width * scale)), max(1, int(height * scale))

    def coarse(channel: Pixels) -> Pixels:
        image = Image.fromarray(channel.astype(np.float32))
        found = image.resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.BOX)
        return np.asarray(found, dtype=np.float64)

    return np.stack([coarse(channel) for channel in x])


def _jpeg_compression(x: Pixels, quality: int, random: Random) -> Pixels:
    values = np.rint(x * 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(values[0] if len(x) == 1 else np.moveaxis(values, 0, -1)).save(file, "JPEG", quality=quality)
    found = np.asarray(Image.open(file), dtype=np.float64) / 255
    return found[np.newaxis] if len(x) == 1 else np.moveaxis(found, -1, 0)


# --- what they are made of


def _blurred(x: Pixels, sigma: float) -> Pixels:
    return np.asarray(ndimage.gaussian_filter(x, (0, sigma, sigma), mode="nearest"))


def _smeared(x: Pixels, radius: int, sigma: float, angle: float) -> Pixels:
    """Each pixel drawn out to one side, 2·radius + 1 pixels long, fading as a normal density of σ. angle: degrees."""
    _, height, width = x.shape
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    down, right = np.sin(np.radians(angle)), np.cos(np.radians(angle))
    found = np.zeros_like(x)
    for step, weight in zip(steps, weights, strict=True):
        rows = np.clip(np.arange(height) + round(step * down), 0, height - 1)
        columns = np.clip(np.arange(width) + round(step * right), 0, width - 1)
        found += weight * x[:, rows][:, :, columns]
    return found


def _enlarged(x: Pixels, factor: float) -> Pixels:
    """The middle of the image, enlarged to its whole size."""
    sizes = np.array(x.shape[1:])
    inner = np.ceil(sizes / factor).astype(int)
    top, left = (sizes - inner) // 2
    large = ndimage.zoom(x[:, top : top + inner[0], left : left + inner[1]], (1, factor, factor), order=1)
    top, left = (np.array(large.shape[1:]) - sizes) // 2
    return np.asarray(large[:, top : top + sizes[0], left : left + sizes[1]])


def _fractal(shape: tuple[int, ...], decay: float, random: Random) -> Pixels:
    """A height map in [0, 1] by the diamond-square algorithm on a torus; detail fades by decay² per halving."""
    size = 1 << max(1, int(np.ceil(np.log2(max(shape)))))
    heights = np.zeros((size, size))
    step, noise = size, 1.0
    while step >= 2:
        half = step // 2

        def rough(mean: Pixels, noise: float = noise) -> Pixels:
            return mean + random.uniform(-noise, noise, mean.shape)

        corners = heights[::step, ::step]
        below = corners + np.roll(corners, -1, axis=0)
        middles = heights[half::step, half::step] = rough((below + np.roll(below, -1, axis=1)) / 4)
        across, along = corners + np.roll(corners, -1, axis=1), corners + np.roll(corners, -1, axis=0)
        heights[::step, half::step] = rough((across + middles + np.roll(middles, 1, axis=0)) / 4)
        heights[half::step, ::step] = rough((along + middles + np.roll(middles, 1, axis=1)) / 4)
        step, noise = half, noise / decay**2
    heights -= heights.min()
    return np.asarray(heights / heights.max())[: shape[0], : shape[1]]


def _luminance(x: Pixels) -> Pixels:
    """(1, height, width)"""
    return x if len(x) == 1 else np.tensordot(_GREY, x, axes=1)[np.newaxis]


# --- the settings of severities 1 to 5

_Settings = Mapping[str, tuple[Any, ...]]
CORRUPTIONS: Mapping[str, tuple[Callable[[Pixels, Any, Random], Pixels], _Settings]] = {
    "gaussian_noise": (
        _gaussian_noise,
        {"cifar10_c": (0.04, 0.06, 0.08, 0.09, 0.1), "imagenet_c": (0.08, 0.12, 0.18, 0.26, 0.38)},
    ),
    "shot_noise": (_shot_noise, {"cifar10_c": (500, 250, 100, 75, 50), "imagenet_c": (60, 25, 12, 5, 3)}),
    "impulse_noise": (
        _impulse_noise,
        {"cifar10_c": (0.01, 0.02, 0.03, 0.05, 0.07), "imagenet_c": (0.03, 0.06, 0.09, 0.17, 0.27)},
    ),
    "defocus_blur": (
        _defocus_blur,
        {
            "cifar10_c": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
            "imagenet_c": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        },
    ),
    "glass_blur": (
        _glass_blur,
        {
            "cifar10_c": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
            "imagenet_c": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        },
    ),
    "motion_blur": (
        _motion_blur,
        {
            "cifar10_c": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
            "imagenet_c": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        },
    ),
    "zoom_blur": (
        _zoom_blur,
        {
            "cifar10_c": ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
            "imagenet_c": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
        },
    ),
    "snow": (
        _snow,
        {
            "cifar10_c": (
                (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
                (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
                (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
                (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
                (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
            ),
            "imagenet_c": (
                (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
                (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
                (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
                (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
                (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
            ),
        },
    ),
    "frost": (
        _frost,
        {
            "cifar10_c": ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
            "imagenet_c": ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
        },
    ),
    "fog": (
        _fog,
        {
            "cifar10_c": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
            "imagenet_c": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
        },
    ),
    "brightness": (
        _brightness,
        {"cifar10_c": (0.05, 0.1, 0.15, 0.2, 0.3), "imagenet_c": (0.1, 0.2, 0.3, 0.4, 0.5)},
    ),
    "contrast": (_contrast, {"cifar10_c": (0.75, 0.5, 0.4, 0.3, 0.15), "imagenet_c": (0.4, 0.3, 0.2, 0.1, 0.05)}),
    "elastic_transform": (
        _elastic_transform,
        {
            "cifar10_c": ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
            "imagenet_c": ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)),
        },
    ),
    "pixelate": (_pixelate, {"cifar10_c": (0.95, 0.9, 0.85, 0.75, 0.65), "imagenet_c": (0.6, 0.5, 0.4, 0.3, 0.25)}),
    "jpeg_compression": (_jpeg_compression, {"cifar10_c": (80, 65, 58, 50, 40), "imagenet_c": (25, 18, 15, 10, 7)}),
}
NAMES = tuple(CORRUPTIONS)
