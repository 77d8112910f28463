"""Encoded images to arrays: what an image folder and the Hugging Face adapter share. Pillow is known here only."""

from collections.abc import Callable, Sequence
from io import BytesIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from bench.errors import DataError

MODES = {1: "L", 3: "RGB"}


def suffixes() -> frozenset[str]:
    """File name endings that Pillow can open, in lower case, with the dot."""
    return frozenset(ending for ending, name in Image.registered_extensions().items() if name in Image.OPEN)


def decode(content: bytes, size: tuple[int, int], channels: int, where: str) -> NDArray[np.uint8]:
    """(channels, height, width) of an encoded image; size: (height, width), reached by bilinear resampling if need be.

    Raises DataError where it is no image, is damaged, or is so large that it looks like an attack (Pillow's limit).
    """
    try:
        with Image.open(BytesIO(content)) as image:
            pixels = image.convert(MODES[channels])
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{where}: cannot be read as an image: {error}", "Replace or remove it") from error
    height, width = size
    if pixels.size != (width, height):
        pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(pixels, dtype=np.uint8).reshape(height, width, channels).transpose(2, 0, 1)


def batch(
    read: Callable[[int], tuple[bytes, str]], indices: Sequence[int], size: tuple[int, int], channels: int
) -> Tensor:
    """(k, channels, height, width) float32, value / 255. read: index -> (encoded bytes, name for messages)."""
    out = np.empty((len(indices), channels, *size), dtype=np.uint8)
    for row, index in enumerate(indices):
        content, where = read(index)
        out[row] = decode(content, size, channels, where)
    return torch.from_numpy(out).to(torch.float32).div_(255.0)
