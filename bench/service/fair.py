"""Many submissions, one set of workers: whose task is next. No Ray, no database, no clock of its own.

Each user has a clock that runs with the seconds of workers that their tasks take (the estimate when a task is handed
out, the truth when it has ended); the user whose clock is behind is next, and among a user's own submissions the one
whose clock is behind. So users who ask at the same time get the same share, however many submissions or tasks they
have: start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996). A worker that takes more of a node than others (its
share) costs as much more. Who comes (back) starts where the others are: idling
earns nothing. A worker may stay with the submissions whose models it has loaded as long as nobody is more than a few
seconds behind (locality before strict fairness, within bounds: Zaharia et al., EuroSys 2010).

Timings need the machine for themselves. They wait until nothing else is at work, but not for ever. What needs nodes
that are not there waits for them, holds up nobody, and earns nothing meanwhile.
"""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from bench.dispatch import Canceled
from bench.jobs import AnyJob
from bench.placement import Share
from bench.plugins import Source
from bench.service.tickets import Sink, Stream, Ticket
from bench.suite import Resources
from bench.worker import Failed, Measured, Outcome

PATIENCE = 60.0  # seconds that timings wait for others, and others for timings
LINGER = 20.0  # seconds that workers are kept when there is nothing to do
SLACK = 5.0  # seconds that a user or a submission may get ahead since a worker has its model loaded
GLANCE = 0.2  # seconds between two looks at whether a submission was canceled


