"""What every registered data set promises. A data set without an example here fails."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import adapters.adversarial
import adapters.cifar
import adapters.digits
import adapters.huggingface
import adapters.idx
import adapters.image_folder
import adapters.npz
import adapters.outlier_sets
import adapters.scipy_docs
import adapters.shifts
import adapters.text_file  # noqa: F401 - each registers its data sets
from bench.catalogue import CATALOGUE
from bench.contracts import Samples, datasets
from bench.data import ROOT
from tests.adapters.formats import idx_bytes, publish, python2_pickle, write_archive, write_idx, write_image

SPLITS = ("train", "test")
Arguments = dict[str, Any]
BUILT_IN = [name for name in datasets if datasets.get(name).__module__.startswith("adapters.")]


def pixels(split: str, *shape: int) -> np.ndarray:
    """Other random bytes for each split and shape."""
    return np.random.default_rng([len(split), *shape]).integers(0, 256, (12, *shape), dtype=np.uint8)


PAGE = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")
LABELS = np.arange(12, dtype=np.uint8) % 3


def digits(root: Path, monkeypatch: pytest.MonkeyPatch) -> Arguments:
    return {}


def idx(root: Path, monkeypatch: pytest.MonkeyPatch) -> Arguments:
    for split in SPLITS:
        write_idx(root / f"letters/{split}-images.gz", pixels(split, 5, 4))
        write_idx(root / f"letters/{split}-labels", LABELS)
    return {"images": "letters/{split}-images.gz", "labels": "letters/{split}-labels"}


def published(folder: str, name: str) -> Callable[[Path, pytest.MonkeyPatch], Arguments]:
    def make(root: Path, monkeypatch: pytest.MonkeyPatch) -> Arguments:
        files = {}
        for stem, split in (("train", "train"), ("t10k", "test")):
            files[f"{stem}-images-idx3-ubyte"] = pixels(split, 28, 28)
            files[f"{stem}-labels-idx1-ubyte"] = LABELS
        for file, array in files.items():
            write_idx(root / folder / f"{file}.gz", array)
        publish(monkeypatch, name, {file: idx_bytes(array) for file, array in files.items()})
        return {}

    return make


def cifar10(root: Path, monkeypatch: pytest.MonkeyPatch) -> Arguments:
    rows = {f"data_batch_{number}": pixels("train", 3072) for number in range(1, 6)} | {
        "test_batch": pixels("test", 3072)
    }
    batches = {name: python2_pickle({b"data": data, b"labels": LABELS.tolist()}) for name, data in rows.items()}
    publish(monkeypatch, "cifar10", batches)
    write_archive(root / "cifar10/cifar-10-python.tar.gz", "cifar-10-batches-py", batches)
    np.savez(root / "cifar10/train_10k.npz", x=pixels("train_10k", 32, 32, 3), y=LABELS)
    return {}


def cifar100(root: Path, monkeypatch: pytest.MonkeyPatch) -> Arguments:
    files = {split: {b"data": pixels(split, 3072), b"fine_labels": LABELS.tolist()} for split in SPLITS}
    contents = {name: python2_pickle(value) for name, value in files.items()}
    contents["meta"] = python2_pickle({b"fine_label_names": [b"apple", b"bear", b"camel"]})
    publish(monkeypatch, "cifar100", contents)
    write_archive(root / "cifar100/cifar-100-python.tar.gz", "cifar-100-python", contents)
    return {}


def npz(root: Path, monkeypatch: pytest.MonkeyPatch) -> Arguments:
    for split in SPLITS:
        np.savez(root / f"{split}.npz", x=pixels(split, 5, 4, 3), y=LABELS)
    return {"path": "{split}.npz"}


def image_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> Arguments:
    for split in SPLITS:
        for index, (image, label) in enumerate(zip(pixels(split, 5, 4, 3), LABELS, strict=True)):
            write_image(root / f"pets/{split}/class{label}/{index}.png", image)
    return {"path": "pets", "size": (5, 4)}


def classes_of(root: Path, monkeypatch: pytest.MonkeyPatch) -> Arguments:
    return {"dataset": "digits", "classes": [3, 1], "held_back": 50}


def adversarial(root: Path, monkeypatch: pytest.MonkeyPatch) -> Arguments:
    original = pixels("test", 3, 5, 4).astype(np.float32) / 255
    moved = np.clip(original + 0.03, 0, 1)
    facts = {"label": LABELS, "crafted": LABELS > 0, "bounds": np.array([0.0, 1.0]), "classes": np.array(3)}
    np.savez(root / "pgd.npz", original=original, adversarial=moved, **facts)
    return {"path": "pgd.npz"}


def noise(root: Path, monkeypatch: pytest.MonkeyPatch) -> Arguments:
    return {"kind": "blobs", "input_shape": (3, 8, 8), "size": 40}


def corrupted(root: Path, monkeypatch: pytest.MonkeyPatch) -> Arguments:
    return {"dataset": "digits", "limit": 12, "corruptions": ["fog", "shot_noise"], "severities": [2]}


def rotated(root: Path, monkeypatch: pytest.MonkeyPatch) -> Arguments:
    return {"dataset": "digits", "limit": 12, "angles": [0, 20, 90]}


def huggingface(root: Path, monkeypatch: pytest.MonkeyPatch) -> Arguments:
    library = pytest.importorskip("datasets", reason="the extra `huggingface` is not installed")
    columns = library.Features({"image": library.Image(), "label": library.ClassLabel(names=["a", "b", "c"])})
    splits = {}
    for split in SPLITS:
        files = [
            str(write_image(root / f"raw/{split}{i}.png", image)) for i, image in enumerate(pixels(split, 5, 4, 3))
        ]
        content = [{"path": None, "bytes": Path(file).read_bytes()} for file in files]
        splits[split] = library.Dataset.from_dict({"image": content, "label": LABELS.tolist()}, features=columns)
    library.DatasetDict(splits).save_to_disk(str(root / "saved"))
    return {"path": "saved", "size": (5, 4)}


def text_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> Arguments:
    for split in SPLITS:
        lines = [f"{split} says word{number} number {number},{number % 3}\n" for number in range(12)]
        (root / f"{split}.csv").write_text("text,label\n" + "".join(lines))
    return {"path": "{split}.csv"}


EXAMPLES: dict[str, Callable[[Path, pytest.MonkeyPatch], Arguments]] = {
    "digits": digits,
    "idx": idx,
    "mnist": published("mnist", "mnist"),
    "fashion_mnist": published("fashion-mnist", "fashion_mnist"),
    "notmnist": published("notmnist", "notmnist"),
    "cifar10": cifar10,
    "cifar100": cifar100,
    "npz": npz,
    "image_folder": image_folder,
    "huggingface": huggingface,
    "adversarial": adversarial,
    "classes_of": classes_of,
    "noise": noise,
    "scipy_docs": digits,
    "text_file": text_file,
    "corrupted": corrupted,
    "rotated": rotated,
}


@dataclass
class Example:
    """Loads one data set from files that the example makes, in one folder or another."""

    name: str
    place: Path
    monkeypatch: pytest.MonkeyPatch
    made: dict[str, Arguments] = field(default_factory=dict)

    @property
    def splits(self) -> tuple[str, ...]:
        return datasets.get(self.name).splits

    def __call__(self, split: str = "test", folder: str = "data") -> Samples:
        root = self.place / folder
        self.monkeypatch.setenv(ROOT, str(root))
        if folder not in self.made:
            root.mkdir()
            self.made[folder] = EXAMPLES[self.name](root, self.monkeypatch)
        return datasets.build(self.name, {"split": split, **self.made[folder]}).load()


@pytest.fixture(params=BUILT_IN)
def load(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Example:
    assert request.param in EXAMPLES, f"data set '{request.param}' has no example in tests/contracts/test_datasets.py"
    return Example(request.param, tmp_path, monkeypatch)


def test_the_examples_are_of_data_sets_that_exist() -> None:
    assert set(EXAMPLES) == set(BUILT_IN)


def test_samples_have_the_promised_shapes_types_and_bounds(load: Example) -> None:
    for split in load.splits:
        samples = load(split)
        n = len(samples)
        assert n > 1
        assert samples.labels.shape == (n,)
        assert samples.labels.dtype == np.int64
        assert samples.labels.min() >= 0
        assert samples.labels.max() < len(samples.class_names)
        assert len(set(samples.class_names)) == len(samples.class_names)
        assert all(np.shape(column) == (n,) for column in samples.groups.values())
        x = samples.fetch(np.arange(n))
        assert x.shape == (n, *samples.input_shape)
        assert x.dtype == (torch.int64 if samples.vocabulary else torch.float32)
        assert not samples.vocabulary or samples.bounds == (0, len(samples.vocabulary) - 1)
        assert not x.requires_grad
        assert samples.bounds.low <= float(x.min()) < float(x.max()) <= samples.bounds.high


def test_fetch_respects_the_order_repeats_and_emptiness(load: Example) -> None:
    samples = load()
    everything = samples.fetch(np.arange(len(samples)))
    order = np.array([5, 0, 5, len(samples) - 1, 2], dtype=np.int64)
    assert torch.equal(samples.fetch(order), everything[torch.from_numpy(order)])
    assert samples.fetch(np.array([], dtype=np.int64)).shape == (0, *samples.input_shape)


def test_what_is_fetched_may_be_changed_without_changing_the_data(load: Example) -> None:
    samples = load()
    first = samples.fetch(np.array([1, 2]))
    kept = first.clone()
    first.fill_(3 if samples.vocabulary else 0.5)
    assert torch.equal(samples.fetch(np.array([1, 2])), kept)


def test_an_index_outside_the_data_is_an_index_error(load: Example) -> None:
    samples = load()
    for wrong in (-1, len(samples)):
        with pytest.raises(IndexError, match=rf"indices must be in \[0, {len(samples)}\)"):
            samples.fetch(np.array([0, wrong], dtype=np.int64))
    with pytest.raises(TypeError, match="indices must be integers"):
        samples.fetch(np.array([0.5]))


def test_the_digest_depends_on_the_content_not_on_the_place_or_the_time(load: Example) -> None:
    one, again, elsewhere = load(), load(), load(folder="elsewhere")
    assert one.digest == again.digest == elsewhere.digest
    indices = np.arange(len(one))
    assert torch.equal(one.fetch(indices), elsewhere.fetch(indices))
    assert len({load(split).digest for split in load.splits}) == len(load.splits)


def test_no_input_is_in_two_splits(load: Example) -> None:
    seen: set[bytes] = set()
    for split in load.splits:
        samples = load(split)
        rows = {row.numpy().tobytes() for row in samples.fetch(np.arange(len(samples)))}
        assert not seen & rows
        seen |= rows


@pytest.mark.parametrize("name", BUILT_IN)
def test_an_unknown_split_or_argument_is_refused_before_anything_is_read(
    name: str, tmp_path: Path, monkeypatch
) -> None:
    if name == "huggingface":
        pytest.importorskip("datasets", reason="the extra `huggingface` is not installed")
    arguments = EXAMPLES[name](tmp_path, monkeypatch)
    for wrong in ({"split": "../other"}, {"splitt": "test"}):
        with pytest.raises(ValueError, match="split"):
            datasets.build(name, arguments | wrong)


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_data_set_has_a_summary(name: str) -> None:
    assert len(datasets.get(name).summary()) > 20
    assert datasets.get(name).summary().endswith(".")


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_data_set_is_documented(name: str) -> None:
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_file_to_fetch_is_documented_with_folder_size_and_checksum(name: str) -> None:
    for file in CATALOGUE[name].files:
        assert f"| `{CATALOGUE[name].folder}/{file.name}` | {file.size:,} | `{file.md5}` |" in PAGE
