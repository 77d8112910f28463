"""What adaptive attacks follow: each detector's score as a tensor, held to the score itself and to its differences."""

import numpy as np
import pytest
import torch

from bench import plugins
from bench.contracts import Detector, detectors
from bench.errors import PluginError
from tests.detectors import nets

plugins.load_built_in()
SMOOTH = [
    ("max_softmax", {}),
    ("max_logit", {}),
    ("energy", {"temperature": 2.0}),
    ("entropy", {}),
    ("odin_liang", {"temperature": 10.0, "epsilon": 0.01}),
    ("mahalanobis", {}),
    ("knn", {"k": 5, "layer": "norm", "pool": True}),
    ("vim", {}),
    ("ensemble", {}),
    ("ensemble", {"measure": "mutual_information"}),
    ("aes", {}),
    ("odin_pca", {"layer": "norm", "r2": 0.8}),
    ("odin_pca", {"scores": ["mahalanobis"], "r2": 0.9}),
    ("odin_pca", {"scores": ["rss", "mahalanobis"], "combine": "and", "r2": 0.7}),
]
WITHOUT = [
    ("odin_pca", {"scores": ["lof"]}),
    ("mc_dropout", {"passes": 3}),
    ("ensemble", {"measure": "variation_ratio"}),
    ("pes", {"q": 20}),
]


def ready(name: str, args: dict) -> Detector:
    made = detectors.build(name, args)
    return made.restore(made.fit(nets.model(), nets.samples(), 0)) if made.fits else made


@pytest.mark.parametrize(("name", "args"), SMOOTH)
def test_it_is_the_score_and_its_gradient_is_that_of_the_score(name: str, args: dict) -> None:
    detector, model = ready(name, args), nets.model()
    x = nets.inputs(4, seed=9).requires_grad_()
    found = detector.differentiable(model, x)
    assert found.dtype == torch.float64
    scores = detector.score(model, x.detach(), nets.streams(4))
    assert found.detach().numpy() == pytest.approx(scores, rel=1e-5)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    assert gradient.abs().amax() > 0
    size = 5e-3 * float(1 / gradient.flatten(1).norm(dim=1).max())
    ahead, behind = (detector.score(model, x.detach() + way * size * gradient, nets.streams(4)) for way in (1, -1))
    expected = 2 * size * gradient.square().flatten(1).sum(dim=1).double().numpy()
    assert ((ahead - behind) > 0).all()
    assert np.median((ahead - behind) / expected) == pytest.approx(1, abs=0.15)  # kinks of ReLU, nearest and sign


@pytest.mark.parametrize(("name", "args"), WITHOUT)
def test_a_detector_without_a_gradient_says_so(name: str, args: dict) -> None:
    detector = ready(name, args)
    assert detector.differentiable(nets.model(), nets.inputs(2)) is None
    with pytest.raises(PluginError, match=f"'{name}' has no gradient that an adaptive attack could follow"):
        detector.suspicion(nets.model(), nets.inputs(2))


def test_the_list_above_is_of_all_detectors_that_have_one() -> None:
    ours = [name for name in detectors if detectors.get(name).__module__.startswith("bench.detectors.")]
    having = {name for name in ours if "differentiable" in vars(detectors.get(name))}
    assert having == {name for name, _ in SMOOTH}


def test_suspicion_is_above_zero_where_the_input_is_flagged() -> None:
    detector, model, x = ready("odin_pca", {"quantile": 0.5}), nets.model(), nets.inputs(40, seed=4)
    flagged = detector.score(model, x, nets.streams(40)) > detector.threshold
    assert (detector.suspicion(model, x).detach().numpy() > 0).tolist() == flagged.tolist()
    assert 0 < flagged.sum() < 40
