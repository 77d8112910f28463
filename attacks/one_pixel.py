"""One pixel (Su et al. 2019, arXiv:1710.08864), by asking all of them: exhaustive, so that it needs no luck."""

import itertools
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from attacks.losses import margin
from bench.contracts import Attack, Classifier, Knowledge, Norm, attack
from bench.errors import PluginError
from bench.randomness import SampleRandom


@attack("one_pixel")
class OnePixel(Attack):
    """Every pixel in turn to every corner of its range; of those that lose the label, the one of largest margin.

    For images (channels, height, width): height · width · 2^channels queries per sample, `batch` of them at a time. The
    distance is the number of coordinates that changed, at most the number of channels.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.L0,)
    knowledge: ClassVar[Knowledge] = Knowledge.SCORE
    minimal: ClassVar[bool] = True
    exhaustive: ClassVar[bool] = True
    swift: ClassVar[bool] = True

    norm: Norm = Norm.L0
    batch: Annotated[int, Field(ge=1)] = 256

    def run(self, model: Classifier, x: Tensor, y: Tensor, epsilon: float | None, random: SampleRandom) -> Tensor:
        """See Attack.run. Raises PluginError for inputs that are no images."""
        if x.ndim != 4:
            raise PluginError(
                f"attack 'one_pixel' moves pixels of an image; inputs are {tuple(x.shape[1:])}", "take jsma"
            )
        result = x.clone()
        for row in range(len(x)):
            only = torch.tensor([row], device=x.device)
            margins = one_pixel_map(model.rows(only), x[row], y[row], self.batch)
            best, place = margins.flatten().max(0)
            if best > 0:
                corner, pixel = divmod(int(place), x.shape[2] * x.shape[3])
                result[row].flatten(1)[:, pixel] = _corners(model, x)[corner]
        return result


@torch.no_grad()
def one_pixel_map(model: Classifier, x: Tensor, y: Tensor, batch: int = 256) -> Tensor:
    """(2^channels, height, width): the margin of x (channels, height, width) with one pixel at a corner of its range.

    Above 0 where that pixel alone loses the label y (scalar).
    """
    channels, height, width = x.shape
    found = []
    for corner in _corners(model, x[None]):
        for pixels in torch.split(torch.arange(height * width, device=x.device), batch):
            moved = x.expand(len(pixels), *x.shape).flatten(2).clone()
            moved[torch.arange(len(pixels), device=x.device), :, pixels] = corner
            found.append(margin(model.logits(moved.reshape(-1, *x.shape)), y.expand(len(pixels))))
    return torch.cat(found).reshape(2**channels, height, width)


def _corners(model: Classifier, x: Tensor) -> Tensor:
    """(2^channels, channels)."""
    return torch.tensor(list(itertools.product(model.bounds, repeat=x.shape[1])), dtype=x.dtype, device=x.device)
