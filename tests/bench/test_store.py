"""Records come back as they were written, and damage is noticed."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.errors import StoreError
from bench.records import device_of, encode, samples_table
from bench.store import Store, write_atomically


def table(n: int = 3):
    return samples_table({"sample": list(range(n)), "label": [0] * n, "prediction": [0] * n})


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store") if request.param == "file" else f"memory://{tmp_path.name}")


def test_what_was_written_is_read_again(store: Store):
    assert not store.has("ab12")
    store.write("ab12", encode(table()))
    assert store.has("ab12")
    assert store.read("ab12").equals(table())
    assert list(store.keys("records")) == ["ab12"]


def test_records_say_what_computed_them_where_it_is_known(store: Store):
    store.write("ab12", encode(table(), "NVIDIA H100"))
    store.write("cd34", encode(table()))
    assert device_of(store.read("ab12")) == device_of(store.read("ab12", ["label"])) == "NVIDIA H100"
    assert device_of(store.read("cd34")) is None
    assert store.read("ab12").equals(table())
    assert encode(table(), "x") == encode(table(), "x")


def test_missing_records_are_an_error_that_says_what_to_do(store: Store):
    with pytest.raises(StoreError, match="run the suite again"):
        store.read("ab12")


def test_weights_are_kept_under_the_digest_of_their_bytes(store: Store):
    key = store.put_blob(b"weights")
    assert store.blob(key) == b"weights"
    assert store.put_blob(b"weights") == key
    store.set_trained("t1", key)
    assert store.trained("t1") == key
    assert store.trained("t2") is None


def test_a_checkpoint_is_replaced_goes_with_the_end_of_its_training_and_leaves_the_curves(store: Store):
    assert store.checkpoint("t1") is None
    store.set_checkpoint("t1", b"half")
    store.set_checkpoint("t1", b"nearly")
    assert store.checkpoint("t1") == b"nearly"
    assert store.verify() == []
    store.set_trained("t1", store.put_blob(b"weights"), 2.0, {"loss": (1.0, 0.5)})
    assert store.checkpoint("t1") is None
    assert store.curves("t1") == {"loss": [1.0, 0.5]}
    assert store.curves("t2") == {}


def test_a_damaged_checkpoint_is_an_error_until_it_is_repaired_by_removal(tmp_path: Path):
    store = Store(str(tmp_path))
    store.set_checkpoint("ab12", b"half")
    path = tmp_path / "checkpoints" / "ab" / "ab12"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(StoreError, match="damaged checkpoint"):
        store.checkpoint("ab12")
    assert len(store.verify(repair=True)) == 1
    assert store.checkpoint("ab12") is None


def test_a_flipped_bit_is_found_by_verify_and_repaired_by_removal(tmp_path: Path):
    store = Store(str(tmp_path))
    store.write("ab12", encode(table(1000)))
    store.write("cd34", encode(table(1000)))
    blob = store.put_blob(b"weights")
    assert store.verify() == []
    path = tmp_path / "records" / "ab" / "ab12.parquet"
    data = bytearray(path.read_bytes())
    data[60] ^= 4
    path.write_bytes(data)
    (tmp_path / "blobs" / blob[:2] / blob).write_bytes(b"other")
    assert {Path(damage.path).name for damage in store.verify()} == {"ab12.parquet", blob}
    with pytest.raises(StoreError, match="verify --repair"):
        store.read("ab12")
    store.verify(repair=True)
    assert store.verify() == []
    assert not store.has("ab12")
    assert store.has("cd34")


def test_collecting_removes_what_no_run_uses_and_half_written_files(tmp_path: Path):
    store = Store(str(tmp_path))
    store.write("ab12", encode(table()))
    store.write("cd34", encode(table()))
    (tmp_path / "records" / "ab" / ".ab99.parquet.tmp").write_bytes(b"half")
    doomed = store.collect(["ab12"], dry_run=True)
    assert len(doomed) == 2
    assert store.has("cd34")
    store.collect(["ab12"])
    assert list(store.keys("records")) == ["ab12"]
    assert store.verify() == []


def test_a_writer_killed_at_any_moment_leaves_the_old_file_or_the_new_one(tmp_path: Path):
    target = tmp_path / "file"
    size = 1 << 20
    write_atomically(target, b"a" * size)
    code = (
        "import sys; from pathlib import Path; from bench.store import write_atomically\n"
        f"while True:\n    [write_atomically(Path(sys.argv[1]), c * {size}) for c in (b'a', b'b')]"
    )
    for pause in (0.0, 0.013, 0.031):
        writer = subprocess.Popen([sys.executable, "-c", code, str(target)], stdin=subprocess.DEVNULL)
        before = target.stat().st_ino
        while target.stat().st_ino == before:
            assert writer.poll() is None
            time.sleep(0.005)
        time.sleep(pause)
        writer.kill()
        writer.wait()
        content = target.read_bytes()
        assert len(content) == size
        assert len(set(content)) == 1


def test_an_unknown_protocol_is_a_clear_error():
    with pytest.raises(StoreError, match="no store at 'nosuch://x'"):
        Store("nosuch://x")
