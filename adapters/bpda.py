"""Models behind a transformation of their inputs that has no useful gradient, and a gradient for them.

BPDA (Athalye, Carlini and Wagner 2018, arXiv:1802.00420, section 4.1): the forward pass is the defended model's own,
the backward pass goes through a differentiable stand-in of the transformation: the identity, for one that nearly keeps
its input.
"""

import io
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from adapters.derived import Derived, Unchanged
from adapters.torch_module import find
from bench.contracts import Bounds, Classifier, Gradients, Training, Wrapped, adapter
from bench.errors import PluginError

Transform = Callable[[Tensor], Tensor]  # (n, ...) in the unit box to the same, row by row
Backward = Literal["identity", "none"]


class Behind(nn.Module):
    """A module behind a transformation: what counters, certificates and guards read."""

    def __init__(self, transform: Transform, inside: nn.Module) -> None:
        super().__init__()
        self.transform, self.inside = transform, inside
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.inside(self.transform(x))  # type: ignore[no-any-return]


class TransformedClassifier(Wrapped):
    """`model` behind `transform`, both in the unit box of the bounds.

    surrogate: what is differentiated in the place of `transform`; None: whatever autograd makes of it.
    """

    def __init__(
        self, model: Classifier, transform: Transform, surrogate: Transform | None, gradients: Gradients
    ) -> None:
        super().__init__(model)
        self._transform, self._surrogate, self.gradients = transform, surrogate, gradients
        self.bounds = Bounds(*model.bounds)

    def around(self, model: Classifier) -> "TransformedClassifier":
        return TransformedClassifier(model, self._transform, self._surrogate, self.gradients)

    def seen(self, x: Tensor) -> Tensor:
        """See Wrapped.seen: the value of `transform`, to the bit, and the gradient of `surrogate`. Raises PluginError
        where the transformation changes the shape."""
        low, width = self.bounds.low, self.bounds.high - self.bounds.low
        unit = (x.to(torch.float32) - low) / width
        if self._surrogate is None:
            seen = self._transform(unit)
        else:
            with torch.no_grad():
                exact = self._transform(unit)
            near = self._surrogate(unit)
            seen = exact + (near - near.detach())
        if seen.shape != unit.shape:
            raise PluginError(
                f"the transformation makes inputs of shape {tuple(seen.shape)} of {tuple(unit.shape)}",
                "it must keep the shape of what it transforms",
            )
        return seen * width + low

    @property
    def module(self) -> nn.Module | None:
        inside = self._model.module
        return None if inside is None else Behind(self.seen, inside)


class _Defended(Derived):
    """What both adapters have in common."""

    @property
    def unaided(self) -> Gradients:
        """What gradients the transformation has by itself."""
        return Gradients.EXACT

    def transform(self) -> Transform:
        raise NotImplementedError

    def surrogate(self) -> Transform | None:
        raise NotImplementedError

    def build(self, weights: bytes | None) -> TransformedClassifier:
        inner, surrogate = self.original().build(weights), self.surrogate()
        gradients = inner.gradients if surrogate is None else Gradients.SURROGATE
        if Gradients.NONE in (inner.gradients, self.unaided if surrogate is None else None):
            gradients = Gradients.NONE
        return TransformedClassifier(inner, self.transform(), surrogate, gradients)

    def training(self) -> Training:
        return Unchanged(self)


@adapter("bpda")
class Bpda(_Defended):
    """Another model behind a transformation of its inputs that has no useful gradient, attacked through a stand-in.

    kind: `bit_depth` rounds each value to `bits` bits (Xu et al. 2018, arXiv:1704.01155, section III-A); `jpeg`
    compresses images with `quality` (Guo et al. 2018, arXiv:1711.00117). backward: `identity` passes the gradient on as
    if nothing had been transformed; `none` leaves what autograd makes of it: zeros for `bit_depth`, so that the model
    only looks robust (the control), and none at all for `jpeg`.
    """

    requires: ClassVar[tuple[str, ...]] = ("torch", "pillow")

    kind: Literal["bit_depth", "jpeg"] = Field(default="bit_depth", description="the transformation")
    bits: int = Field(default=3, ge=1, le=8, description="of each value, for bit_depth")
    quality: int = Field(default=75, ge=1, le=95, description="of the compression, for jpeg")
    backward: Backward = Field(default="identity", description="what is differentiated: identity, none")

    @property
    def unaided(self) -> Gradients:
        return Gradients.NONE if self.kind == "jpeg" else Gradients.EXACT

    def transform(self) -> Transform:
        levels = 2**self.bits - 1
        if self.kind == "bit_depth":
            return lambda x: (x * levels).round() / levels
        return lambda x: jpeg(x, self.quality)

    def surrogate(self) -> Transform | None:
        return (lambda x: x) if self.backward == "identity" else None


ImportPath = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")]


@adapter("bpda_torch")
class BpdaTorch(_Defended):
    """The same with a transformation of your own: functions of (n, ...) tensors in the unit box, by import path.

    function: `package.module:name`. near: a differentiable function near it; left out, the identity. Either may
    live in a module that the suite names under `plugins:`.
    """

    local: ClassVar[bool] = True

    function: ImportPath = Field(description="the transformation, `package.module:name`")
    near: ImportPath | None = Field(default=None, description="a differentiable one near it (default: the identity)")

    def transform(self) -> Transform:
        return find(self.function)  # type: ignore[no-any-return]

    def surrogate(self) -> Transform | None:
        return (lambda x: x) if self.near is None else find(self.near)


def jpeg(x: Tensor, quality: int) -> Tensor:
    """Images (n, 1 or 3, height, width) in the unit box, compressed and decompressed one by one. No gradient.

    Raises PluginError for inputs of another shape.
    """
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise PluginError(
            f"jpeg compresses images of one or three channels; inputs are {tuple(x.shape[1:])}", "take bit_depth"
        )
    found = []
    for image in (x.detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy():
        file = io.BytesIO()
        Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(file, "JPEG", quality=quality)
        pixels = np.asarray(Image.open(file), dtype=np.float32) / 255
        found.append(torch.from_numpy(pixels if pixels.ndim == 3 else pixels[:, :, None]).permute(2, 0, 1))
    return torch.stack(found).to(x.device) if found else x
