"""The whole service under load: many users hand in suites of many all but empty tasks, and look at them.

    python benchmarks/service_load.py [--users 20] [--submissions 10] [--tasks 50] [--workers 2] [--database URL]
                                      [--face-only]

The face (`gauntlet serve`) and the dispatcher (`gauntlet dispatch`, with a Ray of its own) are processes of their own.
Each user is a thread with a client of its own that stays below its rate limit. It hands in so many suites, looks at
each twice, and then looks at all of its own every second until they have ended. Half of a suite's tasks (one image
each: FGSM on a small CNN, at a budget that no other suite has) are new, half of them (the clean images) stand in the
store, since another user's suite has trained the CNN and measured them before the clock starts. Prints, as Markdown:
the seconds of each kind of request, tasks per second, the memory and the processor time of the processes, and Jain's
index of the seconds of workers that users had got when half of the new tasks were done.
With --face-only no dispatcher is at work.
"""

import argparse
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import requests
import yaml
from sqlalchemy import func, select

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.client import Client
from bench.service.access import Access, Role
from bench.service.database import Attempt, Database, State, Submission, Usage

ROOT = Path(__file__).parents[1]
PAUSE = 0.2  # seconds between a user's requests while it hands in: five per second
LOOK = 1.0  # seconds between two looks afterwards


def suite(number: int, tasks: int) -> bytes:
    """One whose attack no other one has."""
    attack = {"attack": "fgsm", "norm": "linf", "epsilons": [round(0.01 + number * 1e-5, 5)]}
    given = {
        "name": "load",
        "models": [{"name": "cnn", "adapter": "small_cnn", "args": {"epochs": 2}}],
        "datasets": [{"dataset": "digits", "limit": tasks}],
        "evaluations": {"attacks": [attack]},
        "resources": {"batch_size": 1},
    }
    return yaml.safe_dump(given, sort_keys=False).encode()


@dataclass
class Load:
    """What the users did, and what was seen meanwhile."""

    given: argparse.Namespace
    url: str
    database: Database
    processes: dict[str, psutil.Process]
    took: dict[str, list[float]] = field(default_factory=lambda: {"submit": [], "show": [], "list": []})
    problems: list[str] = field(default_factory=list)
    peak: dict[str, int] = field(default_factory=dict)
    worked: dict[str, dict[int, float]] = field(default_factory=dict)  # seconds of a processor, by process
    halfway: list[float] = field(default_factory=list)  # seconds of workers, by user

    def timed(self, kind: str, act: Callable[[], Any], pause: float) -> Any:
        began = time.perf_counter()
        done = act()
        self.took[kind].append(time.perf_counter() - began)
        time.sleep(pause)
        return done

    def user(self, number: int, token: str) -> None:
        client, mine = Client(self.url, token), set()
        count = self.given.submissions
        try:
            for index in range(count):
                text = suite(number * count + index, self.given.tasks)
                made = self.timed("submit", lambda text=text: client.submit(text), PAUSE)["id"]
                mine.add(made)
                self.timed("show", lambda made=made: client.get(made), PAUSE)
                self.timed("list", client.submissions, PAUSE)
            while not self.given.face_only and mine:
                mine -= {row["id"] for row in self.timed("list", client.submissions, LOOK) if row["ended"]}
                for one in list(mine)[:1]:
                    self.timed("show", lambda one=one: client.get(one), LOOK)
        except Exception as problem:  # noqa: BLE001 - told below
            self.problems.append(f"{type(problem).__name__}: {problem}")

    def watch(self, over: threading.Event) -> None:
        """Memory, and who has got how much when half is done."""
        half = self.given.users * self.given.submissions * self.given.tasks / 2
        while not over.wait(0.5):
            for name, process in [*self.processes.items(), *self.reporters()]:
                with contextlib.suppress(psutil.NoSuchProcess):  # a reporter is replaced now and then
                    self.peak[name] = max(self.peak.get(name, 0), process.memory_info().rss)
                    self.worked.setdefault(name, {})[process.pid] = seconds_of(process)
            with self.database.reading() as session:
                usage = list(session.execute(select(Usage.owner, Usage.seconds, Usage.tasks)))
            usage = [row for row in usage if row[0].startswith("load")]
            if not self.halfway and sum(tasks for _, _, tasks in usage) > half:
                got = {owner: seconds for owner, seconds, _ in usage}
                self.halfway = [got.get(f"load{number}", 0.0) for number in range(self.given.users)]

    def reporters(self) -> list[tuple[str, psutil.Process]]:
        """The dispatcher's processes that make leaderboards."""
        below = self.processes["dispatcher"].children() if "dispatcher" in self.processes else []
        return [("reporter", process) for process in below if "bench.service.reporter" in words_of(process)]

    def warm(self, token: str) -> None:
        """The weights, and the clean images."""
        client = Client(self.url, token)
        for _ in client.watch(client.submit(suite(0, self.given.tasks).replace(b"0.01", b"0.001"))["id"]):
            pass

    def run(self, tokens: list[str]) -> None:
        over = threading.Event()
        users = [threading.Thread(target=self.user, args=pair) for pair in enumerate(tokens)]
        watcher = threading.Thread(target=self.watch, args=(over,))
        before = {name: seconds_of(process) for name, process in [*self.processes.items(), *self.reporters()]}
        began = time.perf_counter()
        for thread in (watcher, *users):
            thread.start()
        for thread in users:
            thread.join()
        seconds = time.perf_counter() - began
        over.set()
        watcher.join()
        self.print(seconds, before)

    def print(self, seconds: float, before: dict[str, float]) -> None:
        """before: the processes' seconds of a processor when the clock started."""
        print("| request | count | p50, ms | p99, ms | slowest, ms |\n|---|---|---|---|---|")
        for kind, all_of in self.took.items():
            p99 = statistics.quantiles(all_of, n=100)[98] if len(all_of) > 1 else all_of[0]
            figures = (statistics.median(all_of), p99, max(all_of))
            print(f"| {kind} | {len(all_of)} |" + "".join(f" {1000 * figure:.0f} |" for figure in figures))
        rate = sum(map(len, self.took.values())) / seconds
        print(f"\n{rate:.0f} requests per second, {len(self.problems)} problems {self.problems[:3]}")
        count = self.given.users * self.given.submissions
        for name, most in self.peak.items():
            worked = sum(self.worked[name].values()) - before.get(name, 0.0)
            print(f"{name}: {most / 2**20:.0f} MiB at the most, {1000 * worked / count:.0f} ms of CPU a submission")
        if self.given.face_only:
            return
        with self.database.reading() as session:
            states = dict(session.execute(select(Submission.state, func.count()).group_by(Submission.state)).all())
            users = Submission.owner.startswith("load")
            planned = session.scalar(select(func.sum(Submission.done)).where(users)) or 0
            made = session.scalar(select(func.sum(Usage.tasks)).where(Usage.owner.startswith("load"))) or 0
            attempts = (session.scalar(select(func.count()).select_from(Attempt)) or 0) - 1  # without the first suite's
        assert set(states) == {State.COMPLETE}, states
        print(
            f"{states[State.COMPLETE] - 1} submissions in {attempts} attempts, {planned} tasks, of which {made} were"
            f" measured and the others stood in the store: {seconds:.0f} s, {planned / seconds:.1f} tasks per second"
        )
        print(f"Jain's index of {self.given.users} users' seconds at half of the tasks: {jain(self.halfway):.3f}")


