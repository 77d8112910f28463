"""What each data set reads, what it refuses, and what it then says."""

import gzip
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from adapters.cifar import Cifar10, Cifar100
from adapters.digits import Digits
from adapters.idx import Idx, Mnist, NotMnist
from adapters.image_folder import ImageFolder
from adapters.npz import Npz
from bench.data import ROOT
from bench.errors import DataError
from tests.adapters.formats import (
    idx_bytes,
    publish,
    python2_pickle,
    write_archive,
    write_idx,
    write_image,
)

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 5, 4), dtype=np.uint8)
LABELS = np.arange(12, dtype=np.uint8) % 3


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(ROOT, str(tmp_path))
    return tmp_path


def idx(root: Path, **changes: object) -> Idx:
    return Idx(**{"images": root / "x", "labels": root / "y"} | changes)


# --- digits -----------------------------------------------------------------------------------------------------------


def test_digits_are_scikit_learns_images_divided_by_16_each_in_exactly_one_split() -> None:
    source = load_digits()
    rows = []
    for split in ("train", "test"):
        found = Digits(split=split).load()
        pixels = found.fetch(np.arange(len(found))).mul(16).reshape(-1, 64).numpy()
        rows += [(*row, label) for row, label in zip(pixels.tolist(), found.labels.tolist(), strict=True)]
    expected = [(*row, label) for row, label in zip(source.data.tolist(), source.target.tolist(), strict=True)]
    assert sorted(rows) == sorted(expected)
    assert len(set(rows)) == 1797  # no image twice: so none in both splits


def test_digits_split_is_stratified_and_the_same_for_ever() -> None:
    test, train = Digits().load(), Digits(split="train").load()
    assert (len(test), len(train)) == (450, 1347)
    share = np.bincount(test.labels) / np.bincount(np.concatenate([test.labels, train.labels]))
    assert np.all(np.abs(share - 450 / 1797) < 1 / 170)
    assert test.digest == "9d349881ce8b4c0990fb447574b15b95"
    assert train.digest == "e9021e3188fe1744f1bb471db1d97f65"


# --- IDX --------------------------------------------------------------------------------------------------------------


def test_idx_reads_grey_colour_and_flat_inputs(root: Path) -> None:
    write_idx(root / "y", LABELS)
    for shape, expected in (((5, 4), (1, 5, 4)), ((1, 5, 4), (1, 5, 4)), ((20,), (20,))):
        write_idx(root / "x", IMAGES.reshape(12, *shape))
        found = idx(root).load()
        assert found.input_shape == expected
        assert torch.equal(found.fetch(np.array([7])), torch.tensor(IMAGES[7:8].reshape(1, *expected) / 255).float())
        assert found.class_names == ("0", "1", "2")


def test_idx_takes_the_split_into_its_paths(root: Path) -> None:
    for split, start in (("train", 0), ("test", 6)):
        write_idx(root / f"{split}-x.gz", IMAGES[start : start + 6])
        write_idx(root / f"{split}-y.gz", LABELS[start : start + 6])
    for split, start in (("train", 0), ("test", 6)):
        found = Idx(images="{split}-x.gz", labels="{split}-y.gz", split=split).load()
        assert found.fetch(np.array([0])).mul(255).flatten().tolist() == IMAGES[start].flatten().tolist()
    with pytest.raises(ValueError, match="split"):
        Idx(images="{split}", labels="{split}", split="../secret")


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (b"PNG", idx_bytes(LABELS), r"x: begins with 0x504e47, expected 0x00000802 or 0x00000803 or 0x00000804"),
        (b"", idx_bytes(LABELS), "x: begins with 0x,"),
        (idx_bytes(LABELS), idx_bytes(IMAGES), "Are images and labels exchanged"),
        (b"\0\0\x0d\3" + idx_bytes(IMAGES)[4:], idx_bytes(LABELS), "begins with 0x00000d03"),
        (idx_bytes(IMAGES)[:-1], idx_bytes(LABELS), r"x: 255 bytes, expected 256 for the shape \(12, 5, 4\)"),
        (idx_bytes(IMAGES) + b"!", idx_bytes(LABELS), "x: 257 bytes, expected 256"),
        (idx_bytes(IMAGES)[:6], idx_bytes(LABELS), "x: 6 bytes, expected 16"),
        (gzip.compress(idx_bytes(IMAGES))[:-9], idx_bytes(LABELS), "x: gzip stream is damaged or cut off"),
        (idx_bytes(IMAGES), idx_bytes(LABELS[:-1]), "12 inputs, but 11 labels"),
        (idx_bytes(IMAGES[:0]), idx_bytes(LABELS[:0]), "no samples"),
    ],
)
def test_idx_says_what_is_wrong_with_a_file(images: bytes, labels: bytes, message: str, root: Path) -> None:
    (root / "x").write_bytes(images)
    (root / "y").write_bytes(labels)
    with pytest.raises(DataError, match=message):
        idx(root).load()


