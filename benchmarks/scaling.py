"""How far one dispatcher goes: the real dispatcher, fair queue and store, on simulated workers.

    python benchmarks/scaling.py [--seconds 0.5 1 5 30] [--workers 1 4 16 64 256] [--users 4] [--rounds 40]
    python benchmarks/scaling.py --record     # writes benchmarks/durations.json anew

Workers are simulated on a clock of their own: a task ends so many seconds after its worker began it. The lengths are
those of the tasks of a real run (SUITE, one thread), drawn with replacement (seeded) and scaled to the given mean. What
the dispatcher itself computes, and each record's write to the disk, runs for real and is added to that clock, so a
dispatcher that is too slow leaves workers idle. Not in it: Ray, and the network. Efficiency is work / (workers x
makespan); beside it stands that of a dispatcher that costs nothing: the end, when the last tasks leave other workers
idle; and the processor time of a task, all of it and that of the thread which hands out, the simulation's own share
included: what that thread does, workers wait for. Prints Markdown.
"""

import argparse
import contextlib
import heapq
import json
import random
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import yaml

from bench import plugins
from bench.dispatch import Canceled, Done, Event, Ready
from bench.jobs import AnyJob, TaskJob, TrainJob
from bench.run import Options
from bench.run import run as engine
from bench.service import intake
from bench.service.crews import Crews
from bench.service.fair import FairQueue
from bench.service.tickets import Ticket
from bench.service.watch import Watch
from bench.service.writer import Writer
from bench.store import Store
from bench.suite import Resources
from bench.worker import Measured, Outcome, Worker

RECORD = b"r" * 20_000  # bytes of a task's records
DURATIONS = Path(__file__).with_name("durations.json")
SUITE = {
    "name": "recorded",
    "models": [{"name": "cnn", "adapter": "small_cnn", "args": {"epochs": 3}}],
    "datasets": [{"dataset": "digits"}],
    "evaluations": {
        "attacks": [
            {"attack": "fgsm", "norm": "linf", "epsilons": [0.02, 0.1]},
            {"attack": "pgd", "norm": "linf", "epsilons": [0.02, 0.1], "args": {"steps": 10}},
            {"attack": "foolbox.l2_deep_fool", "name": "deepfool", "norm": "l2", "epsilons": [0.25, 1.0]},
        ]
    },
    "leaderboard": {"columns": ["clean_accuracy"], "rank_by": "clean_accuracy"},
    "resources": {"batch_size": 15},
}


@dataclass(frozen=True)
class Job:
    key: str
    seconds: float
    group: str = "model"
    title: str = ""
    blobs: tuple[str, ...] = ()
    least_seconds: float = 0.0


