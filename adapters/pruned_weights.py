"""Unstructured pruning: small weights become zero, layer by layer as far as each one bears it; then the rest learns."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Literal

import torch
import torch.nn.functional as F  # noqa: N812  the name that every torch program uses
from pydantic import Field
from torch import Tensor, nn

from adapters.compressed import Compressed, Stages
from adapters.recipe import accuracy, train
from bench.contracts import Realisation, Report, Samples, adapter
from bench.randomness import seed_of

Share = Annotated[float, Field(gt=0, lt=1)]
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.92, 0.94, 0.96, 0.98, 0.99)


@adapter("pruned_weights")
class PrunedWeights(Compressed):
    """A net whose small weights are zero, by a threshold per layer, pruned and retrained in rounds.

    Han et al. 2015, "Learning both Weights and Connections for Efficient Neural Networks": each round scans how far
    every layer can be pruned alone before the accuracy falls by more than `tolerance` (section 3.4), prunes all layers
    so far, and trains what is left by `train`, with an L1 or L2 penalty (section 3.1). A round starts from the weights
    that the one before left (section 3.3). Biases and BatchNorm stay. Shapes stay as they are: nothing gets faster.
    """

    realised = Realisation.DENSE_WITH_ZEROS

    rounds: int = Field(default=3, ge=1, description="of scanning, pruning and retraining")
    tolerance: float = Field(default=0.01, ge=0, lt=1, description="accuracy that pruning one layer alone may cost")
    shares: tuple[Share, ...] = Field(default=SHARES, min_length=1, description="of a layer's weights that are tried")
    images: int = Field(default=2000, ge=1, description="training samples of the scan, drawn each round")
    penalty: Literal["l1", "l2"] = Field(default="l2", description="of the weights in retraining")
    decay: float = Field(default=1e-4, ge=0, description="times the sum of |w|, or of w²/2, is added to the loss")

    def compress(
        self, net: nn.Module, x: Tensor, y: Tensor, samples: Samples, *, seed: int, report: Report
    ) -> nn.Module:
        stages = Stages(report, self.rounds)
        if stages.state:
            net.load_state_dict(stages.state)
        for number in range(stages.done, self.rounds):
            random = torch.Generator().manual_seed(seed_of(seed, "scan", number))
            rows = torch.randperm(len(x), generator=random)[: self.images]
            found = sensitivity(net.eval(), x[rows], y[rows], self.shares, self.tolerance)
            prune(net, found)
            masks = {name: layer.weight != 0 for name, layer in weighted(net).items()}
            train(
                net, x, y, self.train, seed=seed_of(seed, number), report=stages, bounds=samples.bounds,
                loss=self.loss, after_step=partial(_mask, masks=masks),
            )  # fmt: skip
            left = {f"weights/{name}": float(mask.float().mean()) for name, mask in masks.items()}
            stages.end(net.state_dict(), **left)
        return net

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        """Cross-entropy plus the penalty."""
        weights = [layer.weight for layer in weighted(net).values()]
        sizes = [weight.abs().sum() if self.penalty == "l1" else weight.square().sum() / 2 for weight in weights]
        return F.cross_entropy(net(x), y) + self.decay * torch.stack(sizes).sum()


def weighted(net: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """The layers whose weights are pruned, by name."""
    return {name: layer for name, layer in net.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}


def threshold(weight: Tensor, share: float) -> float:
    """The magnitude up to which weights become zero: that of the weight in place int(share·n), from the smallest.

    weight: of any shape, with n elements. Zeros from an earlier round count among the smallest; 0.0 where the share
    rounds to no weight.
    """
    count = int(share * weight.numel())
    return float(weight.detach().abs().flatten().kthvalue(count).values) if count else 0.0


@torch.no_grad()
def sensitivity(
    net: nn.Module, x: Tensor, y: Tensor, shares: tuple[float, ...], tolerance: float
) -> Mapping[str, float]:
    """The largest share of each layer's weights that, pruned alone, costs at most `tolerance` of accuracy on x, y.

    It stops at the first share that costs more; 0.0 where the smallest one does. Leaves the net as it was.
    """
    whole = accuracy(net, x, y)
    found = {}
    for name, layer in weighted(net).items():
        before, found[name] = layer.weight.clone(), 0.0
        for share in sorted(shares):
            layer.weight.copy_(torch.where(before.abs() > threshold(before, share), before, 0.0))
            if accuracy(net, x, y) < whole - tolerance:
                break
            found[name] = share
        layer.weight.copy_(before)
    return found


@torch.no_grad()
def prune(net: nn.Module, shares: Mapping[str, float]) -> None:
    """Set these shares of the layers' weights, the smallest in magnitude, to zero."""
    for name, layer in weighted(net).items():
        layer.weight.mul_(layer.weight.abs() > threshold(layer.weight, shares[name]))


def _mask(net: nn.Module, masks: Mapping[str, Tensor]) -> None:
    for name, layer in weighted(net).items():
        layer.weight.mul_(masks[name])
