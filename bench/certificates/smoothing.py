"""Randomised smoothing (Cohen et al. 2019, arXiv:1902.02918, theorem 1 and the algorithm CERTIFY)."""

import hashlib
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from scipy.stats import beta, norm
from torch import Tensor

from bench.contracts import Certificate, Classifier, Norm, certificate
from bench.errors import PluginError
from bench.randomness import seed_of

CHUNK = 500  # passes of one input at once


@certificate("smoothing")
class RandomisedSmoothing(Certificate):
    """The answer that a model gives most often under Gaussian noise holds in an L2 ball, except with chance `alpha`.

    `choosing`: passes that choose the answer; `estimating`: further ones that bound its share from below.
    """

    norms: ClassVar[tuple[Norm, ...]] = (Norm.L2,)
    requires: ClassVar[tuple[str, ...]] = ("torch", "scipy")

    norm: Norm = Norm.L2
    choosing: Annotated[int, Field(ge=1)] = 100
    estimating: Annotated[int, Field(ge=1)] = 10_000
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.001

    def proves(self, model: Classifier, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        """See Certificate.proves. The noise belongs to the input: the same at every epsilon, and in every batch.

        Raises PluginError for a model that adds no Gaussian noise to its inputs.
        """
        if model.smoothing is None:
            raise PluginError(
                "certificate 'smoothing' is for models that answer under Gaussian noise",
                "wrap the model: `adapter: smoothed, args: {model: {adapter: …}, sigma: 0.25}`",
            )
        radii = [self.radius(model, row, int(label)) for row, label in zip(x, y, strict=True)]
        return torch.tensor(radii, dtype=torch.float64, device=x.device) > epsilon

    def radius(self, model: Classifier, x: Tensor, y: int) -> float:
        """The certified radius of one input (*input_shape), in input units; 0 where the answer is not y or not sure."""
        assert model.smoothing is not None
        digest = hashlib.blake2b(x.detach().cpu().contiguous().numpy().tobytes(), digest_size=8).hexdigest()
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed_of("smoothing", digest))
            if int(_votes(model, x, self.choosing).argmax()) != y:
                return 0.0
            votes = int(_votes(model, x, self.estimating)[y])
        share = lower_end(votes, self.estimating, self.alpha)
        return model.smoothing * float(norm.ppf(share)) if share > 0.5 else 0.0


def lower_end(votes: int, passes: int, alpha: float) -> float:
    """Lower end of the one-sided interval of a share, at confidence 1 - alpha (Clopper and Pearson 1934)."""
    return 0.0 if votes == 0 else float(beta.ppf(alpha, votes, passes - votes + 1))


def _votes(model: Classifier, x: Tensor, passes: int) -> Tensor:
    """How often (classes,) each class is the answer; NaN scores answer nothing."""
    votes = torch.zeros(model.classes, dtype=torch.int64)
    for begin in range(0, passes, CHUNK):
        count = min(CHUNK, passes - begin)
        logits = model.logits(x.expand(count, *x.shape)).cpu()
        said = logits.argmax(1)[~logits.isnan().any(1)]
        votes += torch.bincount(said, minlength=model.classes)
    return votes
