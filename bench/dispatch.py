"""Who works on what: hands tasks to workers, and sees that each ends as records or as a failure. No Ray.

Workers are whatever a Pool says they are. A bounded number of tasks is in flight; the source of tasks is read as they
are handed out; an outcome goes to the sink at once. So memory grows with the number of workers, not of tasks.
"""

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from bench.errors import ClusterError
from bench.records import Reason
from bench.worker import MODELS, Failed, Measured, Outcome

IN_FLIGHT = 2  # tasks per worker: one that runs, and one that waits at its door
SHORT = 2.0  # seconds; a worker whose tasks take longer gets one at a time: what waits at its door waits for long,
# and in the end others have nothing to do meanwhile, while a new task is there within milliseconds
STARTS = 3  # a place where workers fail to start as often as this in a row is given up
FAILING = 2  # a worker that has measured something, and then fails as often as this in a row, is replaced
GLANCE = 0.1  # seconds between two looks at all workers for those that are too late
GRACE = 5.0  # seconds that a task which nobody waits for any more has to end by itself


class Job(Protocol):
    """A task of any kind, with what the dispatcher has to know of it."""

    @property
    def key(self) -> str: ...

    @property
    def group(self) -> str:
        """Its model: a model that cannot be loaded fails all tasks of its group."""
        ...


J = TypeVar("J", bound=Job)
J_in = TypeVar("J_in", bound=Job, contravariant=True)


@dataclass(frozen=True)
class Ready:
    """A worker has started and takes tasks. node: where it is, as far as the pool knows."""

    worker: int
    node: str = ""


@dataclass(frozen=True)
class Done:
    """A worker has answered the oldest of its tasks."""

    worker: int
    outcome: Outcome


@dataclass(frozen=True)
class Alive:
    """A worker says that its task goes on: the deadline counts from here."""

    worker: int


@dataclass(frozen=True)
class Lost:
    """A worker, or its node, is gone."""

    worker: int
    problem: str
    reason: Reason = Reason.WORKER


Event = Ready | Done | Alive | Lost


class Pool(Protocol[J_in]):
    """Workers, each of which answers its tasks in the order in which it got them."""

    def start(self) -> int:
        """Begin to start a worker; its Ready (or Lost) comes as an event. Numbers are never used twice."""
        ...

    def submit(self, worker: int, job: J_in) -> None: ...

    def wait(self, seconds: float) -> list[Event]:
        """Events since the last call; blocks until there is one, `seconds` at the most."""
        ...

    def stop(self, worker: int) -> None:
        """Kill a worker; no event of it comes any more."""


@dataclass
class _Attempt(Generic[J]):
    job: J
    attempts: int = 1
    dropped: float | None = None  # since when nobody waits for it


@dataclass
class _Worker(Generic[J]):
    ready: bool = False
    queue: "deque[_Attempt[J]]" = field(default_factory=deque)
    since: float = 0.0  # when it began its oldest task, or was started
    measured: bool = False  # something, since it was started
    failures: int = 0  # in a row
    pace: float = 0.0  # seconds that its tasks have taken of late
    loaded: "deque[str]" = field(default_factory=lambda: deque(maxlen=MODELS))  # groups, the latest last


_UNWANTED = Failed(Reason.WORKER, "canceled")


class Canceled(Exception):
    """Dispatching was stopped on request. What was measured is kept."""


