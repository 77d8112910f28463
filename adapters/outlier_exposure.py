"""Outlier Exposure: Hendrycks, Mazeika and Dietterich 2019, section 3: a classifier is shown outliers in training."""

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.contracts import DatasetChoice, Frozen, datasets
from bench.errors import PluginError

Loss = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]  # net, inputs, labels, their rows -> mean loss


class Exposure(Frozen):
    """Outliers that a training shows to the net. They must not be those that a detector is judged by."""

    outliers: DatasetChoice = Field(description="the data set, with its split")
    weight: float = Field(default=0.5, gt=0, description="of the outliers' loss beside that of the inliers")

    def inputs(self, input_shape: tuple[int, ...]) -> Tensor:
        """All outliers (m, *input_shape) float32. Raises PluginError for those of another shape."""
        choice = self.outliers
        found = datasets.build(choice.dataset, {"split": choice.split, **choice.args}).load()
        if found.input_shape != input_shape:
            raise PluginError(
                f"the net takes inputs of shape {input_shape}, the outliers of the training are {found.input_shape}"
            )
        return found.fetch(torch.arange(len(found)).numpy()).to(torch.float32)

    def loss(self, plain: Loss, outliers: Tensor) -> Loss:
        """`plain` on the inliers; on as many outliers, drawn by torch's global generator, that no class be preferred.

        The outliers pass the net in a batch of their own, which BatchNorm notices.
        """

        def exposed(net: nn.Module, x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
            drawn = outliers[torch.randint(len(outliers), (len(x),))].to(x.device)
            return plain(net, x, y, rows) + self.weight * to_uniform(net(drawn))

        return exposed


def to_uniform(logits: Tensor) -> Tensor:
    """Mean cross-entropy of the uniform distribution with the softmax of logits (n, classes), in nats."""
    return -logits.log_softmax(dim=1).mean(dim=1).mean()
