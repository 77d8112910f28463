"""The main job: a suite in, records out. Trains what has to be trained, then measures what the store does not have."""

import contextlib
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bench import contracts
from bench.cluster import Cluster, cluster
from bench.dispatch import Canceled, Dispatcher
from bench.errors import GauntletError
from bench.fingerprint import Fingerprint, fingerprint, with_threads
from bench.jobs import AnyJob, FitJob, TaskJob, TrainJob
from bench.placement import Share
from bench.plan import CellPlan, Resolved, Task, planned
from bench.plugins import Source
from bench.progress import Display
from bench.records import Failure, Reason
from bench.resolve import Resolver
from bench.runs import Run, manifest
from bench.store import Store
from bench.suite import Resources, Suite, to_yaml
from bench.timings import Timings
from bench.worker import Failed, FitTask, Measured, Outcome, TrainTask

STARTUP = 120.0  # seconds until a worker that does not come up is given up
DRAINING = 3600.0  # the same where it waits for a node until others have left it


@dataclass(frozen=True)
class Options:
    """What belongs to the machine and the moment, not to the suite."""

    output: Path
    workers: int | None = None
    address: str | None = None
    only: str | None = None
    command: tuple[str, ...] = ()
    name: str | None = None  # of the run, where it should not share its place with others of the same content
    most: int | None = None  # tasks
    origins: Mapping[str, str] = field(default_factory=dict)  # by model: who registered it


class Workforce(Protocol):
    """Workers that several runs share, where a run has no cluster of its own."""

    def dispatch(
        self,
        jobs: Iterator[AnyJob],
        sink: Callable[[AnyJob, Outcome, int], None],
        *,
        resources: Resources,
        progress: Callable[[str, int, int], None],
        canceled: Callable[[], bool],
        alone: bool,
        sources: Sequence[Source],
    ) -> None:
        """Until every job has ended. Jobs are asked for by one other thread, and the sink is told by one; `length_hint`
        of them is good. Raises Canceled.

        sources: modules that workers load for them.
        """

    def hardware(self, resources: Resources, canceled: Callable[[], bool]) -> Fingerprint:
        """Of the nodes where timings of such workers will be made; waits for one. Raises Canceled."""


class Stopped(GauntletError):
    """Somebody asked the run to stop. What was measured is in the store."""

    exit_code = 130


def plan(suite: Suite, output: Path, only: str | None = None) -> tuple[Resolved, list[TrainTask | FitTask]]:
    """What a run on this machine would do: writes nothing, starts nothing."""
    store = Store(str(output / "store"))
    return Resolver(store, suite, with_threads(fingerprint(), suite.resources.threads)[1], keep=False).resolve(only)


def run(
    suite: Suite,
    text: str,
    sources: Sequence[Source],
    options: Options,
    display: Display,
    *,
    workforce: Workforce | None = None,
    canceled: Callable[[], bool] = lambda: False,
) -> Run:
    """Run a suite, or what is left of it. text: the suite as it was given. workforce: instead of a cluster of its own.

    Every planned task ends in the store or in the run's failures. Raises Stopped after SIGINT or SIGTERM, ClusterError
    where there is no cluster to be had; then the same call continues later.
    """
    store = Store(str(options.output / "store"))
    with contextlib.ExitStack() as around:
        found, joined = _hardware(suite, options, workforce, canceled, around)
        hardware, digest = with_threads(found, suite.resources.threads)
        resolver = Resolver(store, suite, digest)
        resolved, trainings = resolver.resolve(options.only)
        if options.most is not None and (count := planned(list(resolved.cells(options.only)))) > options.most:
            raise GauntletError(f"{count} tasks, and no more than {options.most} are allowed", "divide the suite")
        facts = {**manifest(options.command, hardware, suite.seed), "origins": dict(options.origins)}
        place = Run.create(options.output, resolved, text, to_yaml(suite), facts, options.name)
        job = _Job(suite, sources, options, display, place, store, workforce, cluster=joined)
        with _stop_on_signal() as signaled:
            job.stop = lambda: signaled() or canceled()
            try:
                job.do(resolver, resolved, trainings)
            except Canceled:
                job.run.set_status("stopped")
                raise Stopped(
                    f"stopped: {job.measured} tasks were measured and are kept", "the same command continues"
                ) from None
            except BaseException:
                job.run.set_status("stopped")
                raise
            finally:
                job.timings.save()
    job.run.set_status("incomplete" if job.run.failures else "complete")
    return job.run


def _hardware(
    suite: Suite,
    options: Options,
    workforce: Workforce | None,
    canceled: Callable[[], bool],
    around: contextlib.ExitStack,
) -> tuple[Fingerprint, Cluster | None]:
    """What timings are made on: they are planned for it. The cluster, where it had to be asked.

    Without timings, and on a Ray of our own, that is this machine.
    """
    evaluations = suite.evaluations
    timings = any(contracts.probes.get(probe.probe).exclusive for probe in evaluations.probes)
    if not timings and not any(detector.cost for detector in evaluations.detectors):
        return fingerprint(), None
    if workforce is not None:
        try:
            return workforce.hardware(suite.resources, canceled), None
        except Canceled:
            raise Stopped("stopped before anything was measured", "the same command continues") from None
    if options.address is None:
        return fingerprint(), None
    joined = _join(suite, options, around)
    return joined.hardware(), joined


