from pathlib import Path

import numpy as np
import pytest

from adapters.adversarial import Adversarial
from bench.errors import DataError

LABEL = np.array([0, 1, 2])
CRAFTED = np.array([True, False, True])
ORIGINAL = np.full((3, 1, 2, 2), 0.5, np.float32)
MOVED = np.where(CRAFTED[:, None, None, None], np.float32(0.6234), ORIGINAL)


def write(
    path: Path, original: np.ndarray = ORIGINAL, moved: np.ndarray = MOVED, crafted: np.ndarray = CRAFTED
) -> Path:
    facts = {"label": LABEL, "crafted": crafted, "bounds": np.array([-1.0, 1.0]), "classes": np.array(5)}
    np.savez(path / "a.npz", original=original, adversarial=moved, **facts)
    return path / "a.npz"


def test_each_part_is_what_it_says(tmp_path: Path) -> None:
    path, every = write(tmp_path), np.arange(3)
    crafted, rounded, untouched = (
        Adversarial(path=path, part=part).load() for part in ("crafted", "quantised", "untouched")
    )
    assert (crafted.fetch(every).numpy() == MOVED).all()
    assert (untouched.fetch(every).numpy() == ORIGINAL).all()
    steps = (rounded.fetch(every).numpy() + 1) / 2 * 255
    assert steps == pytest.approx(np.round((MOVED + 1) / 2 * 255), abs=1e-4)
    assert crafted.bounds == (-1, 1)
    assert crafted.class_names == ("0", "1", "2", "3", "4")
    assert crafted.groups["crafted"].tolist() == CRAFTED.tolist()
    assert len({one.digest for one in (crafted, rounded, untouched)}) == 3


def test_survivors_can_be_left_out(tmp_path: Path) -> None:
    assert Adversarial(path=write(tmp_path), survivors=False).load().labels.tolist() == [0, 2]
    with pytest.raises(DataError, match="broke no sample"):
        Adversarial(path=write(tmp_path, crafted=np.zeros(3, bool)), survivors=False).load()


def test_what_was_rounded_is_never_handed_out_as_crafted(tmp_path: Path) -> None:
    levels = np.full((3, 1, 2, 2), 200, np.uint8)
    path = write(tmp_path, levels, levels)
    with pytest.raises(DataError, match="kept in 8 bits"):
        Adversarial(path=path).load()
    for part in ("quantised", "untouched"):
        found = Adversarial(path=path, part=part).load()
        if part == "quantised":
            assert found.fetch(np.arange(1)).numpy() == pytest.approx(-1 + 2 * 200 / 255)


def test_another_file_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    np.savez(tmp_path / "b.npz", x=ORIGINAL)
    with pytest.raises(DataError, match="no array 'original'"):
        Adversarial(path=tmp_path / "b.npz").load()