class Pool:
    """Workers on a simulated clock, to which the time between two calls of `wait` is added. While there is something to
    write, the clock goes as fast as that does."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.now = 0.0
        self.ended = 0.0  # when the last task had
        self._real = time.perf_counter()
        self._queues: dict[int, deque[Ticket]] = {}
        self._ends: list[tuple[float, int]] = []
        self._news: list[Event] = []

    def start(self) -> int:
        number = len(self._queues) + 1
        self._queues[number] = deque()
        self._news.append(Ready(number, "node"))
        return number

    def start_as(self, options: object) -> int:
        return self.start()

    def submit(self, worker: int, job: Ticket) -> None:
        queue = self._queues[worker]
        queue.append(job)
        if len(queue) == 1:
            heapq.heappush(self._ends, (self.clock() + job.job.seconds, worker))

    def clock(self) -> float:
        return self.now + time.perf_counter() - self._real

    def wait(self, seconds: float) -> list[Event]:
        events, self._news = self._news, []
        if not events and self._ends:
            self._writer.wait(max(0.0, self._ends[0][0] - self.clock()))
            self.now = max(self.clock(), self._ends[0][0])
        else:
            self.now = self.clock()
        while self._ends and self._ends[0][0] <= self.now:
            end, worker = heapq.heappop(self._ends)
            queue = self._queues[worker]
            done = queue.popleft()
            events.append(Done(worker, Measured(RECORD, done.job.seconds)))
            self.ended = self.now
            if queue:  # the one at its door begins at once
                heapq.heappush(self._ends, (end + queue[0].job.seconds, worker))
        self._real = time.perf_counter()
        return events

    def stop(self, worker: int) -> None:
        pass


class Here:
    """One worker, in this process, which notes how long each task took."""

    def __init__(self, folder: Path) -> None:
        self.seconds: list[float] = []
        self._store = Store(str(folder / "store"))

    def dispatch(
        self, jobs: Iterator[AnyJob], sink: Callable[[AnyJob, Outcome, int], None], **_: object
    ) -> None:  # fmt: skip
        worker = Worker((), self._store.blob)
        for job in jobs:
            if isinstance(job, TaskJob):
                outcome = worker.run(job.task)
                assert isinstance(outcome, Measured), outcome
                self.seconds.append(round(outcome.seconds, 4))
            else:
                assert isinstance(job, TrainJob)
                outcome = worker.train(job.task, self)
            sink(job, outcome, 1)

    def step(self, done: int, total: int, **_: float) -> None:
        """A training tells how far it is."""

    def saved(self) -> None:
        """No training goes on from a checkpoint here."""

    def save(self, state: bytes) -> None:
        """Nor leaves one."""


def record() -> None:
    """Run SUITE in this process, and keep how long each of its tasks took."""
    plugins.load_built_in()
    text = yaml.safe_dump(SUITE)
    with tempfile.TemporaryDirectory() as folder:
        here = Here(Path(folder))
        engine(intake.accept(text.encode()), text, (), Options(Path(folder)), Watch(), workforce=here)
    seconds = here.seconds
    DURATIONS.write_text(json.dumps({"seconds": seconds}))
    mean = sum(seconds) / len(seconds)
    print(f"{len(seconds)} tasks of {mean:.4f} s on the average, from {min(seconds):.4f} to {max(seconds):.4f} s")


def ideal(workers: int, durations: list[float]) -> float:
    """Efficiency where each worker gets the next task at the moment that it has ended one."""
    ends = [0.0] * workers
    for length in durations:
        heapq.heapreplace(ends, ends[0] + length)
    return sum(durations) / (workers * max(ends))


def measure(workers: int, seconds: float, users: int, rounds: int, folder: str) -> tuple[float, ...]:
    """Efficiency, that of a dispatcher that costs nothing, and seconds of processor time that a task cost here: in all,
    and in the thread that hands out."""
    recorded = json.loads(DURATIONS.read_text())["seconds"]
    scale = seconds * len(recorded) / sum(recorded)
    store, writer, draw = Store(folder), Writer(), random.Random(0)
    pool = Pool(writer)
    queue = FairQueue(lambda job: seconds, clock=pool.clock, later=writer.do)
    count = workers * rounds
    durations = [scale * draw.choice(recorded) for _ in range(count)]
    made = [Job(f"{workers:04x}{index:08x}{seconds}", length) for index, length in enumerate(durations)]

    def submit(user: int) -> None:
        queue.dispatch(
            f"user{user}", f"suite{user}", iter(made[user::users]), lambda job, out, _: store.write(job.key, out.data),
            resources=Resources(timeout=1e9), progress=lambda *_: None, canceled=lambda: False, alone=False,
        )  # fmt: skip

    threads = [threading.Thread(target=submit, args=(user,)) for user in range(users)]
    for thread in threads:
        thread.start()
    while len(queue._streams) < users:
        time.sleep(0.001)
    before, mine = time.process_time(), time.thread_time()
    pool._real = time.perf_counter()
    node = {"NodeID": "node", "Alive": True, "Resources": {"CPU": workers}, "Labels": {}}
    crews = Crews(
        pool, queue, lambda: [node], None, startup=120.0, lacking=tuple, clock=pool.clock,
        canceled=lambda: not any(thread.is_alive() for thread in threads),
    )  # fmt: skip
    with writer, contextlib.suppress(Canceled):
        crews.run()
    mine = time.thread_time() - mine
    for thread in threads:
        thread.join()
    cost = (time.process_time() - before) / count
    return sum(durations) / (workers * pool.ended), ideal(workers, durations), cost, mine / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="+", default=[0.5, 1.0, 5.0, 30.0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16, 64, 256])
    parser.add_argument("--users", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=40, help="tasks for each worker")
    parser.add_argument("--record", action="store_true", help="run tasks and keep how long they took")
    given = parser.parse_args()
    if given.record:
        record()
        return
    print("| workers |" + "".join(f" {seconds:g} s |" for seconds in given.seconds))
    print("|---|" + "---|" * len(given.seconds))
    for workers in given.workers:
        cells = []
        for seconds in given.seconds:
            with tempfile.TemporaryDirectory() as folder:
                efficiency, best, cost, mine = measure(workers, seconds, given.users, given.rounds, folder)
            cells.append(f" {efficiency:.3f} of {best:.3f} ({1e3 * cost:.2f} ms, {1e3 * mine:.2f}) |")
        print(f"| {workers} |" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
