"""What is done to images before they reach a model: differentiable, and correct for any size and bounds."""

from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from bench.contracts import Bounds, Classifier, Frozen, Wrapped
from bench.errors import PluginError

Kind = Literal[
    "identity", "flip_horizontal", "flip_vertical", "rotate", "shift_right", "shift_down", "brightness", "gamma", "crop"
]
PLAIN = ("identity", "flip_horizontal", "flip_vertical")  # those without an amount


class Transformation(Frozen):
    """One change of an image, and its amount; one without an amount may be written as its name alone.

    rotate: degrees, clockwise as it is seen. shift_right, shift_down: pixels. brightness: added, a share of the bounds'
    width. gamma: the exponent of the value between the bounds. crop: the share of each side that is cut away, half of
    it at each end, before the rest is enlarged again.
    """

    kind: Kind
    by: float | None = Field(default=None, allow_inf_nan=False, description="how much, in the units of the kind")

    @model_validator(mode="after")
    def _has_its_amount(self) -> "Transformation":
        if (self.by is None) != (self.kind in PLAIN):
            raise ValueError(f"'{self.kind}' takes no `by`" if self.kind in PLAIN else f"'{self.kind}' needs `by`")
        if self.kind == "gamma" and not (self.by or 0) > 0:
            raise ValueError(f"gamma: the exponent must be greater than 0, got {self.by}")
        if self.kind == "crop" and not 0 < (self.by or 0) < 1:
            raise ValueError(f"crop: the share must lie between 0 and 1, got {self.by}")
        return self

    @property
    def label(self) -> str:
        """`rotate_15`"""
        return self.kind if self.by is None else f"{self.kind}_{self.by:g}"

    def __call__(self, x: Tensor, bounds: Bounds) -> Tensor:
        """(n, channels, height, width) in bounds, changed. Raises PluginError for inputs that are no images."""
        need_images(self.label, x)
        low, width = bounds.low, bounds.high - bounds.low
        amount = 0.0 if self.by is None else self.by
        match self.kind:
            case "flip_horizontal":
                return x.flip(3)
            case "flip_vertical":
                return x.flip(2)
            case "rotate" | "shift_right" | "shift_down":
                by = {kind: torch.full((len(x),), amount if kind == self.kind else 0.0) for kind in MOVES}
                return rigidly_moved(x, by["rotate"], by["shift_right"], by["shift_down"], low)
            case "brightness":
                return (x + amount * width).clamp(*bounds)
            case "gamma":
                # away from 0, where a power below 1 has no finite slope
                return low + width * ((x - low) / width).clamp(min=1e-6) ** amount
            case "crop":
                return _enlarged(x, amount)
        return x


MOVES = ("rotate", "shift_right", "shift_down")


def named(value: Any) -> Any:
    """`identity` stands for `{kind: identity}`."""
    return {"kind": value} if isinstance(value, str) else value


Named = Annotated[Transformation, BeforeValidator(named, json_schema_input_type=Transformation | Kind)]


class Transformed(Wrapped):
    """`model` behind a transformation."""

    def __init__(self, model: Classifier, change: Transformation) -> None:
        super().__init__(model)
        self._change = change

    def around(self, model: Classifier) -> "Transformed":
        return Transformed(model, self._change)

    @property
    def module(self) -> None:
        """None: that of the model does not transform."""

    def rows(self, rows: Tensor) -> "Transformed":
        return self.around(self._model.rows(rows))

    def seen(self, x: Tensor) -> Tensor:
        return self._change(x, Bounds(*self.bounds))


def rigidly_moved(x: Tensor, degrees: Tensor, right: Tensor, down: Tensor, fill: float) -> Tensor:
    """Images (n, channels, height, width) turned clockwise about their centre, then shifted, each by its own amounts.

    degrees, right, down: (n,), the shifts in pixels. Between pixels by bilinear interpolation; what comes in from
    outside is `fill`.
    """
    height, width = x.shape[2:]
    angle = torch.deg2rad(degrees.to(x))[:, None, None]
    rows = torch.arange(height, device=x.device, dtype=x.dtype) - (height - 1) / 2
    columns = torch.arange(width, device=x.device, dtype=x.dtype) - (width - 1) / 2
    away_y, away_x = rows[:, None] - down.to(x)[:, None, None], columns[None, :] - right.to(x)[:, None, None]
    # where a pixel of the result came from: turned back, from the centre, in units of half the distance of the corners
    from_x = (away_x * angle.cos() + away_y * angle.sin()) / max((width - 1) / 2, 0.5)
    from_y = (away_y * angle.cos() - away_x * angle.sin()) / max((height - 1) / 2, 0.5)
    grid = torch.stack([from_x, from_y], dim=3)
    return grid_sample(x - fill, grid, mode="bilinear", padding_mode="zeros", align_corners=True) + fill


def need_images(what: str, x: Tensor) -> None:
    """Raises PluginError for inputs that are not (n, channels, height, width)."""
    if x.ndim != 4:
        raise PluginError(f"'{what}' changes images, and inputs are {tuple(x.shape[1:])}", "take another attack")


def _enlarged(x: Tensor, share: float) -> Tensor:
    """The middle of images, without `share` of each side, in the size of the whole."""
    sizes = [max(1, round(size * (1 - share))) for size in x.shape[2:]]
    top, left = ((size - kept) // 2 for size, kept in zip(x.shape[2:], sizes, strict=True))
    middle = x[:, :, top : top + sizes[0], left : left + sizes[1]]
    return interpolate(middle, size=x.shape[2:], mode="bilinear", align_corners=False)
