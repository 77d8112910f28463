"""The dispatcher: one process that holds the lease, and runs everybody's submissions on one cluster.

Threads: the main one talks to Ray; one writes records; one per submission runs the engine (bench.run), whose tasks go
through the fair queue; one keeps the lease and the database; one empties the outbox; one forgets what is old. A process
beside this one makes leaderboards and tells MLflow (bench.service.beside). What is only in memory is what can be made
again: killed at any moment, the next dispatcher goes on with what the store and the database hold. A database that is
away stops nothing that has begun: what it has to be told waits, and each of its transactions looks at the lease first.
"""

import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from operator import is_
from pathlib import Path

from bench import run as engine
from bench import verbs
from bench.cluster import WATCHFUL, Cluster, Dashboard, cluster
from bench.dispatch import Canceled, Dispatcher
from bench.errors import ClusterError, GauntletError
from bench.fingerprint import Fingerprint
from bench.jobs import AnyJob, TaskJob
from bench.placement import Share, in_turn, nowhere
from bench.run import DRAINING, STARTUP, Options, Stopped
from bench.service import intake, modules
from bench.service.beside import Reporter
from bench.service.companions import RAY_TOKEN
from bench.service.crews import Crews, lacking
from bench.service.database import AWAY, ENDED, State
from bench.service.fair import FairQueue
from bench.service.limits import AUTOSCALED
from bench.service.queue import Quotas
from bench.service.retention import Retention
from bench.service.submission import AtWork, TicketPool, needed
from bench.service.traces import SILENT, Traces
from bench.service.work import TERM, Work
from bench.service.writer import Writer
from bench.store import Store
from bench.suite import Resources
from bench.timings import Timings
from bench.worker import Failed, Outcome