def _join(suite: Suite, options: Options, around: contextlib.ExitStack) -> Cluster:
    """A cluster that can hold the suite's workers. Raises ClusterError."""
    joined = around.enter_context(cluster(options.address, options.workers, Share.of(suite.resources)))
    joined.check()
    return joined


@dataclass
class _Job:
    """One run at work."""

    suite: Suite
    sources: Sequence[Source]
    options: Options
    display: Display
    run: Run
    store: Store
    workforce: Workforce | None = None
    stop: Callable[[], bool] = lambda: False
    measured: int = 0
    cluster: Cluster | None = None
    _done: Counter[str] = field(default_factory=Counter)
    _untrained: dict[str, Failed] = field(default_factory=dict)
    _told_reasons: set[str] = field(default_factory=set)  # a model that does not load fails every task alike
    _telling: threading.Lock = field(default_factory=threading.Lock)  # timings may end while other tasks do

    def __post_init__(self) -> None:
        self.timings = Timings(self.options.output / "timings.json")

    def do(self, resolver: Resolver, resolved: Resolved, trainings: list[TrainTask | FitTask]) -> None:
        with contextlib.ExitStack() as around:
            idle = not trainings and not self._lacks(resolved)
            if not idle:
                self._hire(around)
                while trainings := [task for task in trainings if task.key not in self._untrained]:
                    self._train(trainings)
                    resolved, trainings = resolver.resolve(self.options.only)
                    if not trainings:
                        self.display.note(f"{self.run.submission}: measuring")
                self.run.set_resolved(resolved)
                self._measure(list(resolved.cells(self.options.only)))
            if self.suite.evaluations.escalate:
                further = resolver.escalated(resolved, self.run.cells())
                self.run.set_resolved(further)
                if self._lacks(further):
                    idle = False
                    self._hire(around)
                    self._measure([cell for cell in further.cells(self.options.only) if cell.evaluation.remedy])
            if idle:
                self.display.note(f"{self.run.submission}: everything is in the store already")

    def _lacks(self, resolved: Resolved) -> bool:
        """Whether anything of it is yet to be measured."""
        return next(self._missing_jobs(resolved.cells(self.options.only)), None) is not None

    def _hire(self, around: contextlib.ExitStack) -> None:
        """Start workers, unless there are some."""
        if self.workforce is not None or self.cluster is not None:
            return
        self.display.note(f"{self.run.submission}: starting workers")
        self.cluster = _join(self.suite, self.options, around)

    def _train(self, trainings: list[TrainTask | FitTask]) -> None:
        """Trainings and fits of detectors and attacks: what has to be made before anything can be measured."""
        jobs: list[AnyJob] = [TrainJob(task) if isinstance(task, TrainTask) else FitJob(task) for task in trainings]
        self.display.phase()
        self.display.note(f"{self.run.submission}: {', '.join(job.title for job in jobs)}; each counts to 100")
        for job in jobs:
            self.display.begin(job.title, 100, 0)

        def sink(job: AnyJob, outcome: Outcome, attempts: int) -> None:
            if isinstance(outcome, Measured):
                self.store.set_trained(job.key, self.store.put_blob(outcome.data), outcome.seconds, outcome.curves)
                self.display.advance(job.title, 100)
            else:
                self._untrained[job.key] = outcome
                self.display.note(f"{job.title}: failed: {outcome.message}")

        self._dispatch(iter(jobs), sink)

    def _measure(self, cells: list[CellPlan]) -> None:
        ready = []
        self.display.phase()
        for cell in cells:
            self._done[cell.label] = sum(1 for task in cell.tasks() if self.store.has(task.key))
            self.display.begin(cell.label, cell.count, self._done[cell.label])
            unmade = any(ref.training and ref.weights is None for ref in cell.models)
            if unmade or (cell.fit and cell.fit.state is None):
                self._give_up(cell)
            else:
                ready.append(cell)
        common = [cell for cell in ready if not cell.evaluation.exclusive]
        left = sum(cell.count - self._done[cell.label] for cell in common)
        shared = _Counted(self._missing_jobs(iter(common)), left)
        timings = _alternating(self._missing_jobs(cell for cell in ready if cell.evaluation.exclusive))
        node = self.cluster.timing_node(*timings[0].bears) if timings and self.cluster else None
        if node is None:
            self._dispatch(shared, self._sink)
            self._time(timings)
        else:
            self._apart(node, shared, timings)

    def _apart(self, node: str, shared: Iterator[AnyJob], timings: list[TaskJob]) -> None:
        """Timings on a node that they have to themselves, while the others do the rest; then it helps them."""
        asked, abort = self.stop, threading.Event()
        self.stop = lambda: asked() or abort.is_set()
        with ThreadPoolExecutor(1) as thread:
            timed = thread.submit(self._time, timings)
            try:
                self._dispatch(shared, self._sink, avoided=lambda: None if timed.done() else node)
            except BaseException:
                abort.set()
                raise
            timed.result()

    def _time(self, timings: list[TaskJob]) -> None:
        for job in timings:  # alone, and in a fresh process
            self._dispatch(iter([job]), self._sink, alone=job)

    def _missing_jobs(self, cells: Iterator[CellPlan]) -> Iterator[TaskJob]:
        for cell in cells:
            for task in cell.tasks():
                if not self.store.has(task.key):
                    yield TaskJob(task)

    def _dispatch(
        self,
        jobs: Iterator[AnyJob],
        sink: Callable[[AnyJob, Outcome, int], None],
        *,
        avoided: Callable[[], str | None] = lambda: None,
        alone: TaskJob | None = None,
    ) -> None:
        """avoided: a node that takes no part at the moment. alone: the one job, which waits until it has a node."""
        if self.workforce is not None:
            self.workforce.dispatch(
                jobs, sink, resources=self.suite.resources, progress=self._told, canceled=self.stop,
                alone=alone is not None, sources=self.sources,
            )  # fmt: skip
            return
        joined = self.cluster
        assert joined is not None
        shared = (self.sources, self.store, self._told)
        pool = joined.apart(*shared, *alone.bears) if alone else joined.pool(*shared, avoided)
        Dispatcher(
            pool,
            sink,
            workers=1 if alone else lambda: joined.room(without=avoided()),
            startup=DRAINING if alone else STARTUP,
            timeout=lambda job: self.suite.resources.timeout + job.least_seconds,
            retries=self.suite.resources.retries,
            canceled=self.stop,
            leaving=tuple if alone else pool.outdated,
        ).run(jobs)

    def _told(self, title: str, done: int, total: int) -> None:
        self.display.advance(title, 100 * done // max(1, total))

    def _sink(self, job: AnyJob, outcome: Outcome, attempts: int) -> None:
        assert isinstance(job, TaskJob)
        task = job.task
        with self._telling:
            if isinstance(outcome, Measured):
                self.store.write(task.key, outcome.data)
                self.timings.note(task.cell, task.stop - task.start, outcome.seconds)
                self.measured += 1
            else:
                self._fail(task, outcome, attempts)
            self._done[task.cell.label] += 1
            self.display.advance(task.cell.label, self._done[task.cell.label])

    def _give_up(self, cell: CellPlan) -> None:
        """Its model could not be trained, or its detector not fitted: each of its tasks fails for that reason."""
        unfitted = self._untrained.get(cell.fit.key or "") if cell.fit else None
        why = unfitted or self._untrained.get(cell.model.training or "") or next(iter(self._untrained.values()))
        what = "fit" if unfitted else "training"
        for task in cell.tasks():
            self._fail(task, Failed(why.reason, f"its {what} failed: {why.message}", why.details), 0)

    def _fail(self, task: Task, why: Failed, attempts: int) -> None:
        cell = task.cell
        failure = Failure(
            key=task.key,
            model=cell.model.label,
            dataset=cell.dataset.label,
            evaluation=cell.evaluation.label,
            start=task.start,
            stop=task.stop,
            reason=Reason(why.reason),
            message=why.message,
            details=why.details,
            attempts=attempts,
        )
        self.run.add_failure(failure)
        told = "as above" if why.message in self._told_reasons else why.message
        self._told_reasons.add(why.message)
        self.display.note(f"{cell.label}[{task.start}:{task.stop}]: failed ({why.reason}): {told}")


class _Counted(Iterator[AnyJob]):
    """Jobs that are made as they are asked for, of which it is known about how many are left (PEP 424)."""

    def __init__(self, jobs: Iterator[AnyJob], left: int) -> None:
        self._jobs = jobs
        self._left = left

    def __next__(self) -> AnyJob:
        job = next(self._jobs)
        self._left -= 1
        return job

    def __length_hint__(self) -> int:
        return max(0, self._left)


def _alternating(jobs: Iterator[TaskJob]) -> list[TaskJob]:
    """Timings in an order that has nothing to do with the models: all first processes, then all second ones, and so on.

    So a machine that slowly changes its speed favours no model.
    """
    return sorted(jobs, key=lambda job: (job.task.start, job.key))


@contextmanager
def _stop_on_signal() -> Iterator[Callable[[], bool]]:
    """SIGINT and SIGTERM ask to stop; a second one does not wait. Only the main thread can listen to signals."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def listen(number: int, _: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, listen) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        with suppress(ValueError):
            for number, handler in before.items():
                signal.signal(number, handler)
