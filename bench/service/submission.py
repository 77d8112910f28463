"""A submission at work: a thread that runs the engine, whose tasks go through the queue of all."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from bench import models
from bench.dispatch import Event, Lost, Ready
from bench.errors import GauntletError
from bench.fingerprint import Fingerprint
from bench.jobs import AnyJob, FitJob, TaskJob, TrainJob
from bench.plugins import Source
from bench.pool import RayPool
from bench.run import Stopped
from bench.service import intake, modules
from bench.service.database import Module, State, Submission
from bench.service.fair import FairQueue
from bench.service.tickets import Sink, Ticket
from bench.service.traces import Figures, Traces
from bench.service.watch import Watch
from bench.suite import Resources, Suite
from bench.worker import Failed, Measured, Outcome

log = logging.getLogger(__name__)


class Foreman(Protocol):
    """What a submission needs of the dispatcher."""

    queue: FairQueue
    traces: Traces
    handed: dict[str, float]

    def carry_out(self, each: "AtWork") -> None:
        """From its text to its leaderboard. Raises Stopped, and what the engine raises."""

    def hardware(self, resources: Resources, waits: Callable[[str], None], canceled: Callable[[], bool]) -> Fingerprint:
        """Of the nodes where its timings will be made; waits for one. Raises Canceled."""

    def note(self, job: AnyJob, outcome: Outcome) -> None:
        """How long a task took, for estimates."""


class AtWork(threading.Thread):
    """A submission at work; the workforce of its run."""

    def __init__(self, row: Submission, foreman: Foreman, modules: Sequence[Module] = ()) -> None:
        super().__init__(name=row.id, daemon=True)
        self.row = row
        self.modules = modules  # that are registered
        self.watch = Watch()
        self.wish: str | None = None
        self.state = State.QUEUED  # what it becomes
        self.message = ""
        self.path = (row.id, f"attempt:{row.started}")  # in its trace
        self._foreman = foreman

    def run(self) -> None:
        try:
            self._foreman.carry_out(self)
        except Stopped:
            self.state = {"cancel": State.CANCELED, "pause": State.PAUSED}.get(self.wish or "", State.QUEUED)
        except GauntletError as problem:
            self.state, self.message = State.FAILED, str(problem)
        except Exception as problem:
            log.exception("a submission met a bug", extra={"submission": self.row.id})
            self.state, self.message = State.FAILED, f"a bug of the service: {type(problem).__name__}: {problem}"

    def dispatch(
        self,
        jobs: Iterator[AnyJob],
        sink: Sink,
        *,
        resources: Resources,
        progress: Callable[[str, int, int], None],
        canceled: Callable[[], bool],
        alone: bool,
        sources: Sequence[Source],
    ) -> None:
        def told(job: AnyJob, outcome: Outcome, attempts: int) -> None:
            ended = time.time()
            self._foreman.note(job, outcome)
            self.watch.failed += isinstance(outcome, Failed) and isinstance(job, TaskJob)
            sink(job, outcome, attempts)
            self._tell(job, outcome, attempts, ended)

        self._foreman.queue.dispatch(
            self.row.owner, self.row.id, jobs, told,
            resources=resources, progress=progress, canceled=canceled, alone=alone, sources=sources,
            abandoned=lambda: self.wish == "cancel", waits=self.watch.waits,
        )  # fmt: skip

    def hardware(self, resources: Resources, canceled: Callable[[], bool]) -> Fingerprint:
        return self._foreman.hardware(resources, self.watch.waits, canceled)

    def _tell(self, job: AnyJob, outcome: Outcome, attempts: int, ended: float) -> None:
        """To the log and the trace. ended: when the worker's answer was there."""
        about = {"submission": self.row.id, "task": job.key}
        problem = outcome.message if isinstance(outcome, Failed) else ""
        if problem:
            log.warning("a task failed", extra={**about, "title": job.title, "attempts": attempts, "why": problem})
        else:
            log.debug("a task has ended", extra={**about, "title": job.title, "attempts": attempts})
        handed, span = self._foreman.handed.pop(job.key, ended), self._foreman.traces.span
        path, now = (*self.path, f"task:{job.key}"), time.time()
        figures: Figures = {"gauntlet.task": job.key, "gauntlet.title": job.title, "gauntlet.attempts": attempts}
        span((*path, "worker"), handed, ended, problem=problem)
        if isinstance(outcome, Measured):
            span((*path, "worker", "measure"), ended - outcome.seconds, ended)
        span((*path, "store"), ended, now)
        span(path, handed, now, figures, problem)


class TicketPool:
    """Workers that get tickets. The label of a training or fit says whose it is. handed: when, by the task's key."""

    def __init__(self, pool: RayPool, handed: dict[str, float]) -> None:
        self._pool = pool
        self._handed = handed

    def start(self) -> int:
        return self._pool.start()

    def start_as(self, options: Mapping[str, Any]) -> int:
        return self._pool.start_as(options)

    def submit(self, worker: int, job: Ticket) -> None:
        inner = job.job
        if isinstance(inner, TrainJob):
            inner = TrainJob(replace(inner.task, label=f"{job.stream.submission}|{inner.task.label}"))
        elif isinstance(inner, FitJob):
            inner = FitJob(replace(inner.task, label=f"{job.stream.submission}|{inner.task.label}"))
        self._handed[inner.key] = time.time()
        self._pool.submit(worker, inner, job.stream.sources)

    def wait(self, seconds: float) -> list[Event]:
        events = self._pool.wait(seconds)
        for event in events:
            if isinstance(event, Lost):
                log.warning("a worker is lost", extra={"worker": event.worker, "why": event.problem})
            elif isinstance(event, Ready):
                log.info("a worker is ready", extra={"worker": event.worker})
        return events

    def stop(self, worker: int) -> None:
        self._pool.stop(worker)


def needed(suite: Suite, text: bytes, known: Sequence[Module]) -> list[Source]:
    """The modules that a suite needs, loaded here: of what it names, and of what builds its registered models.

    Raises PluginError, and TrackingError where MLflow cannot say what builds a model.
    """
    registered = [spec.registered for spec in suite.models if spec.registered] if known else []
    builders = models.builders(registered, os.environ["MLFLOW_TRACKING_URI"]) if registered else ()
    found = intake.needed(text, known, builders)
    for module in found:
        modules.load(module)
    return [modules.source(module) for module in found]
