import numpy as np
import pytest
import torch
from pydantic import ValidationError

import adapters.digits
import adapters.outlier_sets  # noqa: F401 - both register data sets
from adapters.corruptions import corrupt
from adapters.shifts import Corrupted, Rotated
from bench.contracts import datasets
from bench.errors import DataError, PluginError
from bench.randomness import seed_of

TWO = {"dataset": "digits", "limit": 10, "corruptions": ("fog", "contrast"), "severities": (1, 5)}


def test_copies_of_the_same_samples_follow_each_other_and_say_what_was_done_to_them() -> None:
    found = Corrupted(**TWO).load()
    whole = datasets.build("digits", {}).load()
    assert len(found) == 5 * 10
    assert found.groups["corruption"].tolist() == ["untouched"] * 10 + ["fog"] * 20 + ["contrast"] * 20
    assert found.groups["severity"].tolist() == ["0"] * 10 + (["1"] * 10 + ["5"] * 10) * 2
    assert (found.labels.reshape(5, 10) == found.labels[:10]).all()
    x = found.fetch(np.arange(50)).reshape(5, 10, 1, 8, 8)
    matches = (whole.fetch(np.arange(450))[:, None] == x[0]).flatten(2).all(dim=2)
    assert matches.any(dim=0).all()
    expected = (x[0] - x[0].mean(dim=(2, 3), keepdim=True)) * 0.75 + x[0].mean(dim=(2, 3), keepdim=True)
    assert torch.allclose(x[3], expected, atol=1e-6)


def test_the_randomness_is_that_of_the_sample_not_of_the_batch_or_the_copy() -> None:
    found = Corrupted(dataset="digits", corruptions=("gaussian_noise",), severities=(3,)).load()
    x = found.fetch(np.array([450 + 7, 3, 450 + 2]))
    clean = found.fetch(np.array([7]))[0].double().numpy()
    stream = np.random.default_rng(seed_of(0, "corrupted/gaussian_noise/3", 7))
    assert x[0].numpy() == pytest.approx(corrupt(clean, "gaussian_noise", 3, stream), abs=1e-6)
    assert torch.equal(x[1:2], found.fetch(np.array([3])))


def test_another_setting_is_another_digest() -> None:
    changes = [{}, {"severities": (1,)}, {"seed": 1}, {"untouched": False}, {"limit": 9}, {"variant": "imagenet_c"}]
    digests = {Corrupted(**{**TWO, **change}).load().digest for change in changes}
    assert len(digests) == len(changes)
    assert Rotated(dataset="digits", angles=(0,)).load().digest != Rotated(dataset="digits", angles=(1,)).load().digest


def test_mistakes_are_told_before_anything_is_loaded() -> None:
    with pytest.raises(ValidationError, match="no corruption 'frog'"):
        Corrupted(dataset="digits", corruptions=("frog",))
    with pytest.raises(ValidationError, match="stands twice"):
        Corrupted(dataset="digits", severities=(1, 1))
    with pytest.raises(ValidationError, match="is a shift already"):
        Rotated(dataset="corrupted", args={"dataset": "digits"})
    with pytest.raises(PluginError, match="did you mean 'digits'"):
        Rotated(dataset="digit")
    with pytest.raises(ValidationError, match="stands twice"):
        Rotated(dataset="digits", angles=(15, 15.0))


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(DataError, match="images of 1 or 3 channels"):
        Rotated(dataset="noise", args={"kind": "gaussian", "input_shape": [5]}).load()


def test_right_angles_are_exact_and_others_turn_the_same_way() -> None:
    found = Rotated(dataset="digits", angles=(0, 90, 180, 270, 88, 180.5)).load()
    n = len(found) // 6
    x = found.fetch(np.arange(len(found))).reshape(6, n, 1, 8, 8)
    for quarter in range(4):
        assert torch.equal(x[quarter], x[0].rot90(quarter, (2, 3)))
    inner = (..., slice(2, 6), slice(2, 6))
    assert (x[4][inner] - x[1][inner]).abs().mean() < 0.05 < (x[4][inner] - x[3][inner]).abs().mean()
    assert (x[5][inner] - x[2][inner]).abs().mean() < 0.02
    assert set(found.groups["angle"]) == {"0", "90", "180", "270", "88", "180.5"}


def test_a_rotation_turns_a_point_counter_clockwise_about_the_centre() -> None:
    image = torch.zeros(1, 1, 9, 9)
    image[..., 4, 8] = 1  # right of the centre
    turned = Rotated(dataset="digits", angles=(45,)).shift(image, np.array([0]), 0)[0, 0]
    assert turned[:3, 6:].sum() > 0.9 * turned.sum() > 0  # up and to the right