def seconds_of(process: psutil.Process) -> float:
    """Of a processor, that it has had itself."""
    times = process.cpu_times()
    return float(times.user + times.system)


def words_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def jain(shares: list[float]) -> float:
    """(sum x)² / (n · sum x²), Jain, Chiu, Hawe 1984."""
    return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--submissions", type=int, default=10)
    parser.add_argument("--tasks", type=int, default=50, help="new ones of a submission; it has as many more")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--database", default=None)
    parser.add_argument("--face-only", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = Database(given.database or f"sqlite:///{folder}/service.db")
        database.upgrade()
        tokens = [Access(database).create(f"load{user}", Role.SUBMITTER) for user in range(given.users)]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        environment = {**os.environ, "GAUNTLET_DATABASE": database.url, "PYTHONPATH": str(ROOT)}
        words = {"face": ["serve", "--port", str(port)], "dispatcher": ["dispatch", "--workers", str(given.workers)]}
        if given.face_only:
            del words["dispatcher"]
        with (Path(folder) / "log").open("wb") as log:
            started = {
                name: subprocess.Popen(
                    [sys.executable, "-m", "bench", *more, "--output", folder],
                    env=environment, stderr=log, stdin=subprocess.DEVNULL,
                )
                for name, more in words.items()
            }  # fmt: skip
        url = f"http://127.0.0.1:{port}"
        try:
            wait(url, "away" if given.face_only else "at work")
            load = Load(given, url, database, {name: psutil.Process(p.pid) for name, p in started.items()})
            if not given.face_only:
                load.warm(Access(database).create("warm", Role.SUBMITTER))
            load.run(tokens)
        finally:
            for process in started.values():
                process.terminate()
                process.wait(60)
            database.close()


def wait(url: str, dispatcher: str) -> None:
    while True:
        try:
            answer = requests.get(f"{url}/ready", timeout=2)
            if answer.ok and answer.json()["dispatcher"] == dispatcher:
                return
        except requests.RequestException:
            pass
        time.sleep(0.2)


if __name__ == "__main__":
    main()
