"""Disks and folders that say no are told in two lines, with exit code 4."""

from pathlib import Path

import pytest

from bench import cli
from bench.__main__ import main

SUITE = "name: x\nmodels: [{name: m, adapter: small_cnn}]\ndatasets: [{dataset: digits, limit: 10}]\n"


@pytest.fixture
def suite(tmp_path: Path) -> str:
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE)
    return str(path)


@pytest.mark.skipif(not Path("/sys/kernel").exists(), reason="needs Linux's /sys, where not even root makes a folder")
def test_an_output_folder_that_cannot_be_made(suite: str, capsys: pytest.CaptureFixture[str]):
    assert main(["run", suite, "--output", "/sys/out"]) == 4
    told = capsys.readouterr().err
    assert "/sys/out" in told
    assert "or name another one (--output, --to)" in told
    assert "Traceback" not in told


def test_a_file_where_the_output_folder_should_be(suite: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "out").write_text("mine")
    assert main(["run", suite, "--output", str(tmp_path / "out")]) == 4
    assert "Not a directory" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "mine"


def test_a_full_disk(suite: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch):
    def full(*_: object, **__: object) -> None:
        Path("/dev/full").write_text("x")

    if not Path("/dev/full").exists():
        pytest.skip("needs Linux's /dev/full, a disk without room")
    monkeypatch.setattr(cli, "perform", full)
    assert main(["run", suite, "--output", str(tmp_path / "out")]) == 4
    assert "No space left on device" in capsys.readouterr().err


def test_what_is_no_matter_of_storage_is_a_bug_and_keeps_its_traceback(suite: str, monkeypatch):
    def bug(*_: object, **__: object) -> None:
        Path("nowhere/at/all").read_text()

    monkeypatch.setattr(cli, "perform", bug)
    with pytest.raises(FileNotFoundError):
        main(["run", suite])


@pytest.mark.parametrize("verb", ["verify", "gc"])
def test_a_folder_without_a_store_is_not_a_sound_one(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["store", verb, "--output", str(tmp_path)]) == 4
    assert f"no run has left records in {tmp_path}" in capsys.readouterr().err
