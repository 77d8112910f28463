"""Virtual-logit matching: Wang et al. 2022, ViM: Out-of-Distribution with Virtual-logit Matching, section 4."""

from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from bench.contracts import Classifier, Samples, detector
from bench.detectors._features import WIDEST, Rows, blocks, last_linear, penultimate
from bench.detectors._fitted import Arrays, Fitted
from bench.errors import PluginError


@detector("vim")
class Vim(Fitted):
    """The residual of the features as a logit of its own: α·residual − logsumexp(logits).

    Features z enter the last linear layer (W, b); the origin is u = −W⁺b; the residual is the length of z − u outside
    the `dimensions` leading eigenvectors of Σ (z−u)(z−u)ᵀ, which is not centred; α = Σ max logit / Σ residual over the
    fitted samples. dimensions None: the authors' choice, 1,000 from 2,048 features on, 512 from 768 on, else half.
    """

    dimensions: Annotated[int, Field(gt=0)] | None = None

    def learn(self, model: Classifier, samples: Samples, rows: Rows) -> Arrays:
        final = last_linear(model)
        weight = final.weight.detach().double().cpu()
        bias = torch.zeros(len(weight), dtype=torch.float64) if final.bias is None else final.bias.detach().double()
        origin = -torch.linalg.pinv(weight) @ bias.cpu()
        m = weight.shape[1]
        kept = self.dimensions or (1000 if m >= 2048 else 512 if m >= 768 else m // 2)
        if not kept < m <= WIDEST:
            raise PluginError(f"detector 'vim' keeps {kept} of {m} features", f"give fewer `dimensions` than {m}")
        scatter = torch.zeros((m, m), dtype=torch.float64)
        for x in blocks(model, samples, rows, self.fit_batch):
            with torch.no_grad():
                z = penultimate(model, x)[0].double().cpu() - origin
            scatter += z.T @ z
        null = torch.linalg.eigh(scatter)[1][:, : m - kept]  # ascending: the least ones first
        arrays = {"origin": origin.numpy(), "null": null.numpy(), "alpha": np.ones(1)}
        pairs = [self._knowing(arrays)._parts(model, x) for x in blocks(model, samples, rows, self.fit_batch)]
        largest = sum(float(logits.max(axis=1).sum()) for _, logits in pairs)
        residual = sum(float(lengths.sum()) for lengths, _ in pairs)
        if not residual > 0:
            raise PluginError("detector 'vim': no features lie outside the principal space", "give fewer `dimensions`")
        return {**arrays, "alpha": np.array([largest / residual])}

    def differentiable(self, model: Classifier, x: Tensor) -> Tensor:
        z, logits = penultimate(model, x)
        off = (z.double() - self.tensor("origin", z)) @ self.tensor("null", z)
        found: Tensor = self.tensor("alpha", z) * off.norm(dim=1) - logits.double().logsumexp(dim=1)
        return found

    def distances(self, model: Classifier, x: Tensor) -> NDArray[np.float64]:
        lengths, logits = self._parts(model, x)
        energy = np.logaddexp.reduce(logits, axis=1)
        return np.asarray(self.known("alpha") * lengths - energy)[:, np.newaxis]

    def _parts(self, model: Classifier, x: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lengths of the residuals (n,), and logits (n, classes)."""
        with torch.no_grad():
            z, logits = penultimate(model, x)
        off = z.double().cpu().numpy() - self.known("origin")
        return np.linalg.norm(off @ self.known("null"), axis=1), logits.double().cpu().numpy()
