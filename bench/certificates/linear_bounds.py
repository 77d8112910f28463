"""Certified robustness by backward linear bounds (CROWN), and by intervals where these are enough."""

from typing import ClassVar

import torch
from torch import Tensor

from bench.certificates._bounds import SLACK, Bounded, Region, intervals
from bench.certificates._trace import Step, Unsupported, steps
from bench.contracts import Certificate, Classifier, Gradients, Norm, certificate


@certificate("linear_bounds")
class LinearBounds(Certificate):
    """Planes below and above every ReLU, pulled backwards from the margins to the input; one sample at a time.

    Convolution, linear, BatchNorm, ReLU, average and maximum pooling, residual sums. `linear: false` stops at
    intervals. `box: false` forgets that inputs have bounds, `adaptive: false` takes parallel lines alone: both together
    are the bound of Wong and Kolter (2018).
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.LINF, Norm.L2, Norm.L1)

    norm: Norm = Norm.LINF
    linear: bool = True
    box: bool = True
    adaptive: bool = True

    @property
    def tighten(self) -> bool:
        """Whether planes also bound what stands before each ReLU: tighter, and thousands of planes instead of ten."""
        return self.linear

    def proves(self, model: Classifier, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        """See Certificate.proves. Raises Unsupported, a PluginError, where a layer of the model has no bounds."""
        if len(x) == 0:
            return torch.zeros(0, dtype=torch.bool, device=x.device)
        found = self._steps(model, x)
        with torch.no_grad():
            slack = SLACK * model.logits(x).abs().amax(1)
            return self._margins(found, model, x, y, epsilon) > slack

    def _margins(self, found: list[Step], model: Classifier, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        """(n,): the least margin of each sample over all other classes that is sure."""
        return torch.stack([self._margin(found, model, row, int(own), epsilon) for row, own in zip(x, y, strict=True)])

    def _margin(self, found: list[Step], model: Classifier, x: Tensor, y: int, epsilon: float) -> Tensor:
        region = Region(x, epsilon, self.norm, model.bounds if self.box else None)
        bounded = Bounded(found, region, self.tighten)
        margins = bounded.interval_margins(y)
        if self.linear:
            margins = torch.maximum(margins, bounded.margins(y, ("equal", "adaptive") if self.adaptive else ("equal",)))
        return torch.cat([margins[:y], margins[y + 1 :]]).amin()

    def _steps(self, model: Classifier, x: Tensor) -> list[Step]:
        module = model.module
        if module is None or model.stochastic or model.gradients is not Gradients.EXACT:
            raise Unsupported(
                "bounds: they need a deterministic torch module with exact gradients", "attack it instead"
            )
        found = steps(module, x[:1])
        if found[-1].shape != (model.classes,):
            raise Unsupported(f"bounds: the module ends in {found[-1].shape}, not in logits", "attack it instead")
        with torch.no_grad():
            expected, got = model.logits(x[:1]), module(x[:1])
            if not torch.allclose(expected, got, rtol=1e-4, atol=1e-5):
                raise Unsupported("bounds: the logits are not what the module returns", "attack it instead")
        return found


@certificate("interval_bounds")
class IntervalBounds(LinearBounds):
    """Intervals alone, for all samples at once: the weakest bound, at the cost of two passes.

    Gowal et al. 2018 (arXiv:1810.12715), section 3. Proves little of a net that was not trained for it.
    """

    def _margins(self, found: list[Step], model: Classifier, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        low, high = intervals(found, x, epsilon, model.bounds if self.box else None)
        others = high.scatter(1, y[:, None], -torch.inf).amax(1)
        return low.gather(1, y[:, None])[:, 0] - others


@certificate("quick_bounds")
class QuickBounds(LinearBounds):
    """Planes from the margins alone, with intervals before every ReLU: weaker than `linear_bounds`, at a few passes."""

    @property
    def tighten(self) -> bool:
        return False