ASKING = 2.0  # seconds between two requests to Ray's autoscaler, each a connection; nodes take longer to come
BEAT = 0.5  # seconds between two looks at the database
GOING = 10.0  # seconds in which a dispatcher whose cluster has gone notices
SOON = 30.0  # seconds that MLflow waits where users wait for their leaderboards
UNKNOWN = 1.0  # seconds that a task counts before the first of its kind has been seen

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where the dispatcher works."""

    output: Path
    address: str | None = None  # of a running Ray cluster
    workers: int | None = None
    tracking_uri: str | None = None
    dashboard: int | None = None  # the port of Ray's, where Ray is of the dispatcher's own
    at_once: int = 8  # submissions, of all users
    autoscaled: int = AUTOSCALED  # workers for which Ray's autoscaler is asked for room, where the cluster has one


class Foreman:
    """Runs submissions until it is stopped, or has lost its lease."""

    def __init__(self, work: Work, place: Place, quotas: Quotas, retention: Retention, traces: Traces = SILENT) -> None:
        self._work = work
        self._retention = retention
        self._place = place
        self._quotas = quotas
        self._stop = threading.Event()
        self._problem: BaseException | None = None
        self._joined: Cluster | None = None
        self._untimed: dict[str, Share] = {}  # what timings of submissions wait for before they can be planned
        self._at_work: dict[str, AtWork] = {}
        self._unsaid: list[Callable[[], None]] = []  # what the database has yet to be told, in this order
        self._renewed = 0.0
        self._asked = 0.0
        self.traces = traces
        self.handed: dict[str, float] = {}  # when a task was given to a worker, by its key
        self._lock = threading.Lock()
        self._reporter = Reporter(place.output, place.tracking_uri)
        self._unwritten = 0  # leaderboards that users wait for
        self._charged: dict[str, tuple[float, int]] = {}  # seconds and tasks, by user
        self._timings = Timings(place.output / "service-timings.json")
        self._writer = Writer()
        self.queue = FairQueue(self._estimate, self._charge, quotas.in_flight, later=self._writer.do)

    def stop(self) -> None:
        """Hand out no more tasks, put every submission back, and end."""
        self._stop.set()

    def run(self) -> None:
        """Raises what went wrong: LeaseLost, ClusterError, or what the database says."""
        verbs.name_registry(self._place.output, self._place.tracking_uri)
        verbs.prepare()
        while not self._acquired():
            if self._stop.wait(BEAT):
                return
        log.info("lease taken", extra={"epoch": self._work.epoch})
        self.queue.go_on(self._work.ahead())
        parts = (self._keep, self._publish, self._forget)
        threads = [threading.Thread(target=self._guarded, args=(part,)) for part in parts]
        for thread in threads:
            thread.start()
        try:
            place, port = self._place, self._place.dashboard
            pages = None if port is None else Dashboard(port, place.output / RAY_TOKEN)
            with cluster(place.address, place.workers, Share(), WATCHFUL, pages) as joined:
                about = {"nodes": joined.nodes, "workers": joined.room(), "dashboard": joined.dashboard}
                log.info("cluster joined", extra=about)
                self._joined = joined
                with self._writer:
                    self._dispatch(joined)
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
            self._reporter.close()
            self._timings.save()
        if self._problem is not None:
            raise self._problem
        self._work.remember(self.queue.ahead())
        self._work.release()

    # --- the main thread

    def _dispatch(self, joined: Cluster) -> None:
        store = Store(str(self._place.output / "store"))
        while not self._stop.is_set():
            self._lacking(joined)
            alone = self.queue.turn(BEAT)
            if alone is None:
                continue
            try:
                if alone:
                    self._time(joined, store)
                else:
                    pool = TicketPool(joined.pool((), store, self.queue.progress), self.handed)
                    crews = Crews(
                        pool, self.queue, joined.listing, joined.most, startup=STARTUP,
                        lacking=partial(self._lacking, joined), canceled=self._stop.is_set,
                    )  # fmt: skip
                    crews.run()
            except Canceled:
                return
            self._writer.wait()
            self.handed.clear()

    def _time(self, joined: Cluster, store: Store) -> None:
        """Timings, one by one, each on a node of its own."""
        for ticket in self.queue:
            assert isinstance(ticket.job, TaskJob)
            pool = joined.apart((), store, self.queue.progress, *ticket.job.bears, ticket.stream.share)
            dispatcher = Dispatcher(
                TicketPool(pool, self.handed),
                self.queue.sink,
                workers=1,
                startup=DRAINING,
                timeout=lambda ticket: ticket.timeout,
                retries=lambda ticket: ticket.retries,
                dropped=self.queue.dropped,
                canceled=self._stop.is_set,
            )
            try:
                dispatcher.run(iter([ticket]))
            except ClusterError as problem:
                self.queue.put_back([ticket])
                self.queue.fail(problem, partial(is_, ticket.stream))
            self._lacking(joined)

    def _lacking(self, joined: Cluster) -> set[Share]:
        """Workers that no node can hold now: the queue is told. Ray is told of all that would have something to do."""
        if time.monotonic() - self._asked > ASKING:
            most = min(self._place.autoscaled, joined.most or self._place.autoscaled)
            joined.ask_for(in_turn(dict.fromkeys(self._untimed.values(), 1) | self.queue.useful(), most))
            self._asked = time.monotonic()
        return lacking(self.queue, joined.listing())

    def _estimate(self, job: AnyJob) -> float:
        if not isinstance(job, TaskJob):
            return UNKNOWN
        cell, task = job.task.cell, job.task
        seconds = self._timings.estimate(cell)
        return UNKNOWN if seconds is None else seconds * (task.stop - task.start) / cell.size

    def _charge(self, owner: str, seconds: float) -> None:
        with self._lock:
            before, tasks = self._charged.get(owner, (0.0, 0))
            self._charged[owner] = before + seconds, tasks + 1

    # --- the threads beside it

    def _guarded(self, part: Callable[[], None]) -> None:
        """A thread whose end is the end of all: the supervisor starts a new dispatcher, which goes on."""
        try:
            part()
        except BaseException as problem:  # noqa: BLE001 - raised again by the main thread
            self._problem = self._problem or problem
            self._stop.set()

    def _acquired(self) -> bool:
        try:
            return self._work.acquire()
        except AWAY as problem:
            log.warning("the database is away", extra={"why": str(problem.orig)})
            return False

    def _keep(self) -> None:
        """The lease, the next submissions, what users want, and how far everything is."""
        away = False
        while True:
            ending = self._stop.is_set()
            try:
                self._look(ending, away)
                away = False
            except AWAY as problem:
                if ending:
                    raise
                log.warning("the database is away", extra={"why": str(problem.orig), "unsaid": len(self._unsaid)})
                away = True
            if ending and not self._at_work:
                return
            self._stop.wait(BEAT) if not ending else time.sleep(0.1)

    def _look(self, ending: bool, back: bool) -> None:
        """Once. back: the database was away the last time, so it may hold half of what was done then."""
        if back or time.monotonic() - self._renewed > TERM / 4:
            self._work.renew()
            self._work.remember(self.queue.ahead())
            self._renewed = time.monotonic()
        self._say()
        if back:
            self._work.put_back_all_but(set(self._at_work))
        for submission, wish in self._work.wishes().items():
            if submission in self._at_work:
                self._at_work[submission].wish = wish
        self._book()
        for each in list(self._at_work.values()):
            self._tell(each)
        self._say()
        moving = [each for each in self._at_work.values() if not each.watch.lacks]
        self.queue.waits({*self._work.waiting(), *(each.row.owner for each in moving)})
        claims = self._place.at_once - len(moving)
        while not ending and claims > 0 and self._claim():
            claims -= 1

    def _say(self) -> None:
        """All of it in one transaction: many small ones would keep others from a SQLite."""
        if not self._unsaid:
            return
        with self._work.together():
            for say in self._unsaid:
                say()
        self._unsaid.clear()

    def _claim(self) -> bool:
        running = Counter(each.row.owner for each in self._at_work.values())
        row = self._work.claim(running, self.queue.order)
        if row is None:
            return False
        log.info("submission claimed", extra={"submission": row.id, "owner": row.owner})
        self.traces.span((row.id, f"queued:{row.queued}"), row.queued, row.started or row.queued)
        self._reporter.wake()
        each = self._at_work[row.id] = AtWork(row, self, self._work.modules())
        each.start()
        return True

    def _book(self) -> None:
        with self._lock:
            charged, self._charged = self._charged, {}
        self._unsaid += [partial(self._work.charge, owner, *had) for owner, had in charged.items()]

    def _tell(self, each: AtWork) -> None:
        over = not each.is_alive()
        for line in each.watch.lines():
            self._unsaid.append(partial(self._work.note, each.row.id, line))
        if (lacks := each.watch.lacking()) is not None:
            self._unsaid.append(partial(self._work.lacks, each.row.id, lacks))
        if (figures := each.watch.figures()) is not None:
            self._unsaid.append(partial(self._work.progress, each.row.id, *figures))
        if over:
            log.info("submission ended", extra={"submission": each.row.id, "state": each.state})
            publish, now = each.state in (State.COMPLETE, State.INCOMPLETE), time.time()
            self._unsaid.append(partial(self._work.end, each.row.id, each.state, each.message, publish=publish))
            self.traces.span(each.path, each.row.started or now, now, {"gauntlet.state": each.state}, each.message)
            if each.state in ENDED:
                about = {"gauntlet.owner": each.row.owner, "gauntlet.state": each.state}
                self.traces.span(each.path[:1], each.row.created, now, about, each.message)
            del self._at_work[each.row.id]

    def _publish(self) -> None:
        """One writer drains the outbox, so a tracking server that is away fails nothing."""
        last = time.monotonic()
        while not self._stop.wait(BEAT):
            if self._unwritten and time.monotonic() - last < SOON:
                continue
            last = time.monotonic()
            try:
                self._publish_one()
            except AWAY as problem:
                log.warning("the outbox cannot be read", extra={"why": str(problem.orig)})

    def _publish_one(self) -> None:
        row, began = self._work.due(), time.time()
        if row is None:
            return
        path = (row.id, f"publish:{began}")
        try:
            sources = map(modules.source, intake.needed(row.text.encode(), self._work.modules()))
            told = self._reporter.publish(row.id, row.owner, self._stop.is_set, list(sources))
        except Stopped:
            return  # it stays in the outbox
        except GauntletError as problem:
            wait = self._work.postpone(row.id, str(problem))
            log.warning("MLflow was not told", extra={"submission": row.id, "again_in": wait, "why": problem.message})
            self.traces.span(path, began, time.time(), problem=problem.message)
        else:
            self._work.published(row.id, told[:1])
            log.info("MLflow was told", extra={"submission": row.id})
            self.traces.span(path, began, time.time())

    def _forget(self) -> None:
        self._retention.run(self._stop)

    # --- for the threads of submissions

    def carry_out(self, each: AtWork) -> None:
        """One submission, from its text to its leaderboard. Raises Stopped, and what the engine raises."""
        row, options = each.row, Options(self._place.output, name=each.row.id, most=self._quotas.tasks)
        suite = intake.accept(row.text.encode(), each.modules, again=True)
        sources = needed(suite, row.text.encode(), each.modules)

        def stop() -> bool:
            return bool(each.wish) or self._stop.is_set()

        run = engine.run(suite, row.text, sources, options, each.watch, workforce=each, canceled=stop)
        with self._wanted():
            self._reporter.draw(row.id, stop, sources)
        each.state = State(run.status["state"])

    @contextlib.contextmanager
    def _wanted(self) -> Iterator[None]:
        """While a user waits for a leaderboard."""
        with self._lock:
            self._unwritten += 1
        try:
            yield
        finally:
            with self._lock:
                self._unwritten -= 1

    def hardware(self, resources: Resources, waits: Callable[[str], None], canceled: Callable[[], bool]) -> Fingerprint:
        """What timings of such workers are made on; waits for a node that can hold one. Raises Canceled."""
        share, me = Share.of(resources), threading.current_thread().name
        try:
            while not canceled():
                try:
                    if (joined := self._joined) is not None:
                        why = nowhere(joined.listing(), share)
                        waits(why[0] if why else "")
                        if why is None:
                            return joined.hardware(share)
                        self._untimed[me] = share
                except Exception:
                    if not self._stop.wait(GOING):
                        raise
                    continue  # the cluster has gone, and with it the dispatcher
                time.sleep(BEAT)
        finally:
            self._untimed.pop(me, None)
        raise Canceled

    def note(self, job: AnyJob, outcome: Outcome) -> None:
        if isinstance(job, TaskJob) and not isinstance(outcome, Failed):
            self._timings.note(job.task.cell, job.task.stop - job.task.start, outcome.seconds)
