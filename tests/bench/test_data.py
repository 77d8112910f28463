"""The data folder, the catalogue, fetching over real HTTP on loopback, and subsets."""

import hashlib
import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import data
from bench.catalogue import CATALOGUE, Known
from bench.errors import DataError, SuiteError
from tests.adapters.formats import remote

CONTENT = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()


class Mirror(BaseHTTPRequestHandler):
    """Serves CONTENT: /good with ranges, /stubborn without, /breaks stops after 100,000 bytes, /wrong other bytes."""

    asked: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        way, asked = self.path.split("/")[1], self.headers.get("Range")
        type(self).asked.append((way, asked))
        if way == "missing":
            self.send_error(404)
            return
        body = bytes(len(CONTENT)) if way == "wrong" else b"<html>log in</html>" if way == "portal" else CONTENT
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and way in ("good", "breaks") else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start : start + 100_000] if way == "breaks" else body[start:])

    def log_message(self, *_: object) -> None:
        """Keeps stderr quiet."""


@pytest.fixture
def mirror() -> Iterator[str]:
    Mirror.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(data.ROOT, str(tmp_path / "data"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "data"


def known(monkeypatch: pytest.MonkeyPatch, *urls: str) -> None:
    monkeypatch.setitem(CATALOGUE, "toy", Known("toy", (remote("toy.bin", CONTENT, *urls),), "made by the test", {}))


def test_the_data_root_is_what_the_environment_says_or_a_cache_folder(root: Path, monkeypatch) -> None:
    assert data.data_root() == root
    monkeypatch.delenv(data.ROOT)
    assert data.data_root() == Path.home() / ".cache/gauntlet/data"


def test_a_relative_path_is_found_as_given_before_the_data_root(root: Path, tmp_path: Path, monkeypatch) -> None:
    (root / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert data.locate("here") == root / "here"
    (tmp_path / "here").mkdir()
    assert data.locate("here") == Path("here")
    assert data.locate("absent", root / "here") == root / "here"


def test_a_missing_file_is_named_with_its_place_and_the_command_that_fetches_it(root: Path) -> None:
    with pytest.raises(DataError, match="gauntlet data fetch mnist") as raised:
        data.locate("mnist/a.gz", "mnist/a", fetch="mnist")
    assert f"no file {root / 'mnist/a.gz'}, nor a" in str(raised.value)
    with pytest.raises(DataError, match="Place it there, or name the folder of your data in GAUNTLET_DATA"):
        data.locate("mine.npz")


def test_verify_accepts_the_published_bytes_only(monkeypatch) -> None:
    monkeypatch.setitem(CATALOGUE, "toy", Known("toy", (), "", {"a": hashlib.md5(b"right").hexdigest()}))
    data.verify("toy", "a", b"right", Path("place"))
    with pytest.raises(DataError, match="place: a is not the published one"):
        data.verify("toy", "a", b"wrong", Path("place"))
    with pytest.raises(DataError, match="expected a known name"):
        data.verify("toy", "b", b"right", Path("place"))


def test_fetch_downloads_reports_progress_and_leaves_no_part(root: Path, mirror: str, monkeypatch) -> None:
    known(monkeypatch, f"{mirror}/good")
    seen: list[tuple[str, int, int]] = []
    assert not next(entry for entry in data.catalogue() if entry.name == "toy").present
    assert data.fetch("toy", lambda *step: seen.append(step)) == root / "toy"
    assert [file.name for file in (root / "toy").iterdir()] == ["toy.bin"]
    assert (root / "toy/toy.bin").read_bytes() == CONTENT
    assert seen[-1] == ("toy.bin", len(CONTENT), len(CONTENT))
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert next(entry for entry in data.catalogue() if entry.name == "toy").present


def test_a_second_fetch_asks_nobody(root: Path, mirror: str, monkeypatch) -> None:
    known(monkeypatch, f"{mirror}/good")
    data.fetch("toy")
    data.fetch("toy")
    assert Mirror.asked == [("good", None)]


def test_a_download_that_breaks_off_is_resumed_where_it_stopped(root: Path, mirror: str, monkeypatch) -> None:
    known(monkeypatch, f"{mirror}/breaks")
    assert (data.fetch("toy") / "toy.bin").read_bytes() == CONTENT
    assert Mirror.asked[0] == ("breaks", None)
    starts = [int(asked[6:-1]) for _, asked in Mirror.asked[1:] if asked]
    assert len(starts) == len(Mirror.asked) - 1
    assert all(90_000 < later - earlier <= 100_000 for earlier, later in itertools.pairwise([0, *starts]))


def test_what_an_earlier_run_left_is_resumed(root: Path, mirror: str, monkeypatch) -> None:
    known(monkeypatch, f"{mirror}/good")
    (root / "toy").mkdir(parents=True)
    (root / "toy/toy.bin.part").write_bytes(CONTENT[:1234])
    assert (data.fetch("toy") / "toy.bin").read_bytes() == CONTENT
    assert Mirror.asked == [("good", "bytes=1234-")]


def test_a_server_without_ranges_starts_over(root: Path, mirror: str, monkeypatch) -> None:
    known(monkeypatch, f"{mirror}/stubborn")
    (root / "toy").mkdir(parents=True)
    (root / "toy/toy.bin.part").write_bytes(CONTENT[:1234])
    assert (data.fetch("toy") / "toy.bin").read_bytes() == CONTENT


def test_a_left_part_that_does_not_fit_is_thrown_away(root: Path, mirror: str, monkeypatch) -> None:
    known(monkeypatch, f"{mirror}/good")
    (root / "toy").mkdir(parents=True)
    (root / "toy/toy.bin.part").write_bytes(b"another file")
    assert (data.fetch("toy") / "toy.bin").read_bytes() == CONTENT
    assert Mirror.asked == [("good", "bytes=12-"), ("good", None)]


@pytest.mark.parametrize("bad", ["wrong", "missing", "portal"])
def test_the_next_mirror_is_asked_when_one_fails(bad: str, root: Path, mirror: str, monkeypatch) -> None:
    known(monkeypatch, "http://127.0.0.1:1/nobody", f"{mirror}/{bad}", f"{mirror}/good")
    assert (data.fetch("toy") / "toy.bin").read_bytes() == CONTENT


def test_wrong_bytes_never_get_the_name(root: Path, mirror: str, monkeypatch) -> None:
    known(monkeypatch, f"{mirror}/wrong")
    with pytest.raises(DataError, match=r"wrong content, MD5 \w+, expected"):
        data.fetch("toy")
    assert list((root / "toy").iterdir()) == []


def test_a_damaged_file_is_replaced(root: Path, mirror: str, monkeypatch) -> None:
    known(monkeypatch, f"{mirror}/good")
    (root / "toy").mkdir(parents=True)
    (root / "toy/toy.bin").write_bytes(bytes(len(CONTENT)))
    assert (data.fetch("toy") / "toy.bin").read_bytes() == CONTENT


def test_without_a_network_the_error_names_the_file_its_place_and_what_was_tried(root: Path, monkeypatch) -> None:
    known(monkeypatch, "http://127.0.0.1:1/first", "http://127.0.0.1:1/second")
    with pytest.raises(DataError) as raised:
        data.fetch("toy")
    text = str(raised.value)
    assert f"{root / 'toy/toy.bin'} (300,000 bytes, MD5 {hashlib.md5(CONTENT).hexdigest()})" in text
    assert "http://127.0.0.1:1/first: no connection" in text
    assert "http://127.0.0.1:1/second: no connection" in text


def test_fetching_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(SuiteError, match="did you mean 'fashion_mnist'"):
        data.fetch("fashion-mnist")


def test_a_folder_that_cannot_be_written_is_an_error_about_the_folder(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv(data.ROOT, str(tmp_path / "file"))
    with pytest.raises(DataError, match="cannot write to"):
        data.fetch("mnist")


def test_the_catalogue_knows_the_real_files_by_name_length_and_checksum(shared_data: Path) -> None:
    for name in ("mnist", "fashion_mnist", "notmnist"):
        for file in CATALOGUE[name].files:
            content = (shared_data / CATALOGUE[name].folder / file.name).read_bytes()
            assert (len(content), hashlib.md5(content).hexdigest()) == (file.size, file.md5)


def test_the_catalogue_finds_what_is_present_without_fetching(shared_data: Path, monkeypatch) -> None:
    monkeypatch.setenv(data.ROOT, str(shared_data))
    present = {entry.name: entry.present for entry in data.catalogue()}
    assert present == {"mnist": True, "fashion_mnist": True, "notmnist": True, "cifar10": False, "cifar100": False}
    monkeypatch.setattr("requests.get", None)
    assert data.fetch("mnist") == shared_data / "mnist"


LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=80)


@given(LABELS, st.integers(0, 100), st.booleans(), st.integers(0, 3))
def test_a_subset_has_its_size_is_ascending_and_is_the_same_again(
    labels, limit: int, stratified: bool, seed: int
) -> None:
    chosen = data.subset(labels, limit, stratified, seed)
    assert chosen.dtype == np.int64
    assert len(chosen) == min(limit, len(labels))
    assert np.all(np.diff(chosen) > 0)
    assert all(0 <= index < len(labels) for index in chosen)
    assert np.array_equal(chosen, data.subset(labels, limit, stratified, seed))


@given(LABELS, st.integers(0, 100), st.integers(0, 3))
def test_a_stratified_subset_keeps_proportions_within_one_sample_per_class(labels, limit: int, seed: int) -> None:
    limit = min(limit, len(labels))
    chosen = Counter(labels[index] for index in data.subset(labels, limit, True, seed))
    for label, count in Counter(labels).items():
        assert abs(chosen[label] - limit * count / len(labels)) < 1


@given(LABELS, st.integers(0, 80), st.integers(0, 80), st.integers(0, 3))
def test_a_smaller_random_subset_lies_within_a_larger_one(labels, one: int, other: int, seed: int) -> None:
    small, large = (set(data.subset(labels, limit, False, seed).tolist()) for limit in sorted((one, other)))
    assert small <= large


def test_a_subset_never_changes_from_version_to_version() -> None:
    labels = np.arange(40) % 4
    assert data.subset(labels, 6, False, 7).tolist() == [5, 10, 20, 26, 33, 35]
    assert data.subset(labels, 6, True, 7).tolist() == [5, 16, 20, 26, 33, 35]
    assert data.subset(labels, 6, False, 8).tolist() != [5, 10, 20, 26, 33, 35]


def test_a_subset_is_spread_evenly_over_the_data() -> None:
    chosen = data.subset(np.zeros(10_000), 2_000, False, 0)
    counts = np.histogram(chosen, bins=10, range=(0, 10_000))[0]
    assert np.all(np.abs(counts - 200) < 60)  # standard deviation 12.6


def test_no_limit_means_all_and_a_negative_one_is_refused() -> None:
    assert data.subset([3, 1, 2], None, True, 0).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="must not be negative"):
        data.subset([3, 1, 2], -1, True, 0)
