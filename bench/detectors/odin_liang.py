"""The Out-of-DIstribution detector for Neural networks: Liang, Li and Srikant 2018, equations 1 to 3."""

from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  the name that every torch program uses
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from bench.contracts import Classifier, Detector, Gradients, detector
from bench.errors import PluginError
from bench.randomness import SampleRandom


@detector("odin_liang")
class OdinLiang(Detector):
    """Minus the largest softmax at a temperature, after a small step towards the predicted class.

    x̃ = x − ε·sign(∇ₓ CE(f(x)/T, ŷ)); score −max softmax(f(x̃)/T). ε is in input units: the authors' code adds
    ε·sign/σ to inputs that were divided by σ, which is the same. As there, x̃ may leave the input's bounds by ε.
    Not the ODIN of principal components, which is `odin_pca`.
    """

    temperature: Annotated[float, Field(gt=0)] = 1000.0
    epsilon: Annotated[float, Field(ge=0)] = 0.0014

    def score(self, model: Classifier, x: Tensor, random: SampleRandom) -> NDArray[np.float64]:
        with torch.no_grad():
            return self.differentiable(model, x.detach()).cpu().numpy()

    def differentiable(self, model: Classifier, x: Tensor) -> Tensor:
        """Exact almost everywhere: the sign in the step has no gradient, so x̃ moves as x does."""
        if model.gradients is Gradients.NONE and self.epsilon > 0:
            raise PluginError("detector 'odin_liang' needs gradients, and this model has none", "set `epsilon: 0`")
        if self.epsilon > 0:
            with torch.enable_grad():
                moving = x.detach().clone().requires_grad_()
                logits = model.logits(moving) / self.temperature
                loss = F.cross_entropy(logits, logits.detach().argmax(dim=1), reduction="sum")
                (gradient,) = torch.autograd.grad(loss, moving)
            x = x - self.epsilon * gradient.sign()
        return -(model.logits(x).double() / self.temperature).softmax(dim=1).amax(dim=1)
