"""Randomised smoothing against what is known in closed form, and SciPy's own exact interval."""

import pytest
import torch
from scipy.stats import binomtest, norm
from torch import Tensor, nn

from adapters.smoothed import SmoothedClassifier
from bench.certificates.smoothing import RandomisedSmoothing, lower_end
from bench.contracts import Bounds, Classifier, Norm
from bench.errors import PluginError


class Halves(Classifier):
    """Class 1 on one side of a plane through 0, class 0 on the other."""

    input_shape, bounds, classes = (4,), Bounds(-2, 2), 2

    def __init__(self) -> None:
        self.normal = torch.tensor([0.6, 0.0, 0.8, 0.0])

    def logits(self, x: Tensor) -> Tensor:
        side = x @ self.normal
        return torch.stack([-side, side], dim=1)

    @property
    def module(self) -> nn.Module | None:
        return None


@pytest.mark.parametrize(("votes", "passes"), [(990, 1000), (1000, 1000), (501, 1000), (1, 3), (0, 10)])
def test_the_lower_end_is_that_of_an_exact_interval(votes: int, passes: int) -> None:
    exact = binomtest(votes, passes, alternative="greater").proportion_ci(confidence_level=0.999, method="exact")
    assert lower_end(votes, passes, 0.001) == pytest.approx(exact.low, abs=1e-12)


def test_of_a_linear_classifier_the_radius_is_nearly_the_distance_of_the_plane_and_never_more() -> None:
    """Cohen et al. 2019, appendix B: for a half-space the smoothed answer changes exactly at its plane."""
    model = SmoothedClassifier(Halves(), sigma=0.5)
    distances = torch.linspace(0.05, 0.9, 12)
    x = distances[:, None] * Halves().normal + torch.tensor([0.0, 1.0, 0.0, -1.0])
    certificate = RandomisedSmoothing(estimating=4000)
    radii = torch.tensor([certificate.radius(model, row, 1) for row in x])
    assert bool((radii <= distances).all())
    assert float((distances - radii)[3:].max()) < 0.12
    y = torch.ones(12, dtype=torch.int64)
    assert torch.equal(certificate.proves(model, x, y, 0.3), radii > 0.3)
    assert not bool(certificate.proves(model, x, 1 - y, 0.0).any())


def test_no_radius_is_beyond_what_so_few_passes_can_show() -> None:
    model = SmoothedClassifier(Halves(), sigma=0.5)
    far = 50 * Halves().normal
    most = 0.5 * norm.ppf(0.001 ** (1 / 200))
    assert RandomisedSmoothing(estimating=200).radius(model, far, 1) == pytest.approx(most)


def test_a_radius_belongs_to_the_input_and_leaves_the_generator_alone() -> None:
    model = SmoothedClassifier(Halves(), sigma=0.5)
    x = 0.3 * Halves().normal.expand(3, 4)
    before = torch.get_rng_state()
    certificate = RandomisedSmoothing(norm=Norm.L2, estimating=500)
    assert len({certificate.radius(model, row, 1) for row in x}) == 1
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_without_noise_is_refused_with_the_way_out() -> None:
    with pytest.raises(PluginError, match="adapter: smoothed"):
        RandomisedSmoothing().proves(Halves(), torch.zeros(1, 4), torch.ones(1, dtype=torch.int64), 0.1)
