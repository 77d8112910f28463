import numpy as np
import pytest
import torch
from pydantic import ValidationError

import adapters.digits  # noqa: F401 - registers the data set
from adapters.outlier_sets import ClassesOf, Noise
from bench.contracts import Bounds, datasets
from bench.errors import DataError, PluginError


def test_classes_are_kept_and_numbered_anew_in_the_order_given() -> None:
    found = ClassesOf(dataset="digits", classes=(7, 2)).load()
    whole = datasets.build("digits", {}).load()
    rows = np.flatnonzero(np.isin(whole.labels, (7, 2)))
    assert (found.labels == (whole.labels[rows] == 2)).all()
    assert found.class_names == ("7", "2")
    assert torch.equal(found.fetch(np.arange(len(found))), whole.fetch(rows))


def test_what_is_held_back_is_the_head_of_numpys_shuffle_and_nothing_is_lost() -> None:
    whole = datasets.build("digits", {"split": "train"}).load()
    rows = np.flatnonzero(np.isin(whole.labels, (0, 1)))
    np.random.default_rng(0).shuffle(rows)
    args = {"dataset": "digits", "classes": (0, 1), "held_back": 20}
    val, train = (ClassesOf(split=split, **args).load() for split in ("val", "train"))
    assert torch.equal(val.fetch(np.arange(20)), whole.fetch(np.sort(rows[:20])))
    assert torch.equal(train.fetch(np.arange(len(train))), whole.fetch(np.sort(rows[20:])))


def test_other_classes_are_another_digest() -> None:
    digests = {ClassesOf(dataset="digits", classes=classes).load().digest for classes in ((0, 1), (1, 0), (0, 2))}
    assert len(digests) == 3


def test_mistakes_are_told_before_or_on_loading() -> None:
    with pytest.raises(PluginError, match="did you mean 'digits'"):
        ClassesOf(dataset="digit", classes=(1,))
    with pytest.raises(ValidationError, match="stands twice"):
        ClassesOf(dataset="digits", classes=(1, 1))
    with pytest.raises(DataError, match=r"no class 10, there are 0\.\.9"):
        ClassesOf(dataset="digits", classes=(10,)).load()
    with pytest.raises(DataError, match="split 'val' is empty"):
        ClassesOf(dataset="digits", classes=(1,), split="val").load()


@pytest.mark.parametrize("kind", ["gaussian", "rademacher", "bernoulli", "blobs"])
def test_noise_depends_on_its_index_alone_and_lies_in_its_bounds(kind: str) -> None:
    short, long = (Noise(kind=kind, input_shape=(3, 9, 9), size=n, bounds=Bounds(-1, 2)).load() for n in (4, 8))
    x = long.fetch(np.arange(8))
    assert torch.equal(x[[3, 1]], short.fetch(np.array([3, 1])))
    assert x.min() >= -1
    assert x.max() <= 2
    assert short.digest != long.digest


def noise(kind: str) -> torch.Tensor:
    return Noise(kind=kind, input_shape=(3, 16, 16), size=200).load().fetch(np.arange(200))


def test_each_kind_of_noise_is_distributed_as_it_says() -> None:
    gaussian, rademacher, bernoulli, blobs = map(noise, ("gaussian", "rademacher", "bernoulli", "blobs"))
    assert float(gaussian.mean()) == pytest.approx(0.5, abs=0.005)
    assert float((gaussian == 0).float().mean()) == pytest.approx(0.1587, abs=0.005)  # Φ(−1): what is clipped
    for coin in (rademacher, bernoulli):
        assert set(coin.unique().tolist()) == {0.0, 1.0}
        assert float(coin.mean()) == pytest.approx(0.5, abs=0.01)
    assert torch.equal(bernoulli[:, 0], bernoulli[:, 2])
    assert not torch.equal(rademacher[:, 0], rademacher[:, 2])
    inside = blobs[blobs > 0]
    assert float(inside.min()) >= 0.75
    assert 0.1 < float((blobs > 0).float().mean()) < 0.6
    neighbours = torch.corrcoef(torch.stack([blobs[..., 1:].flatten(), blobs[..., :-1].flatten()]))
    assert float(neighbours[0, 1]) > 0.5  # blobs, not specks
