"""Leaderboards are made in a process beside the dispatcher's, whatever becomes of either."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from bench import plugins, results
from bench.contracts import Report
from bench.errors import GauntletError, TrackingError
from bench.jobs import AnyJob, TaskJob, TrainJob
from bench.run import Options, Stopped, run
from bench.runs import Run
from bench.service import beside, intake, reporter
from bench.service.beside import Reporter
from bench.service.watch import Watch
from bench.store import Store
from bench.worker import Outcome, Worker
from tests.service.test_supervisor import until

# A reporter of few words: what it is asked about says what it does.
CHILD = """
import json, os, sys, time
for line in sys.stdin:
    given = json.loads(line)
    name = given["submission"]
    if name == "deadly" or (name == "unlucky" and not os.path.exists(given["output"])):
        open(given["output"], "w").close()
        os.kill(os.getpid(), 9)
    if name == "torn":
        os.write(1, b'{"told":')
        os.kill(os.getpid(), 9)
    if name == "endless":
        open(given["output"], "w").close()
        time.sleep(999)
    answer = {"told": [str(os.getpid()), given["verb"]]}
    if name in ("tracking", "expected"):
        answer = {"error": name, "message": "it refuses", "hint": "ask it nicely"}
    print(json.dumps(answer), flush=True)
"""
SUITE = yaml.safe_dump(
    {
        "name": "small",
        "models": [{"name": "cnn", "adapter": "small_cnn", "args": {"epochs": 1}}],
        "datasets": [{"dataset": "digits", "limit": 20}],
        "evaluations": {"attacks": [{"attack": "fgsm", "norm": "linf", "epsilons": [0.1]}]},
    }
)


def never() -> bool:
    return False


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Reporter]:
    made = Reporter(tmp_path / "mark", None, [sys.executable, "-c", CHILD])
    yield made
    made.close()


def asked(reporter: Reporter, submission: str, stop: Callable[[], bool] = never) -> int:
    """The id of the process that did it."""
    return int(reporter.publish(submission, "ann", stop)[0])


def test_errors_come_back_as_they_were(quick: Reporter):
    first = asked(quick, "s-1")
    with pytest.raises(TrackingError, match="it refuses\n  ask it nicely"):
        asked(quick, "tracking")
    with pytest.raises(GauntletError, match="it refuses") as expected:
        quick.draw("expected", never)
    assert not isinstance(expected.value, TrackingError)
    assert asked(quick, "s-2") == first != os.getpid(), "one process for all"


def test_killed_while_it_waits_or_over_something_it_is_started_again(quick: Reporter):
    first = asked(quick, "s-1")
    os.kill(first, signal.SIGKILL)
    second = asked(quick, "s-1")
    assert asked(quick, "unlucky") != second != first


@pytest.mark.parametrize("name", ["deadly", "torn"])
def test_what_kills_it_twice_fails_alone(quick: Reporter, name: str):
    with pytest.raises(GauntletError, match=r"died 2 times over this one \(code -9\)"):
        quick.draw(name, never)
    assert asked(quick, "s-1")


def test_who_stops_waits_no_longer_whether_it_was_their_turn_or_not(quick: Reporter, tmp_path: Path):
    wanted, ended = threading.Event(), threading.Event()

    def draw() -> None:
        with pytest.raises(Stopped):
            quick.draw("endless", wanted.is_set)
        ended.set()

    drawing = threading.Thread(target=draw)
    drawing.start()
    until((tmp_path / "mark").exists)
    with pytest.raises(Stopped):
        quick.draw("s-2", lambda: True)  # in the line behind it
    assert not ended.is_set()
    wanted.set()
    assert ended.wait(60)
    drawing.join()
    assert asked(quick, "s-1"), "the next one has a new process"


def test_it_is_replaced_before_it_grows_for_ever(quick: Reporter, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(beside, "JOBS", 2)
    assert len({asked(quick, "s") for _ in range(4)}) == 2
    monkeypatch.setattr(beside, "JOBS", 99)
    monkeypatch.setattr(beside, "MEMORY", 1)
    assert len({asked(quick, "s") for _ in range(3)}) == 3


class Inline(Report):
    """Workers in this very process."""

    def __init__(self, store: Store) -> None:
        self.worker = Worker((), store.blob)

    def dispatch(self, jobs: Iterator[AnyJob], sink: Callable[[AnyJob, Outcome, int], None], **_: object) -> None:
        for job in jobs:
            assert isinstance(job, TaskJob | TrainJob)
            done = self.worker.run(job.task) if isinstance(job, TaskJob) else self.worker.train(job.task, self)
            sink(job, done, 1)

    def step(self, done: int, total: int, **figures: float) -> None:
        """Nobody asks."""


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose records are there."""
    plugins.load_built_in()
    folder = tmp_path_factory.mktemp("reporter")
    workers = Inline(Store(str(folder / "store")))
    return run(intake.accept(SUITE.encode()), SUITE, (), Options(folder, name="s-1"), Watch(), workforce=workers)


def test_leaderboard_and_mlflow_have_one_analysis_until_the_run_is_taken_up_again(
    ended: Run, monkeypatch: pytest.MonkeyPatch
):
    made, analysis = [], results.analysis
    monkeypatch.setattr(results, "analysis", lambda run: made.append(run.submission) or analysis(run))
    desk, given = reporter.Desk(), {"output": str(ended.output), "submission": "s-1", "uri": None, "owner": "ann"}
    assert desk.draw(given) == []
    assert "MLflow: 3 runs logged to experiment 'small'" in desk.publish(given)
    assert made == ["s-1"]
    ended.set_status("complete")
    desk.draw(given)
    assert made == ["s-1", "s-1"]


def test_the_real_one_draws_and_tells_what_it_cannot_do(ended: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GAUNTLET_DATABASE", "postgresql://secret")
    real = Reporter(ended.output, "http://127.0.0.1:1")
    try:
        real.wake()
        assert real._process is not None
        child = psutil.Process(real._process.pid)
        page = ended.reports / "leaderboard.html"
        page.unlink(missing_ok=True)
        real.draw("s-1", never)
        assert "cnn" in page.read_text()
        assert [row["model"] for row in json.loads(page.with_suffix(".json").read_text())["rows"]] == ["cnn"]
        with pytest.raises(TrackingError, match="cannot be reached"):
            real.publish("s-1", "ann", never)
        with pytest.raises(GauntletError, match="a bug of the service: FileNotFoundError"):
            real.draw("s-2", never)
        assert child.is_running(), "one process did it all"
        assert child.nice() == min(19, psutil.Process().nice() + reporter.NICE)
        assert "GAUNTLET_DATABASE" not in child.environ()
    finally:
        real.close()
    assert not child.is_running()


def test_it_ends_with_the_one_who_asks_however_that_ends():
    asks = "import subprocess, sys, time; subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE); time.sleep(999)"
    parent = subprocess.Popen([sys.executable, "-c", asks, *beside.COMMAND])
    found = psutil.Process(parent.pid)
    until(lambda: len(found.children()) == 1)
    [child] = found.children()
    parent.kill()
    parent.wait()
    child.wait(120)
