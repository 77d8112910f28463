"""Workers as Ray actors. With `bench.cluster`, the only file that imports ray.

Ray starts and places the workers, carries tasks and answers, and tells when a worker or a node has died. What follows
from that (retries, deadlines, giving up) is decided in `bench.dispatch`: Ray's own retries hang where no spare node is
left, so they are off.
"""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import ray
import torch
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayActorError, RayError, RayTaskError

from bench.contracts import Report
from bench.dispatch import Alive, Done, Event, Lost, Ready
from bench.errors import ClusterError
from bench.jobs import AnyJob, FitJob, TaskJob
from bench.plan import Task
from bench.plugins import Source
from bench.records import Reason
from bench.worker import FitTask, Outcome, TrainTask, Worker

SIGN_OF_LIFE = 5.0  # seconds
PAUSE = 0.02  # seconds that there is nothing to wait for


class Files(Protocol):
    """What workers are given, and what they leave for another attempt: `bench.store.Store` is one."""

    def blob(self, key: str) -> bytes:
        """Bytes by their digest."""

    def checkpoint(self, key: str) -> bytes | None:
        """How far a training is, by its key; None where it has not begun."""

    def set_checkpoint(self, key: str, state: bytes) -> None: ...


class _Actor:
    """A Worker in a process of its own."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._refs: dict[str, ray.ObjectRef] = {}
        given = bool(ray.get_gpu_ids())
        if given and not torch.cuda.is_available():
            raise ClusterError("Ray gave the worker a GPU, and torch sees none there: is it torch for CUDA?")
        self._worker = Worker(sources, self._fetch, "cuda:0" if given else "cpu")

    def ready(self) -> str:
        """The node that it is on."""
        return str(ray.get_runtime_context().get_node_id())

    def run(self, task: Task, blobs: "dict[str, ray.ObjectRef]", sources: Sequence[Source]) -> Outcome:
        self._refs |= blobs
        return self._worker.run(task, sources)

    def train(
        self,
        task: TrainTask,
        blobs: "dict[str, ray.ObjectRef]",
        sources: Sequence[Source],
        told: ActorHandle,
        saved: bytes | None,
    ) -> Outcome:
        self._refs |= blobs
        return self._worker.train(task, _Told(task.key, told, saved), sources)

    def fit(
        self, task: FitTask, blobs: "dict[str, ray.ObjectRef]", sources: Sequence[Source], told: ActorHandle
    ) -> Outcome:
        self._refs |= blobs
        return self._worker.fit(task, _Told(task.key, told, None), sources)

    def _fetch(self, key: str) -> bytes:
        data: bytes = ray.get(self._refs[key])
        return data


class _Board:
    """Where trainings and fits on other machines tell how far they are, and leave their states: the latest of each."""

    def __init__(self) -> None:
        self._news: deque[tuple[str, int, int]] = deque(maxlen=1000)
        self._states: dict[str, bytes] = {}

    def tell(self, key: str, done: int, total: int) -> None:
        self._news.append((key, done, total))

    def save(self, key: str, state: bytes) -> None:
        self._states[key] = state

    def news(self) -> tuple[list[tuple[str, int, int]], dict[str, bytes]]:
        news, states = list(self._news), self._states
        self._news.clear()
        self._states = {}
        return news, states


Actor = ray.remote(max_restarts=0, max_task_retries=0, max_concurrency=1)(_Actor)
Board = ray.remote(num_cpus=0)(_Board)


class _Told(Report):
    """Sends every hundredth of a training or fit to the board, and a sign of life now and then; waits for no answer."""

    def __init__(self, key: str, board: ActorHandle, saved: bytes | None) -> None:
        self._key = key
        self._board = board
        self._saved = saved
        self._last = -1
        self._spoke = 0.0

    def step(self, done: int, total: int, **figures: float) -> None:
        part = 100 * done // max(1, total)
        if part != self._last or time.monotonic() - self._spoke > SIGN_OF_LIFE:
            self._last, self._spoke = part, time.monotonic()
            self._board.tell.remote(self._key, done, total)

    def saved(self) -> bytes | None:
        return self._saved

    def save(self, state: bytes) -> None:
        self._board.save.remote(self._key, state)


class RayPool:
    """A `bench.dispatch.Pool` whose workers are Ray actors. options: of the next actor, asked anew for each."""

    def __init__(
        self,
        options: Callable[[], dict[str, Any]],
        sources: Sequence[Source],
        files: Files,
        progress: Callable[[str, int, int], None],
    ) -> None:
        self._options = options
        self._sources = ray.put(list(sources))
        self._files = files
        self._progress = progress
        self._blobs: dict[str, ray.ObjectRef] = {}
        self._actors: dict[int, ActorHandle] = {}
        self._given: dict[int, float] = {}  # GPUs, by worker
        self._waiting: dict[ray.ObjectRef, tuple[int, bool]] = {}  # -> worker, whether it is its first sign of life
        self._started = 0
        self._board: ActorHandle | None = None
        self._telling: dict[str, tuple[int, str]] = {}  # key of a training or fit -> its worker, and its title
        self._unfinished: dict[ray.ObjectRef, str] = {}  # answer of a training that is awaited, or lost -> its key

    def start(self) -> int:
        return self.start_as(self._options())

    def start_as(self, options: Mapping[str, Any]) -> int:
        """A worker that takes of a node what these options of an actor say."""
        self._started += 1
        actor = Actor.options(**options).remote(self._sources)
        self._actors[self._started] = actor
        self._given[self._started] = options["num_gpus"]
        self._waiting[actor.ready.remote()] = (self._started, True)
        return self._started

    def outdated(self) -> list[int]:
        """Workers that would be given another number of GPUs now: nodes with the first GPUs have come, or have gone."""
        now = self._options()["num_gpus"]
        return [worker for worker, given in self._given.items() if given != now]

    def submit(self, worker: int, job: AnyJob, sources: Sequence[Source] = ()) -> None:
        """sources: modules that it needs beside those that all workers of the pool have."""
        blobs = {key: self._blob(key) for key in job.blobs}
        actor = self._actors[worker]
        if isinstance(job, TaskJob):
            answer = actor.run.remote(job.task, blobs, sources)
        elif isinstance(job, FitJob):
            self._board = self._board or Board.remote()
            self._telling[job.key] = worker, job.title
            answer = actor.fit.remote(job.task, blobs, sources, self._board)
        else:
            self._board = self._board or Board.remote()
            self._telling[job.key] = worker, job.title
            self._tell()  # a lost worker's last state
            answer = actor.train.remote(job.task, blobs, sources, self._board, self._files.checkpoint(job.key))
            self._unfinished[answer] = job.key
        self._waiting[answer] = (worker, False)

    def wait(self, seconds: float) -> list[Event]:
        refs = list(self._waiting)
        if not refs:
            time.sleep(min(seconds, PAUSE))
            return []
        found, _ = ray.wait(refs, num_returns=1, timeout=seconds)
        if found:
            found, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        events = self._tell()
        for ref in sorted(found, key=refs.index):  # a worker answers in the order in which it was asked
            if ref in self._waiting:
                events.append(self._event(ref))
        return events

    def stop(self, worker: int) -> None:
        for ref in [ref for ref, (owner, _) in self._waiting.items() if owner == worker]:
            del self._waiting[ref]
        self._given.pop(worker, None)
        actor = self._actors.pop(worker, None)
        if actor is not None:
            ray.kill(actor, no_restart=True)

    def _event(self, ref: "ray.ObjectRef") -> Event:
        worker, first = self._waiting.pop(ref)
        try:
            answer = ray.get(ref)
        except OutOfMemoryError as problem:
            return self._lost(worker, f"killed by Ray's memory monitor: {line(problem)}", Reason.MEMORY)
        except RayActorError as problem:
            return self._lost(worker, line(problem))
        except RayTaskError as problem:  # the actor's own code, so ours: a plugin's errors come as answers
            return self._lost(worker, f"the worker failed: {line(problem)}")
        except RayError as problem:
            return self._lost(worker, f"{type(problem).__name__}: {line(problem)}")
        self._unfinished.pop(ref, None)
        return Ready(worker, answer) if first else Done(worker, answer)

    def _lost(self, worker: int, problem: str, reason: Reason = Reason.WORKER) -> Lost:
        self.stop(worker)
        return Lost(worker, problem, reason)

    def _blob(self, key: str) -> "ray.ObjectRef":
        if key not in self._blobs:
            self._blobs[key] = ray.put(self._files.blob(key))
        return self._blobs[key]

    def _tell(self) -> list[Event]:
        """Pass on how far trainings and fits are, each of which is alive, and keep their states."""
        if self._board is None:
            return []
        alive: set[int] = set()
        # news are a courtesy, and a state only saves time: without them work goes on
        with contextlib.suppress(RayActorError, GetTimeoutError):
            news, states = ray.get(self._board.news.remote(), timeout=2.0)
            for key, done, total in news:
                worker, title = self._telling[key]
                self._progress(title, done, total)
                alive.add(worker)
            for key in states.keys() & set(self._unfinished.values()):
                self._files.set_checkpoint(key, states[key])
        return [Alive(worker) for worker in sorted(alive)]


def line(problem: BaseException) -> str:
    """What tells in one of Ray's messages: the last line of a traceback, else the first lines."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    has_traceback = any(line.startswith('File "') for line in lines)
    return (lines[-1] if has_traceback else " ".join(lines[:3]))[:500]
