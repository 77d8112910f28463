"""How far one dispatcher goes: the real dispatcher, fair queue and store, on simulated workers.

    python benchmarks/scaling.py [--seconds 0.5 1 5 30] [--workers 1 4 16 64 256] [--users 4]

Workers are simulated on a clock of their own: a task ends so many seconds after its worker began it (lognormal around
the given mean, sigma .5, seeded). What the dispatcher itself computes, and each record's write to the disk, runs for
real and is added to that clock, so a dispatcher that is too slow leaves workers idle. Not in it: Ray, and the network.
Efficiency is work / (workers x makespan). Prints Markdown.
"""

import argparse
import heapq
import random
import sys
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.dispatch import Dispatcher, Done, Event, Ready
from bench.service.fair import FairQueue, Ticket
from bench.store import Store
from bench.suite import Resources
from bench.worker import Measured

RECORD = b"r" * 20_000  # bytes of a task's records
ROUNDS = 40  # tasks for each worker


@dataclass(frozen=True)
class Job:
    key: str
    seconds: float
    group: str = "model"
    title: str = ""
    blobs: tuple[str, ...] = ()
    least_seconds: float = 0.0


class Pool:
    """Workers on a simulated clock, to which the time between two calls of `wait` is added."""

    def __init__(self) -> None:
        self.now = 0.0
        self._real = time.perf_counter()
        self._queues: dict[int, deque[Ticket]] = {}
        self._ends: list[tuple[float, int]] = []
        self._news: list[Event] = []

    def start(self) -> int:
        number = len(self._queues) + 1
        self._queues[number] = deque()
        self._news.append(Ready(number))
        return number

    def submit(self, worker: int, job: Ticket) -> None:
        queue = self._queues[worker]
        queue.append(job)
        if len(queue) == 1:
            heapq.heappush(self._ends, (self.clock() + job.job.seconds, worker))

    def clock(self) -> float:
        return self.now + time.perf_counter() - self._real

    def wait(self, seconds: float) -> list[Event]:
        self.now = self.clock()
        events, self._news = self._news, []
        if not events and self._ends:
            self.now = max(self.now, self._ends[0][0])
        while self._ends and self._ends[0][0] <= self.now:
            end, worker = heapq.heappop(self._ends)
            queue = self._queues[worker]
            done = queue.popleft()
            events.append(Done(worker, Measured(RECORD, done.job.seconds)))
            if queue:  # the one at its door begins at once
                heapq.heappush(self._ends, (end + queue[0].job.seconds, worker))
        self._real = time.perf_counter()
        return events

    def stop(self, worker: int) -> None:
        pass


def measure(workers: int, seconds: float, users: int, folder: str) -> tuple[float, float]:
    """Efficiency, and tasks per second of the simulated clock."""
    store, pool, draw = Store(folder), Pool(), random.Random(0)
    queue = FairQueue(lambda job: seconds, clock=pool.clock)
    count = workers * ROUNDS
    durations = [seconds * draw.lognormvariate(-0.125, 0.5) for _ in range(count)]
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
    pool._real = time.perf_counter()
    Dispatcher(
        pool, queue.sink, workers=workers, timeout=lambda t: t.timeout, retries=lambda t: t.retries, clock=pool.clock
    ).run(queue)
    for thread in threads:
        thread.join()
    return sum(durations) / (workers * pool.now), count / pool.now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="+", default=[0.5, 1.0, 5.0, 30.0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16, 64, 256])
    parser.add_argument("--users", type=int, default=4)
    given = parser.parse_args()
    print("| workers |" + "".join(f" {seconds:g} s |" for seconds in given.seconds))
    print("|---|" + "---|" * len(given.seconds))
    for workers in given.workers:
        cells = []
        for seconds in given.seconds:
            with tempfile.TemporaryDirectory() as folder:
                efficiency, rate = measure(workers, seconds, given.users, folder)
            cells.append(f" {efficiency:.3f} ({rate:.0f}/s) |")
        print(f"| {workers} |" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
