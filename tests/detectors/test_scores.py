"""Each score against a few plain lines, sign included: larger is more outlying."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Tensor

from bench import plugins
from bench.contracts import Bounds, Classifier, detectors

plugins.load_built_in()
LOGITS = torch.randn(200, 7, generator=torch.Generator().manual_seed(0)) * 6


class Fixed(Classifier):
    """Hands back its input as scores."""

    input_shape = (7,)
    bounds = Bounds(-100, 100)
    classes = 7

    def logits(self, x: Tensor) -> Tensor:
        return x


def softmax(z: np.ndarray) -> np.ndarray:
    return special.softmax(z, axis=1)


REFERENCES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "max_softmax": lambda z: -softmax(z).max(axis=1),
    "max_logit": lambda z: -z.max(axis=1),
    "energy": lambda z: -special.logsumexp(z, axis=1),
    "entropy": lambda z: stats.entropy(softmax(z), axis=1),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_the_score_is_what_scipy_computes(name: str):
    found = detectors.build(name, {}).score(Fixed(), LOGITS)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, REFERENCES[name](LOGITS.double().numpy()), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", REFERENCES)
def test_an_unsure_prediction_is_more_outlying_than_a_sure_one(name: str):
    sure, unsure = detectors.build(name, {}).score(Fixed(), torch.tensor([[9.0] + [0.0] * 6, [1.0] + [0.0] * 6]))
    assert unsure > sure


def test_saturated_scores_do_not_tie_as_they_would_in_float32():
    x = torch.tensor([[20.0] + [0.0] * 6, [25.0] + [0.0] * 6, [30.0] + [0.0] * 6])
    assert len(set(detectors.build("max_softmax", {}).score(Fixed(), x))) == 3


def test_the_temperature_of_the_energy_scales_before_and_after():
    found = detectors.build("energy", {"temperature": 3.0}).score(Fixed(), LOGITS)
    np.testing.assert_allclose(found, -3 * special.logsumexp(LOGITS.double().numpy() / 3, axis=1))


def test_every_detector_is_in_the_documentation():
    text = (Path(__file__).parents[2] / "docs" / "detectors.md").read_text(encoding="utf-8")
    ours = [name for name in detectors if detectors.get(name).__module__.startswith("bench.")]
    assert [name for name in ours if f"`{name}`" not in text] == []
