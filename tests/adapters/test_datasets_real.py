"""The real files, where they are: counts, checksums, class histograms, against plain readers."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from adapters.cifar import Cifar10
from adapters.idx import FashionMnist, Idx, Mnist, NotMnist
from adapters.npz import Npz
from bench.data import ROOT
from bench.errors import DataError

MNIST = {  # class counts, as LeCun's page and every textbook have them
    "train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    "test": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
}


@pytest.fixture
def root(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(ROOT, str(shared_data))
    return shared_data


@pytest.mark.parametrize("split", ["train", "test"])
def test_mnist_has_its_counts_and_pixels(split: str, root: Path) -> None:
    samples = Mnist(split=split).load()
    assert np.bincount(samples.labels).tolist() == MNIST[split]
    stem = "train" if split == "train" else "t10k"
    with gzip.open(root / f"mnist/{stem}-images-idx3-ubyte.gz") as file:
        magic, count, height, width = struct.unpack(">IIII", file.read(16))
        file.seek(16 + 4321 * 784)
        image = file.read(784)
    assert (magic, count, height, width) == (2051, len(samples), 28, 28)
    assert torch.equal(samples.fetch(np.array([4321])).flatten(), torch.tensor(list(image)) / 255)


def test_fashion_mnist_and_notmnist_are_balanced(root: Path) -> None:
    assert np.bincount(FashionMnist(split="train").load().labels).tolist() == [6000] * 10
    assert np.bincount(FashionMnist().load().labels).tolist() == [1000] * 10
    assert np.bincount(NotMnist().load().labels).tolist() == [1000] * 10


def test_mnist_unpacked_elsewhere_and_as_npz_has_the_same_digest(root: Path, tmp_path: Path, monkeypatch) -> None:
    packed = Mnist().load().digest
    arguments = {part: root / f"mnist/t10k-{part}-idx{rank}-ubyte.gz" for part, rank in (("images", 3), ("labels", 1))}
    assert Idx(**arguments).load().digest == packed
    (tmp_path / "mnist").mkdir()
    for file in (root / "mnist").glob("t10k*"):
        (tmp_path / "mnist" / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
    monkeypatch.setenv(ROOT, str(tmp_path))
    assert Mnist().load().digest == packed
    images = np.frombuffer((tmp_path / "mnist/t10k-images-idx3-ubyte").read_bytes()[16:], np.uint8)
    labels = np.frombuffer((tmp_path / "mnist/t10k-labels-idx1-ubyte").read_bytes()[8:], np.uint8)
    np.savez(tmp_path / "mnist.npz", x=images.reshape(-1, 28, 28, 1), y=labels)
    assert Npz(path="mnist.npz").load().digest == packed


def test_one_changed_bit_of_mnist_is_noticed(root: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "mnist").mkdir()
    for file in (root / "mnist").glob("t10k*"):
        content = bytearray(gzip.decompress(file.read_bytes()))
        content[5000] ^= 1
        (tmp_path / "mnist" / file.stem).write_bytes(content)
    monkeypatch.setenv(ROOT, str(tmp_path))
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte is not the published one"):
        Mnist().load()


def test_cifar10_in_npz_form_has_its_counts_and_pixels(root: Path) -> None:
    samples = Cifar10().load()
    assert np.bincount(samples.labels).tolist() == [1000] * 10
    with np.load(root / "cifar10/test.npz") as arrays:
        image, label = arrays["x"][77], arrays["y"][77]
    assert samples.labels[77] == label
    assert torch.equal(samples.fetch(np.array([77]))[0].permute(1, 2, 0), torch.tensor(image) / 255)
    assert len(Cifar10(split="train_10k").load()) == 10_000
    with pytest.raises(DataError, match="gauntlet data fetch cifar10"):
        Cifar10(split="train").load()
