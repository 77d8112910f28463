"""What the doctor says of the output folder."""

from pathlib import Path

import pytest

from bench.doctor import checks


def output(folder: Path) -> tuple[bool, str]:
    found = next(check for check in checks(folder) if check.name == "output")
    return found.ok, found.detail


def test_a_folder_that_can_be_written_to_is_right_and_nothing_is_left_in_it(tmp_path: Path):
    assert output(tmp_path / "out" / "deeper")[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc, where not even root makes a file")
def test_one_that_cannot_be_written_to_is_not():
    right, detail = output(Path("/proc/out"))
    assert not right
    assert "/proc cannot be written to: " in detail


def test_a_file_in_its_place_is_not(tmp_path: Path):
    (tmp_path / "out").write_text("")
    right, detail = output(tmp_path / "out")
    assert not right
    assert "is not a folder" in detail