def test_a_label_outside_the_classes_is_named_with_its_sample(root: Path) -> None:
    write_idx(root / "x", IMAGES)
    write_idx(root / "y", LABELS)
    with pytest.raises(DataError, match=r"label 2 of sample 2 is outside 0..1 \(4 labels are\)"):
        idx(root, class_names=("zero", "one")).load()


def test_published_sets_refuse_bytes_that_were_not_published(root: Path) -> None:
    write_idx(root / "mnist/t10k-images-idx3-ubyte.gz", IMAGES)
    write_idx(root / "mnist/t10k-labels-idx1-ubyte", LABELS)
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte is not the published one") as raised:
        Mnist().load()
    assert "gauntlet data fetch mnist" in str(raised.value)


def test_a_missing_published_set_says_where_it_goes_and_how_to_fetch_it(root: Path) -> None:
    with pytest.raises(DataError, match=r"no file .*mnist/train-images-idx3-ubyte\.gz, nor train-images-idx3-ubyte\n"):
        Mnist(split="train").load()


def test_notmnist_has_no_training_split() -> None:
    with pytest.raises(ValueError, match="split"):
        NotMnist(split="train")


# --- CIFAR ------------------------------------------------------------------------------------------------------------

CIFAR_ROWS = RNG.integers(0, 256, (10, 3072), dtype=np.uint8)


def cifar10_batches(rows: np.ndarray = CIFAR_ROWS) -> dict[str, bytes]:
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    return {
        name: python2_pickle({b"data": rows + index, b"labels": list(range(10)), b"batch_label": b"made"})
        for index, name in enumerate(names)
    }


def test_cifar10_reads_python_2_pickles_with_planes_in_their_places(root: Path, monkeypatch) -> None:
    batches = cifar10_batches()
    publish(monkeypatch, "cifar10", batches)
    write_archive(root / "cifar10/cifar-10-python.tar.gz", "cifar-10-batches-py", batches)
    train = Cifar10(split="train").load()
    assert (len(train), train.input_shape, train.class_names[3]) == (50, (3, 32, 32), "cat")
    pixels = train.fetch(np.array([13])).mul(255).round().to(torch.uint8).numpy()[0]
    row = CIFAR_ROWS[3] + 1  # the fourth image of the second batch
    assert pixels[2, 5, 7] == row[2 * 1024 + 5 * 32 + 7]
    assert pixels.flatten().tolist() == row.tolist()


def test_cifar10_is_the_same_from_archive_folder_and_npz(root: Path, monkeypatch) -> None:
    batches = cifar10_batches()
    publish(monkeypatch, "cifar10", batches)
    archive = write_archive(root / "cifar10/cifar-10-python.tar.gz", "cifar-10-batches-py", batches)
    digests = {Cifar10().load().digest}
    archive.unlink()
    folder = root / "cifar10/cifar-10-batches-py"
    folder.mkdir()
    (folder / "test_batch").write_bytes(batches["test_batch"])
    digests.add(Cifar10().load().digest)
    (folder / "test_batch").unlink()
    folder.rmdir()
    images = (CIFAR_ROWS + 5).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    np.savez_compressed(root / "cifar10/test.npz", x=images, y=np.arange(10, dtype=np.uint8))
    digests.add(Cifar10().load().digest)
    assert len(digests) == 1


