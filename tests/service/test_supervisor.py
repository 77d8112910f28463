"""Processes that are kept alive, and that leave nothing behind."""

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from bench.__main__ import main
from bench.errors import OperatorError
from bench.service import companions
from bench.service.companions import postgresql, postgresql_url, wait_for
from bench.service.database import Database
from bench.service.server import must_be_free
from bench.service.supervisor import Child, end
from tests.ports import listening
from tests.service.conftest import BINARIES

FAMILY = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(999)']).wait()"


def kept(*command: str) -> "subprocess.Popen[bytes]":
    words = [sys.executable, "-m", "bench.service.keeper", *command]
    return subprocess.Popen(words, stdin=subprocess.PIPE)


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def below(process: "subprocess.Popen[bytes]", count: int) -> list[psutil.Process]:
    found = psutil.Process(process.pid)
    until(lambda: len(found.children(recursive=True)) >= count)
    return found.children(recursive=True)


def gone(processes: list[psutil.Process]) -> bool:
    return psutil.wait_procs(processes, timeout=60)[1] == []


def test_a_kept_program_ends_with_the_one_who_wanted_it():
    keeper = kept("TERM", sys.executable, "-c", FAMILY)
    family = below(keeper, 2)
    assert keeper.stdin is not None
    keeper.stdin.close()
    assert keeper.wait(60) != 0
    assert gone(family)


def test_what_a_program_that_was_killed_has_left_is_killed():
    keeper = kept("TERM", sys.executable, "-c", FAMILY)
    family = below(keeper, 2)
    next(p for p in family if p.ppid() == keeper.pid).kill()
    assert keeper.wait(60) != 0
    assert gone(family)
    keeper.communicate()


def test_a_program_gets_the_signal_that_it_understands_and_its_exit_code_is_told():
    code = "import signal, sys, time; signal.signal(2, lambda *_: sys.exit(7)); print(flush=True); time.sleep(999)"
    words = [sys.executable, "-m", "bench.service.keeper", "INT", sys.executable, "-c", code]
    keeper = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert keeper.stdout is not None
    keeper.stdout.readline()
    keeper.terminate()
    assert keeper.wait(60) == 7
    keeper.communicate()


def test_a_child_that_dies_is_started_again_each_time_after_a_longer_while(tmp_path: Path):
    child = Child("short", [sys.executable, "-c", "print('here')"], log=tmp_path / "log")
    starts, now = [], 0.0
    while len(starts) < 4:
        before = child.process
        child.look(now)
        if child.process is not None and child.process is not before:
            starts.append(now)
            child.process.wait()
        now += 0.5
    end([child])
    assert starts == [0.0, 1.0, 2.5, 5.0]
    assert (tmp_path / "log").read_text().splitlines() == ["here"] * 4


def test_all_children_end():
    children = [Child(name, [sys.executable, "-c", "import time; time.sleep(999)"]) for name in "ab"]
    for child in children:
        child.look(0.0)
    end(children)
    assert [child.process and child.process.poll() for child in children] == [-signal.SIGTERM] * 2


def test_a_port_that_is_taken_is_told_with_the_option_that_names_another():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OperatorError) as refused:
        must_be_free("127.0.0.1", taken.getsockname()[1], "--mlflow-port")
    assert "--mlflow-port" in str(refused.value)


def test_a_service_whose_port_is_taken_starts_nothing_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("bench.cli_service.LEAVING", 0.0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["up", "--port", port, "--output", str(tmp_path / "out")]) == 4
    assert "--port names another" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_port_that_somebody_is_about_to_leave_is_waited_for(monkeypatch: pytest.MonkeyPatch):
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    port = taken.getsockname()[1]
    monkeypatch.setattr("bench.service.server.time.sleep", lambda _: taken.close())
    must_be_free("127.0.0.1", port, "--port", patience=600)
    assert taken.fileno() == -1


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for a socket lies in it, and open to PostgreSQL's own user where we are root."""
    made = Path(tempfile.mkdtemp(prefix="gauntlet-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)


@pytest.mark.skipif(not BINARIES, reason="Debian's package postgresql is not installed (.ci/postgresql installs it)")
def test_a_postgresql_in_a_folder_comes_up_again_after_a_kill_and_is_nobody_elses_business(folder: Path):
    child, database = postgresql(folder), Database(postgresql_url(folder))
    try:
        wait_for(child, database)
        database.upgrade()
        assert child.process is not None
        [main] = psutil.Process(child.process.pid).children()
        assert listening(main, *main.children(recursive=True)) == set(), "a socket in a folder, and no port"
        assert (folder / "postgresql").stat().st_mode & 0o077 == 0
        main.kill()
        child.process.wait(60)  # which has seen it
        wait_for(child, database)
        database.check()
    finally:
        database.close()
        end([child])
    assert child.process.returncode == 0, "shut down, not killed"
    assert postgresql(folder).command == child.command, "what is there is taken up"


def test_what_postgresql_cannot_do_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(OperatorError, match="too long for a socket"):
        postgresql(tmp_path / ("x" * 120))
    monkeypatch.setattr(companions, "BINARIES", tmp_path / "none")
    with pytest.raises(OperatorError, match="no PostgreSQL"):
        postgresql(tmp_path)
    (tmp_path / "postgresql" / "data").mkdir(parents=True)
    (tmp_path / "postgresql" / "data" / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(OperatorError, match=r"of PostgreSQL 9\.6"):
        postgresql(tmp_path)
    assert [path.name for path in (tmp_path / "postgresql").iterdir()] == ["data"], "nothing was made"
