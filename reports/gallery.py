"""Adversarial examples to look at: the untouched input, what the attack changed, and the result."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.examples import Examples
from reports import pictures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 8  # the first that broke, by index: nobody chose them
_ROWS = ("untouched", "difference", "adversarial")


@dataclass(frozen=True)
class Gallery:
    """What one attack kept of one model. examples: the first SHOWN at most."""

    evaluation: str
    title: str
    examples: Examples

    @property
    def empty(self) -> str:
        """Why there is nothing to see; empty where there is."""
        shape = self.examples.original.shape[1:]
        if not len(self.examples.sample):
            return "The attack broke no sample."
        if len(shape) != 3 or shape[0] not in (1, 3):
            return f"Inputs of shape {shape} are no images."
        return ""

    @property
    def words(self) -> str:
        """What the picture shows, for those who do not see it."""
        found = self.examples
        told = zip(found.sample, found.label, found.adversarial_prediction, strict=True)
        return "; ".join(f"sample {sample}: class {label} answered as {answer}" for sample, label, answer in told)


def draw(gallery: Gallery) -> "Figure":
    """A column per example: untouched, difference, adversarial.

    The difference is scaled to its own largest value, which stands below it; the middle of the scale is no change.
    """
    found = gallery.examples
    original, adversarial = found.real("original"), found.real("adversarial")
    low, high = found.bounds
    figure, axes = pictures.grid(len(_ROWS), len(found.sample))
    for column in range(len(found.sample)):
        change = (adversarial[column] - original[column]).astype(np.float64)
        largest = float(np.abs(change).max()) or 1.0
        panels = (
            (original[column] - low) / (high - low),
            0.5 + 0.5 * change / largest,
            (adversarial[column] - low) / (high - low),
        )
        for line, panel in enumerate(panels):
            ax = axes[line * len(found.sample) + column]
            image = _image(panel)
            colours = None if image.ndim == 3 else "PuOr" if line == 1 else "gray"
            ax.imshow(image, vmin=0, vmax=1, interpolation="nearest", cmap=colours)
            ax.set(xticks=[], yticks=[])
            ax.grid(visible=False)
            ax.spines[:].set_visible(False)
            if column == 0:
                ax.set_ylabel(_ROWS[line])
        axes[column].set_title(f"{found.label[column]}", fontsize=9)
        axes[len(found.sample) + column].set_xlabel(f"±{largest:.3g}", fontsize=7)
        axes[2 * len(found.sample) + column].set_xlabel(f"→ {found.adversarial_prediction[column]}", fontsize=9)
    return figure


def _image(panel: NDArray[np.float64]) -> NDArray[np.float64]:
    """(channels, height, width) as (height, width) or (height, width, 3)."""
    return np.clip(panel[0] if panel.shape[0] == 1 else np.moveaxis(panel, 0, -1), 0, 1)
