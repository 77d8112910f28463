"""Models, data and radii that do not fit are told before any work, all at once."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

from bench import plugins
from bench.errors import SuiteError
from bench.resolve import Resolver
from bench.store import Store
from bench.suite import Suite

plugins.load_built_in()

Arguments = Mapping[str, Any]
NONE: Arguments = MappingProxyType({})
SHAPE, CLASSES = "models[0].args.input_shape", "models[0].args.classes"


def refusals(
    folder: Path, model: Arguments = NONE, data: Arguments = NONE, attack: Arguments = NONE, detector: Arguments = NONE
) -> list[str]:
    """What is wrong with a model of 2 x 3 values and 3 classes, data like that, and an attack, changed so."""
    (folder / "w").write_bytes(save({"1.weight": torch.zeros(3, 6), "1.bias": torch.zeros(3)}))
    arrays = {"x": np.full((4, 2, 3), 0.5), "y": np.array([0, 1, 2, 2]), **data}
    np.savez(folder / "d.npz", x=arrays.pop("x"), y=arrays.pop("y"))
    args = {"factory": "my:Net", "weights": str(folder / "w"), "input_shape": [2, 3], "classes": 3, **model}
    suite = {
        "name": "fit",
        "models": [{"name": "m", "adapter": "torch", "args": args}],
        "datasets": [{"dataset": "npz", "name": "d", "args": {"path": str(folder / "d.npz"), **arrays}}],
        "evaluations": {
            "attacks": [{"attack": "pgd", "norm": "linf", "epsilons": [0.1], **attack}],
            "detectors": [{"detector": "energy", **detector}] if detector else [],
        },
    }
    try:
        Resolver(Store(str(folder / "store")), Suite.model_validate(suite), "hardware").resolve()
    except SuiteError as error:
        return [str(mistake) for mistake in error.mistakes]
    return []


def far(*shape: int) -> Arguments:
    return {"outliers": {"dataset": "noise", "limit": 3, "args": {"kind": "gaussian", "input_shape": list(shape)}}}


def test_what_fits_is_not_refused(tmp_path: Path) -> None:
    assert refusals(tmp_path) == []
    assert refusals(tmp_path, detector=far(2, 3)) == []
    assert refusals(tmp_path, attack={"epsilons": [1]}) == []  # the whole box is a ball, too
    assert refusals(tmp_path, attack={"norm": "l2", "epsilons": [3]}) == []


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"model": {"input_shape": [3, 2]}}, f"{SHAPE}: 'm' takes inputs of shape [3, 2], those of 'd' have [2, 3]"),
        ({"data": {"y": np.array([1, 2, 3, 3])}}, f"{CLASSES}: 'm' has 3 classes, 0 to 2, but 'd' has the label 3"),
        ({"data": {"bounds": [0, 255]}}, "models[0].args.bounds: 'm' takes values from 0 to 1, those of 'd' go"),
        ({"detector": far(1, 8, 8)}, "detectors[0].outliers: inputs of shape [1, 8, 8], those of 'd' have [2, 3]"),
        (
            {"detector": {"adversarial": {"attack": "pgd", "norm": "linf", "epsilons": [8]}}},
            "evaluations.detectors[0].adversarial.epsilons: 8 is more than the width of the inputs",
        ),
        ({"attack": {"epsilons": [8]}}, "evaluations.attacks[0].epsilons: 8 is more than the width of the inputs"),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(changed: dict[str, Arguments], told: str, tmp_path: Path) -> None:
    found = refusals(tmp_path, **changed)
    assert len(found) == 1
    assert told in found[0]


def test_everything_is_told_at_once_and_nothing_is_stored(tmp_path: Path) -> None:
    found = refusals(tmp_path, {"input_shape": [3, 2]}, {"y": np.array([0, 1, 2, 5])}, {"epsilons": [8]})
    places = [line.partition(":")[0] for line in found]
    assert places == [SHAPE, CLASSES, "evaluations.attacks[0].epsilons"]
    assert found[-1].endswith("did you mean 8/255?")
    assert not (tmp_path / "store").exists()
