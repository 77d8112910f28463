"""What every registered detector promises (bench.contracts.Detector)."""

from pathlib import Path

import numpy as np
import pytest

from bench import plugins
from bench.contracts import Detector, detectors
from bench.errors import PluginError
from bench.metering import Untouched
from tests.detectors import nets

plugins.load_built_in()
OURS = [name for name in detectors if detectors.get(name).__module__.startswith("bench.detectors.")]
FITTED = [name for name in OURS if detectors.get(name).fits]
ARGUMENTS: dict[str, dict[str, object]] = {"mc_dropout": {"passes": 5}, "pes": {"q": 20}}
X = nets.inputs(6, seed=3)


def ready(name: str) -> Detector:
    detector = detectors.build(name, ARGUMENTS.get(name, {}))
    return detector.restore(detector.fit(nets.model(), nets.samples(), 0)) if detector.fits else detector


@pytest.mark.parametrize("name", OURS)
def test_scores_each_input_once_in_float64_and_twice_the_same(name: str) -> None:
    detector = ready(name)
    model = nets.model()
    with Untouched(model, name):
        first, again = (detector.score(model, X, nets.streams(6)) for _ in range(2))
    assert first.dtype == np.float64
    assert first.shape == (6,)
    assert np.isfinite(first).all()
    assert (first == again).all()
    assert len(set(first)) > 1


@pytest.mark.parametrize("name", OURS)
def test_a_score_does_not_depend_on_the_neighbours_in_the_batch(name: str) -> None:
    detector, model = ready(name), nets.model()
    whole = detector.score(model, X, nets.streams(6))
    alone = [detector.score(model, X[i : i + 1], nets.streams(1, i))[0] for i in range(6)]
    assert alone == pytest.approx(whole, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("name", FITTED)
def test_a_fit_gives_the_same_bytes_twice_leaves_the_model_alone_and_sets_a_threshold(name: str) -> None:
    detector, model = detectors.build(name, ARGUMENTS.get(name, {})), nets.model()
    with Untouched(model, name):
        first, again = (detector.fit(model, nets.samples(), 1) for _ in range(2))
    assert first == again
    assert first != detector.fit(model, nets.samples(seed=5), 1)
    assert detector.threshold is None
    assert np.isfinite(detector.restore(first).threshold)


@pytest.mark.parametrize("name", FITTED)
def test_before_the_fit_there_are_no_scores_but_a_clear_message(name: str) -> None:
    with pytest.raises(PluginError, match=f"'{name}' has not been fitted"):
        detectors.build(name, {}).score(nets.model(), X, nets.streams(6))


@pytest.mark.parametrize("name", [name for name in OURS if name not in FITTED])
def test_a_detector_that_needs_no_fit_has_no_threshold(name: str) -> None:
    assert detectors.build(name, {}).threshold is None


@pytest.mark.parametrize("name", OURS)
def test_a_detector_and_its_fields_are_documented(name: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / "detectors.md").read_text(encoding="utf-8")
    missing = [field for field in (name, *detectors.get(name).model_fields) if f"`{field}`" not in text]
    assert missing == []