def test_cifar_runs_no_code_of_a_pickle(root: Path, monkeypatch) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return os.system, (f"touch {root / 'ran'}",)

    batches = cifar10_batches() | {"test_batch": pickle.dumps({b"data": Evil()}, protocol=3)}
    publish(monkeypatch, "cifar10", batches)
    write_archive(root / "cifar10/cifar-10-python.tar.gz", "cifar-10-batches-py", batches)
    with pytest.raises(DataError, match=r"names posix\.system, which an array does not need"):
        Cifar10().load()
    assert not (root / "ran").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (python2_pickle({b"data": CIFAR_ROWS, b"fine_labels": [0]}), "no entry b'labels'"),
        (python2_pickle({b"data": CIFAR_ROWS[:, :3000], b"labels": [0]}), r"uint8 of shape \(n, 3072\), found uint8"),
        (python2_pickle([1, 2]), "no entry b'data', found list"),
        (python2_pickle({b"data": CIFAR_ROWS, b"labels": [0, 1]}), "10 inputs, but 2 labels"),
        (python2_pickle({b"data": CIFAR_ROWS, b"labels": [11] * 10}), "label 11 of sample 0"),
        (b"no pickle", "not a batch of CIFAR"),
    ],
)
def test_cifar_says_what_is_wrong_with_a_batch(content: bytes, message: str, root: Path, monkeypatch) -> None:
    publish(monkeypatch, "cifar10", {"test_batch": content})
    write_archive(root / "cifar10/cifar-10-python.tar.gz", "cifar-10-batches-py", {"test_batch": content})
    with pytest.raises(DataError, match=message):
        Cifar10().load()


def test_cifar_refuses_an_archive_that_is_cut_off_lacks_a_file_or_differs(root: Path, monkeypatch) -> None:
    archive = root / "cifar10/cifar-10-python.tar.gz"
    write_archive(archive, "cifar-10-batches-py", {"test_batch": b"other bytes"})
    with pytest.raises(DataError, match="test_batch is not the published one"):
        Cifar10().load()
    with pytest.raises(DataError, match="holds no data_batch_1"):
        Cifar10(split="train").load()
    archive.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(DataError, match="archive is damaged or cut off"):
        Cifar10().load()


def test_cifar100_takes_fine_labels_and_their_names(root: Path, monkeypatch) -> None:
    files = {
        "meta": python2_pickle({b"fine_label_names": [b"apple", b"bear"], b"coarse_label_names": [b"x"]}),
        "test": python2_pickle({b"data": CIFAR_ROWS, b"fine_labels": [0, 1] * 5, b"coarse_labels": [0] * 10}),
    }
    publish(monkeypatch, "cifar100", files)
    write_archive(root / "cifar100/cifar-100-python.tar.gz", "cifar-100-python", files)
    found = Cifar100().load()
    assert found.class_names == ("apple", "bear")
    assert found.labels.tolist() == [0, 1] * 5


# --- NPZ --------------------------------------------------------------------------------------------------------------


def test_npz_reads_both_layouts_and_other_names_alike(root: Path) -> None:
    nchw = RNG.integers(0, 256, (12, 3, 5, 6), dtype=np.uint8)
    np.savez(root / "a.npz", x=nchw.transpose(0, 2, 3, 1), y=LABELS)
    np.savez(root / "b.npz", x_test=nchw, y_test=LABELS.astype(np.int64))
    one = Npz(path="a.npz").load()
    other = Npz(path=root / "b.npz", x="x_{split}", y="y_{split}", layout="NCHW").load()
    found = Npz(path=root / "b.npz", x="x_{split}", y="y_{split}").load()
    assert one.digest == other.digest == found.digest
    assert torch.equal(one.fetch(np.array([4])), torch.tensor(nchw[4:5] / 255).float())


@pytest.mark.parametrize(("shape", "why"), [((12, 3, 5, 4), "first or last"), ((12, 8, 8, 8), "neither first nor")])
def test_npz_asks_where_the_channels_are_if_the_shape_does_not_tell(shape, why: str, root: Path) -> None:
    np.savez(root / "a.npz", x=np.zeros(shape), y=LABELS)
    with pytest.raises(DataError, match=f"{why}(.|\\n)*layout: NCHW"):
        Npz(path="a.npz").load()
    assert Npz(path="a.npz", layout="NCHW").load().input_shape == shape[1:]


def test_npz_scales_only_bytes_unless_told_and_keeps_to_its_bounds(root: Path) -> None:
    values = np.linspace(-1, 1, 24, dtype=np.float64).reshape(12, 2)
    np.savez(root / "a.npz", x=values, y=LABELS)
    with pytest.raises(DataError, match="values from -1 to 1 are outside the bounds 0 to 1"):
        Npz(path="a.npz").load()
    found = Npz(path="a.npz", bounds=(-1, 1)).load()
    assert torch.equal(found.fetch(np.arange(12)), torch.tensor(values).float())
    halved = Npz(path="a.npz", bounds=(-1, 1), scale=2).load()
    assert torch.equal(halved.fetch(np.arange(12)), torch.tensor(values).float() / 2)
    assert found.digest != halved.digest
    values[3, 1] = np.nan
    np.savez(root / "a.npz", x=values, y=LABELS)
    with pytest.raises(DataError, match="NaN has to go"):
        Npz(path="a.npz", bounds=(-1, 1)).load()


