"""What goes through the fair queue: the jobs of a submission, and each of them on its way to a worker and back."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil
from operator import length_hint

from bench.jobs import AnyJob
from bench.placement import Share
from bench.plugins import Source
from bench.suite import Resources
from bench.worker import Outcome

WORTH = 60.0  # seconds of work that a node should have to be started for one more worker: to start takes as long

Sink = Callable[[AnyJob, Outcome, int], None]


@dataclass(eq=False)
class Stream:
    """The jobs of one submission, asked for one by one."""

    owner: str
    submission: str
    jobs: Iterator[AnyJob]
    sink: Sink
    resources: Resources
    progress: Callable[[str, int, int], None]
    alone: bool
    since: float
    number: int  # tells it from others of the same submission
    waits: Callable[[str], None]  # told for what kind of node it waits; nothing: for none
    sources: Sequence[Source] = ()  # modules that its tasks need
    again: deque[AnyJob] = field(default_factory=deque)  # handed out and put back
    lacks: str = ""  # what it was told to wait for
    clock: float = 0.0  # seconds that its tasks have taken
    group: str = ""  # of the task that was handed out last
    gone: bool = False  # nobody waits for the tasks of it that are on workers
    open: int = 0  # tasks that were handed out and have not ended
    taken: int = 0  # tasks that were handed out, and the seconds that they took or may take
    seconds: float = 0.0
    over: bool = False  # no more tasks come
    problem: Exception | None = None

    def __post_init__(self) -> None:
        self.share = Share.of(self.resources)

    @property
    def useful(self) -> int:
        """Workers that could be at work for it now: each for a task, and for WORTH seconds. Timings have one."""
        left = self.open + (0 if self.over else length_hint(self.jobs, 1) + len(self.again))
        mean = self.seconds / self.taken if self.taken else 0.0
        return min(left, 1 if self.alone else max(1, ceil(left * mean / WORTH)))


@dataclass(frozen=True, eq=False)
class Ticket:
    """A job, with what the dispatcher has to know of it."""

    job: AnyJob
    stream: Stream
    estimate: float
    since: float

    @property
    def key(self) -> str:
        return self.job.key

    @property
    def group(self) -> str:
        """Its model, for this submission and this time: a model that could not be loaded may be tried again later."""
        return f"{self.stream.number}|{self.job.group}"

    @property
    def timeout(self) -> float:
        return self.stream.resources.timeout + self.job.least_seconds

    @property
    def retries(self) -> int:
        return self.stream.resources.retries