class Dispatcher(Generic[J]):
    """Runs jobs on a pool.

    sink(job, outcome, attempts) is called exactly once per job, in the order of completion.
    timeout: seconds that a task may take without a sign of life; the worker is killed then. retries: further attempts
    of a job that fails, whatever the reason. Both may depend on the job. startup: seconds until a worker that does not
    come up is given up. linger: asked when nothing is left; while it says so (it may block for a moment), workers are
    kept and the jobs are asked again. rather: asked for a job of one of these groups, whose models a worker has loaded,
    before it gets the next one of all. dropped: whether nobody waits for a job any more: it ends as a failure, and its
    worker is killed where it goes on. leaving: workers that have to go: they get nothing more, and are stopped once
    they have nothing to do.

    `run` does it all. Several dispatchers on one pool: each may `hand_out`, one waits for all, each gets to `hear`.
    """

    def __init__(
        self,
        pool: Pool[J],
        sink: Callable[[J, Outcome, int], None],
        *,
        workers: int | Callable[[], int],
        timeout: float | Callable[[J], float],
        retries: int | Callable[[J], int],
        startup: float = 120.0,
        canceled: Callable[[], bool] = lambda: False,
        linger: Callable[[], bool] = lambda: False,
        rather: Callable[[Collection[str]], J | None] = lambda groups: None,
        dropped: Callable[[J], bool] = lambda job: False,
        leaving: Callable[[], Collection[int]] = tuple,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._sink = sink
        self._wanted = workers if callable(workers) else lambda: workers
        self._timeout = timeout if callable(timeout) else lambda _: timeout
        self._retries = retries if callable(retries) else lambda _: retries
        self._linger = linger
        self._rather = rather
        self._dropped = dropped
        self._leaving = leaving
        self._startup = startup
        self._canceled = canceled
        self._clock = clock
        self._workers: dict[int, _Worker[J]] = {}
        self._upcoming: _Attempt[J] | None = None
        self._again: deque[_Attempt[J]] = deque()
        self._quarantine: dict[str, Failed] = {}
        self._failed_starts = 0
        self._problem = ""  # why the last worker did not start
        self._looked = float("-inf")  # when it last looked at all workers
        self._due = float("inf")  # no task is too late before

    def run(self, jobs: Iterator[J]) -> None:
        """Until every job has ended. Raises Canceled, or ClusterError where no worker can be started."""
        try:
            while (patience := self.hand_out(jobs)) is not None:
                self.hear(self._pool.wait(patience))
        finally:
            self.close()

    def hand_out(self, jobs: Iterator[J]) -> float | None:
        """What can be handed out now. Returns seconds after which to look again whatever happens; None: it is over.

        Raises as `run`.
        """
        self._upcoming = self._upcoming or self._next(jobs)
        if not (self._upcoming or self.busy or self._linger()):
            return None
        if self._canceled():
            raise Canceled
        leaving = self._dismiss()
        while self._upcoming and self._failed_starts < STARTS and len(self._workers) < self._wanted():
            self._workers[self._pool.start()] = _Worker(since=self._clock())
        if self._upcoming and not self._workers and self._failed_starts >= STARTS:
            raise ClusterError(f"no worker could be started: {self._problem}", "`gauntlet doctor` looks at the machine")
        self._fill(jobs, leaving)
        return self._patience()

    def hear(self, news: Iterable[Event]) -> None:
        """What has happened to the workers, perhaps nothing."""
        for event in news:
            self._handle(event)
        now = self._clock()
        if now >= min(self._due, self._looked + GLANCE):
            self._looked = now
            self._kill_the_late()
            self._kill_the_dropped()
            self._due = min(map(self._end, self._workers.values()), default=float("inf"))

    def close(self) -> list[J]:
        """Stop all workers. Returns the jobs that have not ended, of which the sink is not told."""
        left = [*self._again, *(attempt for worker in self._workers.values() for attempt in worker.queue)]
        if self._upcoming:
            left.append(self._upcoming)
        for number in self._workers:
            self._pool.stop(number)
        self._workers.clear()
        self._again.clear()
        self._upcoming = None
        return [attempt.job for attempt in left]

    @property
    def busy(self) -> bool:
        """Whether some worker has something to do."""
        return any(worker.queue for worker in self._workers.values())

    @property
    def staffed(self) -> bool:
        """Whether it has workers."""
        return bool(self._workers)

    @property
    def waiting(self) -> J | None:
        """The job that waits for a worker, if there is one."""
        return self._upcoming.job if self._upcoming else None

    def _dismiss(self) -> Collection[int]:
        leaving = self._leaving()
        for number in leaving:
            if number in self._workers and not self._workers[number].queue:
                self._pool.stop(number)
                del self._workers[number]
        return leaving

    def _fill(self, jobs: Iterator[J], leaving: Collection[int]) -> None:
        """Fill the queues, shortest first, so that no worker has two tasks while another has none."""
        if self._upcoming is None:
            return
        takes = [
            (number, worker)
            for number, worker in self._workers.items()
            if worker.ready and len(worker.queue) < (IN_FLIGHT if worker.pace < SHORT else 1) and number not in leaving
        ]
        for depth in range(IN_FLIGHT):
            for number, worker in takes:
                upcoming = self._upcoming
                if upcoming is None:
                    return
                if len(worker.queue) == depth and (not depth or worker.pace < SHORT):
                    known = self._known(upcoming, worker)
                    self._submit(number, worker, known or upcoming)
                    self._upcoming = upcoming if known else self._next(jobs)

    def _known(self, upcoming: _Attempt[J], worker: _Worker[J]) -> _Attempt[J] | None:
        """A job for which the worker has the model, where the next one is for another model."""
        job = None if upcoming.job.group in worker.loaded else self._rather(worker.loaded)
        return None if job is None else self._admitted(_Attempt(job))

    def _admitted(self, attempt: _Attempt[J]) -> _Attempt[J] | None:
        """None where it has come to an end without being tried."""
        failed = _UNWANTED if self._dropped(attempt.job) else self._quarantine.get(attempt.job.group)
        if failed is None:
            return attempt
        self._sink(attempt.job, failed, attempt.attempts)
        return None

    def _submit(self, number: int, worker: _Worker[J], attempt: _Attempt[J]) -> None:
        if not worker.queue:
            worker.since = self._clock()
        worker.queue.append(attempt)
        self._due = min(self._due, self._end(worker))
        if attempt.job.group in worker.loaded:
            worker.loaded.remove(attempt.job.group)
        worker.loaded.append(attempt.job.group)
        self._pool.submit(number, attempt.job)

    def _next(self, jobs: Iterator[J]) -> "_Attempt[J] | None":
        while True:
            attempt = self._again.popleft() if self._again else None
            if attempt is None:
                job = next(jobs, None)
                if job is None:
                    return None
                attempt = _Attempt(job)
            if (admitted := self._admitted(attempt)) is not None:
                return admitted

    def _handle(self, event: Event) -> None:
        worker = self._workers.get(event.worker)
        if worker is None:
            return  # another dispatcher's, or stopped
        if isinstance(event, Ready):
            worker.ready = True
            self._failed_starts = 0
        elif isinstance(event, Alive):
            worker.since = self._clock()
        elif isinstance(event, Done):
            attempt = worker.queue.popleft()
            worker.since = self._clock()
            self._due = min(self._due, self._end(worker))
            if isinstance(event.outcome, Measured):
                worker.measured, worker.failures = True, 0
                worker.pace = (worker.pace + event.outcome.seconds) / 2
                self._sink(attempt.job, event.outcome, attempt.attempts)
            else:
                worker.failures += 1
                self._failed(attempt, event.outcome)
                if worker.measured and worker.failures >= FAILING:
                    self._replace(event.worker)
        else:
            self._lose(event.worker, Failed(event.reason, event.problem))

    def _replace(self, number: int) -> None:
        """It may be the process, or its node, that is at fault: the next attempt gets a fresh one. A fresh one that
        fails, too, is kept."""
        self._pool.stop(number)
        self._again.extendleft(reversed(self._workers.pop(number).queue))

    def _failed(self, attempt: "_Attempt[J]", outcome: Failed) -> None:
        if attempt.attempts <= self._retries(attempt.job) and not self._dropped(attempt.job):
            self._again.append(_Attempt(attempt.job, attempt.attempts + 1))
            return
        if outcome.model:
            self._quarantine[attempt.job.group] = outcome
        self._sink(attempt.job, outcome, attempt.attempts)

    def _lose(self, number: int, why: Failed) -> None:
        """A worker is gone: the task that it ran is blamed, those that waited at its door are not."""
        worker = self._workers.pop(number)
        if not worker.ready:
            self._failed_starts += 1
            self._problem = why.message
        if worker.queue:
            blamed = worker.queue.popleft()
            self._again.extendleft(reversed(worker.queue))
            self._failed(blamed, why)

    def _kill_the_late(self) -> None:
        for number, worker in list(self._workers.items()):
            took = self._clock() - worker.since
            if worker.queue and took > (limit := self._timeout(worker.queue[0].job)):
                self._pool.stop(number)
                message = f"no answer after {limit:g} s (resources.timeout)"
                self._lose(number, Failed(Reason.TIMEOUT, message))
            elif not worker.ready and took > self._startup:
                self._pool.stop(number)
                self._lose(number, Failed(Reason.WORKER, f"did not start within {self._startup:g} s"))

    def _kill_the_dropped(self) -> None:
        """What nobody waits for may end by itself for a moment: a killed worker has to load its models anew."""
        for number, worker in list(self._workers.items()):
            if not worker.queue:
                continue
            attempt, now = worker.queue[0], self._clock()
            attempt.dropped = (attempt.dropped or now) if self._dropped(attempt.job) else None
            if attempt.dropped is not None and now - attempt.dropped > GRACE:
                self._pool.stop(number)
                self._lose(number, _UNWANTED)

    def _patience(self) -> float:
        """Seconds until something may have to be done even if nothing happens."""
        return min(1.0, max(0.01, self._due - self._clock()))

    def _end(self, worker: _Worker[J]) -> float:
        """When the task that it is at is too late."""
        return worker.since + self._timeout(worker.queue[0].job) if worker.queue else float("inf")
