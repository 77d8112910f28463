"""Real inputs as the 256 levels of an image file, and back."""

import torch
from torch import Tensor

from bench.words import Bounds

LEVELS = 255  # steps between the bounds


def quantised(x: Tensor, bounds: Bounds) -> Tensor:
    """Each value as the nearest of 256 levels between the bounds, uint8. It moves by at most half a level."""
    low, high = bounds
    return ((x.double() - low) / (high - low) * LEVELS).round().clamp(0, LEVELS).to(torch.uint8)


def dequantised(levels: Tensor, bounds: Bounds) -> Tensor:
    """The values of those levels, float32."""
    low, high = bounds
    return (low + levels.double() / LEVELS * (high - low)).float()
