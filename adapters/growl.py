"""Group-sparse perceptrons with tied weights: inputs that do not matter vanish, correlated ones share their weights."""

import warnings
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.optimize import isotonic_regression
from torch import Tensor, nn

from adapters.compressed import Compressed, Stages
from adapters.recipe import Recipe, rate, train
from bench.contracts import Realisation, Report, Samples, adapter
from bench.errors import PluginError
from bench.randomness import seed_of

DAMPING = 0.95  # of affinity propagation, so that it settles where many weights are nearly alike
SETTLED = 200  # rounds without another exemplar that end it; damped so much, 15 would end it before it begins


@adapter("growl")
class Growl(Compressed):
    """A net whose linear layers lose whole inputs, and whose similar inputs share one row of weights.

    Zhang et al. 2018, "Learning to Share": train with the group ordered weighted L1 penalty Σ λ_i ‖w_[i]‖, w_[i]
    the weights from the input with the i-th largest norm, by a proximal step after each step of the optimiser
    (section 3); cluster the inputs that are left by affinity propagation of the similarity of their weights, in
    direction and in length; then retrain, zeros kept and each cluster's rows equal (section 4). Best with `sgd`:
    Adam's steps do not shrink with the gradient, and the penalty then moves nothing or everything. λ_i falls linearly
    from `strength` + `spread` to `strength` over the share `transition` of the inputs, and stays there (piecewise
    linear decay). `spread` 0 is the group lasso, which ties nothing on purpose. With `lasting` an input that is gone
    stays gone, as in the authors' code; else its next gradient may bring it back. All linear layers but the last are
    treated.
    """

    realised = Realisation.DENSE_WITH_ZEROS

    train: Recipe = Field(
        default=Recipe(epochs=10, optimiser="sgd", learning_rate=0.05), description="the training with the penalty"
    )
    strength: float = Field(default=0.05, ge=0, description="λ of the smallest group")
    spread: float = Field(default=0.03, ge=0, description="what the largest group is charged more")
    transition: float = Field(default=1.0, gt=0, le=1, description="share of the inputs over which λ falls")
    lasting: bool = Field(default=False, description="an input whose weights have all become zero stays out")
    decay: float = Field(default=0.0, ge=0, description="times Σ w²/2 of those layers, is added to the loss (GrOWL+L2)")
    preference: float = Field(
        default=0.8, ge=-1, le=1, description="of affinity propagation: similarity above which inputs tend to be tied"
    )
    tie: Literal["clusters", "none"] = Field(default="clusters", description="whether similar inputs share weights")
    retrain: Recipe = Field(default=Recipe(epochs=1, batch_size=64), description="the training with tied weights")

    def check(self, net: nn.Module) -> None:
        super().check(net)
        treated(net)

    def compress(
        self, net: nn.Module, x: Tensor, y: Tensor, samples: Samples, *, seed: int, report: Report
    ) -> nn.Module:
        stages = Stages(report, 2)
        if stages.state:
            net.load_state_dict(stages.state)
        if not stages.done:
            self._sparsify(net, x, y, samples, seed, stages)
            zeros = {name: float((layer.weight == 0).float().mean()) for name, layer in treated(net).items()}
            stages.end(net.state_dict(), **{f"zeros/{name}": share for name, share in zeros.items()})
        groups = {name: self.groups(layer.weight.detach()) for name, layer in treated(net).items()}
        with torch.no_grad():
            tie(net, groups)
        train(
            net, x, y, self.retrain, seed=seed_of(seed, "tied"), report=stages, bounds=samples.bounds,
            after_step=lambda trained: tie(trained, groups),
        )  # fmt: skip
        return net

    def groups(self, weight: Tensor) -> NDArray[np.int64]:
        """(inputs,) the cluster of each input, -1 for one whose weights are all zero. weight: (units, inputs)."""
        rows = weight.T.double().numpy()
        left = np.flatnonzero(np.linalg.norm(rows, axis=1))
        found = np.full(len(rows), -1, dtype=np.int64)
        found[left] = np.arange(len(left)) if self.tie == "none" else clusters(rows[left], self.preference)
        return found

    def _sparsify(self, net: nn.Module, x: Tensor, y: Tensor, samples: Samples, seed: int, stages: Stages) -> None:
        """Train with the penalty; the proximal step takes the learning rate of the step before it."""
        batches = max(len(x) // self.train.batch_size, 1)
        now = 0.0
        gone: dict[str, Tensor] = {}  # of the weights before a step, so that nothing has to be known of earlier ones

        def before(done: int, total: int) -> None:
            nonlocal now
            now = rate(self.train, done, total, batches)
            gone.update({name: ~layer.weight.any(dim=0) for name, layer in treated(net).items()})

        def after(trained: nn.Module) -> None:
            for name, layer in treated(trained).items():
                layer.weight.copy_(proximal(layer.weight * (1 - now * self.decay), now * self.charges(layer)))
                if self.lasting:
                    layer.weight[:, gone[name]] = 0

        train(
            net, x, y, self.train, seed=seed, report=stages, bounds=samples.bounds, before_step=before, after_step=after
        )  # fmt: skip

    def charges(self, layer: nn.Linear) -> Tensor:
        """λ (inputs,) float64, falling."""
        falling = torch.linspace(1, 0, max(1, round(self.transition * layer.in_features)), dtype=torch.float64)
        rest = falling.new_zeros(layer.in_features - len(falling))
        return self.strength + self.spread * torch.cat([falling, rest])


def treated(net: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers but the last, by name. Raises PluginError where there is none."""
    found = {name: layer for name, layer in net.named_modules() if isinstance(layer, nn.Linear)}
    if len(found) < 2:
        raise PluginError("the net has no linear layer but its last", "give the model `hidden` layers")
    return dict(list(found.items())[:-1])


def proximal(weight: Tensor, charges: Tensor) -> Tensor:
    """argmin over V of ½‖V - weight‖² + Σ charges_i ‖v_[i]‖, v_[i] the column with the i-th largest norm.

    weight: (units, inputs); charges: (inputs,), falling, ≥ 0. The norms become the projection of their sorted values
    less the charges onto the falling, non-negative sequences (Bogdan et al. 2015, SLOPE, section 2); each column keeps
    its direction (Zhang et al. 2018, equation 5).
    """
    norms = weight.detach().double().norm(dim=0)
    ordered, order = norms.sort(descending=True, stable=True)
    shrunk = isotonic_regression((ordered - charges).numpy(), increasing=False).x.clip(min=0)
    target = torch.empty_like(norms)
    target[order] = torch.from_numpy(shrunk)
    out: Tensor = weight * (target / norms.clamp(min=1e-30)).to(weight.dtype)
    return out


def similarity(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, n) w_i·w_j / max(‖w_i‖², ‖w_j‖²), in [-1, 1], of rows (n, units) (Zhang et al. 2018, section 4).

    1 for equal rows alone: rows of one direction but of different lengths are as unlike as their lengths.
    """
    squares = (rows**2).sum(1)
    found: NDArray[np.float64] = rows @ rows.T / np.maximum.outer(squares, squares)
    return found


def clusters(rows: NDArray[np.float64], preference: float) -> NDArray[np.int64]:
    """(n,) the cluster of each row (n, units), none of them 0, by affinity propagation (Frey and Dueck 2007).

    Raises PluginError where it does not converge.
    """
    from sklearn.cluster import AffinityPropagation
    from sklearn.exceptions import ConvergenceWarning

    if len(rows) < 2:
        return np.zeros(len(rows), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        model = AffinityPropagation(
            affinity="precomputed", preference=preference, damping=DAMPING, max_iter=5000, convergence_iter=SETTLED,
            random_state=0,
        )  # fmt: skip
        try:
            found = model.fit(similarity(rows)).labels_
        except ConvergenceWarning as problem:
            raise PluginError(
                f"affinity propagation of {len(rows)} inputs did not converge", "change `preference`, or `tie: none`"
            ) from problem
    return np.asarray(found, dtype=np.int64)


def tie(net: nn.Module, groups: dict[str, NDArray[np.int64]]) -> None:
    """Set each input's weights to the mean over its cluster, and to zero where it has none. In place."""
    for name, layer in treated(net).items():
        cluster = torch.from_numpy(groups[name])
        kept = cluster >= 0
        count = int(cluster.max()) + 1 if kept.any() else 0
        sums = torch.zeros(len(layer.weight), count, dtype=torch.float64)
        sums.index_add_(1, cluster[kept], layer.weight.detach()[:, kept].double())
        means = (sums / torch.bincount(cluster[kept], minlength=count)).to(layer.weight.dtype)
        layer.weight.zero_()
        layer.weight[:, kept] = means[:, cluster[kept]]