def test_npz_takes_group_columns_which_are_part_of_its_digest(root: Path) -> None:
    arrays = {"x": np.zeros((3, 2), np.uint8), "y": np.arange(3), "land": np.array(["FR", "ST", "FR"])}
    np.savez(root / "a.npz", **arrays)
    np.savez(root / "b.npz", **{**arrays, "land": np.array(["FR", "FR", "FR"])})
    found, other, plain = (
        Npz(path=Path(name), groups=groups).load()
        for name, groups in (("a.npz", ("land",)), ("b.npz", ("land",)), ("a.npz", ()))
    )
    assert found.groups["land"].tolist() == ["FR", "ST", "FR"]
    assert len({found.digest, other.digest, plain.digest}) == 3
    np.savez(root / "c.npz", **{**arrays, "land": np.array([0.5, 1, 2])})
    with pytest.raises(DataError, match="group column 'land' must hold one text or whole number"):
        Npz(path=Path("c.npz"), groups=("land",)).load()
    with pytest.raises(DataError, match="no array 'lan' - did you mean 'land'"):
        Npz(path=Path("a.npz"), groups=("lan",)).load()


def test_npz_says_what_is_wrong_with_a_file(root: Path) -> None:
    np.savez(root / "objects.npz", x=np.array([{}, {}]), y=LABELS[:2])
    np.savez(root / "keys.npz", images=IMAGES, y=LABELS)
    np.savez(root / "floats.npz", x=IMAGES, y=LABELS / 2)
    np.save(root / "one.npy", IMAGES)
    (root / "text.npz").write_text("hello")
    (root / "cut.npz").write_bytes((root / "floats.npz").read_bytes()[:300])
    for name, message in {
        "objects.npz": "Python objects",
        "keys.npz": r"no array 'x' \(it holds images, y\)",
        "floats.npz": "labels must be one column of integers, found float64",
        "one.npy": "a single array, not an .npz file",
        "text.npz": "cannot be read as .npz",
        "cut.npz": "cannot be read as .npz",
        "absent.npz": "no file",
    }.items():
        with pytest.raises(DataError, match=message):
            Npz(path=name).load()


# --- image folders ----------------------------------------------------------------------------------------------------


def folder(root: Path) -> Path:
    for split, names in (("train", ("cat", "dog", "emu")), ("test", ("dog", "emu"))):
        for number, name in enumerate(names):
            for index in range(2):
                pixels = np.full((6, 8, 3), 40 * number + index, dtype=np.uint8)
                write_image(root / "pets" / split / name / f"{index}.png", pixels)
    return root / "pets"


def test_image_folders_have_the_same_classes_in_every_split(root: Path) -> None:
    found = ImageFolder(path=folder(root), size=(6, 8)).load()
    assert found.class_names == ("cat", "dog", "emu")  # no cat in the test split
    assert found.labels.tolist() == [1, 1, 2, 2]
    assert found.fetch(np.array([3]))[0].mul(255).unique().tolist() == [41.0]


def test_image_folders_resize_and_turn_grey(root: Path) -> None:
    write_image(root / "pets/test/red/a.png", np.full((9, 9, 3), (255, 0, 0), dtype=np.uint8))
    found = ImageFolder(path="pets", size=(4, 5), channels=1).load()
    assert found.input_shape == (1, 4, 5)
    assert found.fetch(np.array([0])).mul(255).round().unique().tolist() == [76.0]  # ITU-R 601: 0.299 of red


def test_image_folders_say_what_is_wrong(root: Path) -> None:
    pets = folder(root)
    with pytest.raises(DataError, match="no folder 'tets' for that split - did you mean 'test'"):
        ImageFolder(path=pets, size=(6, 8), split="tets").load()
    with pytest.raises(DataError, match="folder 'dog' is not among class_names"):
        ImageFolder(path=pets, size=(6, 8), class_names=("cat", "emu")).load()
    broken = pets / "test/dog/0.png"
    broken.write_bytes(broken.read_bytes()[:40])
    found = ImageFolder(path=pets, size=(6, 8)).load()
    with pytest.raises(DataError, match=r"dog/0\.png: cannot be read as an image"):
        found.fetch(np.array([0]))
    (pets / "test/dog/notes.txt").write_text("hello")
    with pytest.raises(DataError, match=r"notes\.txt: '\.txt' is no kind of image"):
        ImageFolder(path=pets, size=(6, 8)).load()