@dataclass
class FairQueue:
    """Submissions' threads put streams in, the dispatcher's thread takes tickets out and brings outcomes back.

    estimate: seconds that a job may take. charge(owner, seconds): told when one has ended. in_flight: tasks that one
    user may have on workers. later: does what an outcome of so many bytes leads to, here or in a thread
    (`bench.service.writer`), in this order. As an iterator it ends when there is nothing at the moment, and may go on
    later.
    """

    estimate: Callable[[AnyJob], float]
    charge: Callable[[str, float], None] = lambda owner, seconds: None
    in_flight: int = 1000
    clock: Callable[[], float] = time.monotonic
    later: Callable[[Callable[[], None], int], None] = lambda act, size: act()
    _streams: list[Stream] = field(default_factory=list)
    _times: dict[str, float] = field(default_factory=dict)
    _flying: dict[str, list[Ticket]] = field(default_factory=dict)  # by key: who waits for its outcome
    _count: Counter[str] = field(default_factory=Counter)  # tasks on workers, by user
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _alone: bool = False
    _turn: float = 0.0  # when the present kind of tasks began to have its turn
    _idle: dict[Share, float] = field(default_factory=dict)  # since when there has been nothing to do for them
    _nowhere: dict[Share, str] = field(default_factory=dict)  # workers that no node can hold now, and why
    _present: set[str] = field(default_factory=set)  # users who waited when somebody looked, or were at work
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    # --- by the threads of submissions

    def dispatch(
        self,
        owner: str,
        submission: str,
        jobs: Iterator[AnyJob],
        sink: Sink,
        *,
        resources: Resources,
        progress: Callable[[str, int, int], None],
        canceled: Callable[[], bool],
        alone: bool,
        sources: Sequence[Source] = (),
        abandoned: Callable[[], bool] = lambda: False,
        waits: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Until every job has ended. Raises Canceled, and whatever the jobs or the sink raise.

        After Canceled, the sink may be told of tasks that were on workers; abandoned: whether these should not go on.
        waits: told what kind of node its tasks wait for, and with nothing once they do not. sources: modules that
        workers have to load for them.
        """
        since, number = self.clock(), next(self._numbers)
        stream = Stream(owner, submission, jobs, sink, resources, progress, alone, since, number, waits, sources)
        with self._changed:
            self._welcome({owner})
            mine = [other.clock for other in self._streams if other.owner == owner]
            stream.clock = min(mine, default=0.0)
            self._streams.append(stream)
            self._changed.notify_all()
            try:
                while not stream.over or stream.open:
                    if stream.problem:
                        raise stream.problem
                    if canceled():
                        raise Canceled
                    self._changed.wait(GLANCE)
            finally:
                stream.gone = stream.problem is not None or abandoned()
                self._streams.remove(stream)
        if stream.problem:
            raise stream.problem

    # --- by the dispatcher's thread

    def __iter__(self) -> "FairQueue":
        return self

    def __next__(self) -> Ticket:
        if (ticket := self.take()) is None:
            raise StopIteration
        return ticket

    def take(self, share: Share | None = None) -> Ticket | None:
        """The next task of all, or of those for such workers; None where there is none at the moment."""
        with self._changed:
            while (stream := min(self._ready(share), key=self._rank, default=None)) is not None:
                if (ticket := self._ticket(stream)) is not None:
                    return ticket
            return None

    def rather(self, groups: Collection[str], share: Share | None = None) -> Ticket | None:
        """A task of a submission whose last one was of these groups, unless that left others too far behind."""
        with self._changed:
            ready = self._ready(share)
            known = [stream for stream in ready if stream.group in groups]
            if not known:
                return None
            stream, (ahead, mine, _) = min(((s, self._rank(s)) for s in known), key=lambda pair: pair[1])
            least = min(self._rank(other) for other in ready)[0]
            own = min(other.clock for other in ready if other.owner == stream.owner)
            return None if ahead - least > SLACK or mine - own > SLACK else self._ticket(stream)

    def dropped(self, ticket: Ticket) -> bool:
        """Whether nobody waits for this task any more."""
        if not ticket.stream.gone:
            return False
        with self._changed:
            return all(waiting.stream.gone for waiting in self._flying[ticket.key])

    def sink(self, ticket: Ticket, outcome: Outcome, attempts: int) -> None:
        """An outcome: for whoever asked for this task. Nothing may disturb timings: theirs is dealt with at once."""
        with self._changed:
            took = outcome.seconds if isinstance(outcome, Measured) else self.clock() - ticket.since
            self._pass(ticket.stream, took - ticket.estimate)
            self._count[ticket.stream.owner] -= 1
        self.charge(ticket.stream.owner, took * ticket.stream.share.weight)
        if ticket.stream.alone:
            self._tell(ticket.key, outcome, attempts)
        else:
            size = len(outcome.data) if isinstance(outcome, Measured) else 0
            self.later(partial(self._tell, ticket.key, outcome, attempts), size)

    def _tell(self, key: str, outcome: Outcome, attempts: int) -> None:
        with self._changed:
            waiting = self._flying.pop(key)
        for each in waiting:
            if each.stream.gone and isinstance(outcome, Failed):
                continue  # what was canceled does not fail
            try:
                each.stream.sink(each.job, outcome, attempts)
            except Exception as problem:  # noqa: BLE001 - it ends this submission, and is raised in its thread
                each.stream.problem = each.stream.problem or problem
        with self._changed:
            for each in waiting:
                each.stream.open -= 1
            if any(not each.stream.open or each.stream.problem for each in waiting):
                self._changed.notify_all()  # for submissions' threads, which have nothing to do for each task

    def put_back(self, tickets: Collection[Ticket]) -> None:
        """They have not ended, and nobody works on them: to be handed out again, each by those who wait for it."""
        with self._changed:
            for ticket in tickets:
                self._pass(ticket.stream, -ticket.estimate)
                ticket.stream.taken -= 1
                self._count[ticket.stream.owner] -= 1
                for each in self._flying.pop(ticket.key):
                    each.stream.open -= 1
                    each.stream.over = False
                    each.stream.again.append(each.job)
            self._changed.notify_all()

    def fail(self, problem: Exception, which: Callable[[Stream], bool]) -> None:
        """Ends submissions at work."""
        with self._changed:
            for stream in filter(which, self._streams):
                stream.problem = stream.problem or problem
            self._changed.notify_all()

    def progress(self, title: str, done: int, total: int) -> None:
        """How far a training or fit is. title: `train SUBMISSION|LABEL`, `fit SUBMISSION|LABEL`."""
        kind, _, rest = title.partition(" ")
        submission, _, name = rest.partition("|")
        with self._changed:
            told = [stream.progress for stream in self._streams if stream.submission == submission]
        for tell in told:
            tell(f"{kind} {name}", done, total)

    def turn(self, seconds: float) -> bool | None:
        """Whose turn it is: True for tasks that need the machine for themselves, None where there is nothing to do
        within these seconds."""
        with self._changed:
            if not self._waiting():
                self._changed.wait(seconds)
            kinds = {stream.alone for stream in self._waiting()}
            if not kinds:
                return None
            self._alone = not self._alone if len(kinds) == 2 else kinds.pop()
            self._turn = self.clock()
            self._idle.clear()
            return self._alone

    def linger(self, share: Share) -> bool:
        """Such workers have nothing to do: whether they should be kept."""
        with self._changed:
            since = self._idle.setdefault(share, self.clock())
            timings = any(stream.alone for stream in self._waiting())
            return not timings and self.clock() - since < LINGER

    def rest(self) -> None:
        """Until there is something to do, for a moment."""
        with self._changed:
            if not self._ready():
                self._changed.wait(GLANCE)

    # --- kinds of workers

    def shares(self) -> list[Share]:
        """Of the workers that tasks wait for now, in fair order."""
        with self._changed:
            return list(dict.fromkeys(stream.share for stream in sorted(self._ready(), key=self._rank)))

    def asked(self) -> set[Share]:
        """Of the workers that submissions at work need, whether there are nodes for them or not."""
        with self._changed:
            return {stream.share for stream in self._streams}

    def useful(self) -> dict[Share, int]:
        """How many workers of each kind could be at work now, if there were nodes for them; in fair order."""
        found: dict[Share, int] = {}
        with self._changed:
            for stream in sorted(self._streams, key=self._rank):
                if useful := 0 if stream.problem else stream.useful:
                    found[stream.share] = found.get(stream.share, 0) + useful
        return found

    def users(self) -> dict[Share, set[str]]:
        """Whose tasks are on such workers, or wait for them."""
        found: dict[Share, set[str]] = {}
        with self._changed:
            for stream in self._streams:
                if not stream.alone and (stream.open or not stream.over) and stream.share not in self._nowhere:
                    found.setdefault(stream.share, set()).add(stream.owner)
        return found

    def had(self, ticket: Ticket) -> float:
        """Seconds that its user had when it was handed out."""
        with self._changed:
            return self._times.get(ticket.stream.owner, 0.0) - ticket.estimate * ticket.stream.share.weight

    def nowhere(self, found: Mapping[Share, str]) -> None:
        """Workers that no node can hold at the moment, and why. What needs them waits."""
        with self._changed:
            back = {stream.owner for stream in self._streams if stream.share in self._nowhere.keys() - found.keys()}
            self._welcome(back)
            self._nowhere = dict(found)
            told = [stream for stream in self._streams if stream.lacks != found.get(stream.share, "")]
            for stream in told:
                stream.lacks = found.get(stream.share, "")
            if back:
                self._changed.notify_all()
        for stream in told:
            stream.waits(stream.lacks)

    def waits(self, owners: Collection[str]) -> None:
        """Whose submissions wait to be taken up, or for their first task: told again and again. They are not idle, and
        do not lose what they have waited for."""
        with self._changed:
            self._present &= {*owners, *self._placed()}
            self._welcome(set(owners))

    def order(self, owners: Sequence[str]) -> list[str]:
        """Users, the one who has had least first."""
        with self._changed:
            return sorted(owners, key=lambda owner: (self._times.get(owner, 0.0), owner))

    def ahead(self) -> dict[str, float]:
        """Seconds that users' clocks are ahead of where somebody would start who comes now."""
        with self._changed:
            least = self._least()
            return {owner: time - least for owner, time in self._times.items() if time > least}

    def go_on(self, ahead: Mapping[str, float]) -> None:
        """Where another queue has left off, whose clocks were ahead so far. Before anything is asked for."""
        with self._changed:
            self._times = dict(ahead)

    # --- inside

    def _welcome(self, owners: set[str]) -> None:
        """Who comes (back) starts where the others are."""
        least = self._least()
        for owner in owners - self._there():
            self._times[owner] = max(self._times.get(owner, 0.0), least)
        self._present |= owners

    def _there(self) -> set[str]:
        return self._present | self._placed()

    def _least(self) -> float:
        """The clock that is furthest behind among those who want something."""
        return min((self._times.get(owner, 0.0) for owner in self._there()), default=0.0)

    def _placed(self) -> set[str]:
        """Who has something at work for which there are nodes."""
        return {stream.owner for stream in self._streams if stream.share not in self._nowhere}

    def _waiting(self) -> list[Stream]:
        """Those that may have more tasks, for which there are nodes."""
        return [
            stream
            for stream in self._streams
            if not stream.over and not stream.problem and stream.share not in self._nowhere
        ]

    def _ready(self, share: Share | None = None) -> list[Stream]:
        waiting = self._waiting()
        if any(stream.alone is not self._alone for stream in waiting) and self.clock() - self._turn > PATIENCE:
            return []  # the others have waited long enough
        return [
            stream
            for stream in waiting
            if stream.alone is self._alone
            and (share is None or stream.share == share)
            and self._count[stream.owner] < self.in_flight
        ]

    def _rank(self, stream: Stream) -> tuple[float, float, float]:
        """Lowest first."""
        return self._times.get(stream.owner, 0.0), stream.clock, stream.since

    def _ticket(self, stream: Stream) -> Ticket | None:
        """The stream's next task; None where it has none, or where the very same one is on its way for somebody."""
        job = self._job(stream)
        if job is None:
            return None
        ticket = Ticket(job, stream, self.estimate(job), self.clock())
        stream.open += 1
        stream.group = ticket.group
        if (flying := self._flying.get(job.key)) is not None:
            flying.append(ticket)  # its outcome is for both
            return None
        self._flying[job.key] = [ticket]
        self._count[stream.owner] += 1
        stream.taken += 1
        self._pass(stream, ticket.estimate)
        return ticket

    def _job(self, stream: Stream) -> AnyJob | None:
        try:
            job = stream.again.popleft() if stream.again else next(stream.jobs, None)
        except Exception as problem:  # noqa: BLE001 - it ends this submission, and is raised in its thread
            stream.problem, job = problem, None
        if job is None:
            stream.over = True
            self._changed.notify_all()
        if job is not None:
            self._idle.pop(stream.share, None)
        return job

    def _pass(self, stream: Stream, seconds: float) -> None:
        stream.seconds += seconds
        seconds *= stream.share.weight
        stream.clock += seconds
        self._times[stream.owner] = self._times.get(stream.owner, 0.0) + seconds
