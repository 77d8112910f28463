"""Workers on a Ray cluster. The only file that imports ray.

Ray starts and places the workers, carries tasks and answers, and tells when a worker or a node has died. What follows
from that (retries, deadlines, giving up) is decided in `bench.dispatch`: Ray's own retries hang where no spare node is
left, so they are off.
"""

import contextlib
import logging
import math
import os
import secrets
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import ray
from ray._private import ray_constants
from ray._private import worker as ray_worker
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayActorError, RayError, RayTaskError

from bench import placement
from bench.contracts import Report
from bench.dispatch import Alive, Done, Event, Lost, Ready
from bench.errors import ClusterError
from bench.jobs import AnyJob, FitJob, TaskJob
from bench.plan import Task
from bench.plugins import PACKAGES, ROOT, Source
from bench.records import Reason
from bench.worker import FitTask, Outcome, TrainTask, Worker

SIGN_OF_LIFE = 5.0  # seconds


class Files(Protocol):
    """What workers are given, and what they leave for another attempt: `bench.store.Store` is one."""

    def blob(self, key: str) -> bytes:
        """Bytes by their digest."""

    def checkpoint(self, key: str) -> bytes | None:
        """How far a training is, by its key; None where it has not begun."""

    def set_checkpoint(self, key: str, state: bytes) -> None: ...


@dataclass(frozen=True)
class Share:
    """What one worker takes of a node. gpus None: one where the cluster has any."""

    cpus: float = 1.0
    gpus: float | None = None


# A node that is frozen is noticed within eight seconds instead of a minute. For a Ray of our own; others are told by
# `ray start --head --system-config='{...}'`.
WATCHFUL = {"health_check_period_ms": 1000, "health_check_timeout_ms": 2000, "health_check_failure_threshold": 3}


@contextlib.contextmanager
def cluster(
    address: str | None, workers: int | None, share: Share, system: Mapping[str, int] | None = None
) -> Iterator["Cluster"]:
    """A Ray cluster for the length of the block: one of our own on loopback, or the one at `address`.

    system: settings of a Ray of our own (WATCHFUL). Raises ClusterError where it cannot be started or reached.
    """
    if ray.is_initialized():
        raise ClusterError("Ray is in use in this process already", "run Gauntlet in a process of its own")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    if address is None:
        cores = len(os.sched_getaffinity(0))
        wanted = cores if workers is None else max(cores, math.ceil(workers * share.cpus))
        options |= {"address": "local", "include_dashboard": False, "_node_ip_address": "127.0.0.1", "num_cpus": wanted}
        options["_system_config"] = dict(system or {})
    with contextlib.ExitStack() as around:
        around.enter_context(_quiet())
        if address is None:
            around.enter_context(_private())
        else:
            options |= {"address": address, "runtime_env": {"working_dir": around.enter_context(_our_source())}}
        try:
            dashboard = ray.init(**options).dashboard_url or ""
        except Exception as problem:
            where = f"the cluster at {address}" if address else "a local Ray"
            raise ClusterError(
                f"cannot start or join {where}: {_line(problem)}", "`gauntlet doctor` looks at the machine"
            ) from problem
        try:
            yield Cluster(share, workers, dashboard)
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _our_source() -> Iterator[str]:
    """A folder with our packages and nothing else, which Ray carries to the nodes: all run the driver's code."""
    with tempfile.TemporaryDirectory(prefix="gauntlet-source-") as folder:
        for package in PACKAGES:
            shutil.copytree(ROOT / package, Path(folder, package), ignore=shutil.ignore_patterns("__pycache__"))
        yield folder


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Ray prints deaths of workers on stdout, where results go. The dispatcher tells of them: here they are logged."""

    def log(data: dict[str, Any], ignore_prefix: bool) -> None:
        logging.getLogger(__name__).info("%s", " ".join(data["lines"]))

    before, ray_worker.print_to_stdstream = ray_worker.print_to_stdstream, log
    try:
        yield
    finally:
        ray_worker.print_to_stdstream = before


@contextlib.contextmanager
def _private() -> Iterator[None]:
    """A Ray of our own hears nobody else: it listens on loopback only, and asks for a token that nobody was told.

    Ray replaces 127.0.0.1 by the machine's address unless it takes itself for a Ray that cannot form clusters.
    """
    ours = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    before = {name: os.environ.get(name) for name in ours}
    clusters, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    os.environ.update(ours)
    _reread_token()
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = clusters
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        _reread_token()


def _reread_token() -> None:
    """Ray has read the environment when it was imported, and keeps what it found."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


class Cluster:
    """The cluster this process has joined. dashboard: host and port of Ray's own pages, where it has any."""

    def __init__(self, share: Share, workers: int | None, dashboard: str = "") -> None:
        self.dashboard = dashboard
        self._most = workers
        resources = ray.cluster_resources()
        gpus = share.gpus if share.gpus is not None else min(1.0, resources.get("GPU", 0.0))
        if gpus > resources.get("GPU", 0.0):
            raise ClusterError(f"a worker needs {gpus:g} GPUs, the cluster has {resources.get('GPU', 0.0):g}")
        self.options: dict[str, Any] = {"num_cpus": share.cpus, "num_gpus": gpus}
        room = resources.get("CPU", 1.0) / share.cpus if share.cpus else float("inf")
        if gpus:
            room = min(room, resources["GPU"] / gpus)
        self.workers = workers or max(1, int(room))

    def timing_node(self) -> str | None:
        """The node that timings have to themselves while others do the rest; None: the rest comes first."""
        return placement.timing_node(ray.nodes(), self.options, _here())

    def room(self, without: str | None = None) -> int:
        """How many workers there is room for now, on all nodes or on all but one; no more than were asked for.

        Nodes that have joined since count.
        """
        there = max(1, placement.room(ray.nodes(), self.options, without))
        return there if self._most is None else min(self._most, there)

    @property
    def nodes(self) -> int:
        return sum(1 for node in ray.nodes() if node["Alive"])

    def pool(
        self,
        sources: Sequence[Source],
        files: Files,
        progress: Callable[[str, int, int], None],
        avoided: Callable[[], str | None] = lambda: None,
        alone: bool = False,
    ) -> "RayPool":
        """Workers that know these plugin modules. files: each blob is asked for once. progress: of trainings.

        avoided: a node on which no worker may start at the moment. alone: each worker has a node to itself.
        """

        def options() -> dict[str, Any]:
            if alone:
                return placement.alone(ray.nodes(), self.options, _here())
            return placement.elsewhere(self.options, avoided())

        return RayPool(options, sources, files, progress)


class _Actor:
    """A Worker in a process of its own."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._refs: dict[str, ray.ObjectRef] = {}
        device = "cuda:0" if ray.get_gpu_ids() else "cpu"
        self._worker = Worker(sources, self._fetch, device)

    def ready(self) -> int:
        return os.getpid()

    def run(self, task: Task, blobs: "dict[str, ray.ObjectRef]") -> Outcome:
        self._refs |= blobs
        return self._worker.run(task)

    def train(
        self, task: TrainTask, blobs: "dict[str, ray.ObjectRef]", told: ActorHandle, saved: bytes | None
    ) -> Outcome:
        self._refs |= blobs
        return self._worker.train(task, _Told(task.key, told, saved))

    def fit(self, task: FitTask, blobs: "dict[str, ray.ObjectRef]", told: ActorHandle) -> Outcome:
        self._refs |= blobs
        return self._worker.fit(task, _Told(task.key, told, None))

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
    """A `bench.dispatch.Pool` whose workers are Ray actors."""

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
        self._waiting: dict[ray.ObjectRef, tuple[int, bool]] = {}  # -> worker, whether it is its first sign of life
        self._started = 0
        self._board: ActorHandle | None = None
        self._telling: dict[str, tuple[int, str]] = {}  # key of a training or fit -> its worker, and its title
        self._unfinished: dict[ray.ObjectRef, str] = {}  # answer of a training that is awaited, or lost -> its key

    def start(self) -> int:
        self._started += 1
        actor = Actor.options(**self._options()).remote(self._sources)
        self._actors[self._started] = actor
        self._waiting[actor.ready.remote()] = (self._started, True)
        return self._started

    def submit(self, worker: int, job: AnyJob) -> None:
        blobs = {key: self._blob(key) for key in job.blobs}
        actor = self._actors[worker]
        if isinstance(job, TaskJob):
            answer = actor.run.remote(job.task, blobs)
        elif isinstance(job, FitJob):
            self._board = self._board or Board.remote()
            self._telling[job.key] = worker, job.title
            answer = actor.fit.remote(job.task, blobs, self._board)
        else:
            self._board = self._board or Board.remote()
            self._telling[job.key] = worker, job.title
            self._tell()  # a lost worker's last state
            answer = actor.train.remote(job.task, blobs, self._board, self._files.checkpoint(job.key))
            self._unfinished[answer] = job.key
        self._waiting[answer] = (worker, False)

    def wait(self, seconds: float) -> list[Event]:
        refs = list(self._waiting)
        if not refs:
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
        actor = self._actors.pop(worker, None)
        if actor is not None:
            ray.kill(actor, no_restart=True)

    def _event(self, ref: "ray.ObjectRef") -> Event:
        worker, first = self._waiting.pop(ref)
        try:
            answer = ray.get(ref)
        except OutOfMemoryError as problem:
            return self._lost(worker, f"killed by Ray's memory monitor: {_line(problem)}", Reason.MEMORY)
        except RayActorError as problem:
            return self._lost(worker, _line(problem))
        except RayTaskError as problem:  # the actor's own code, so ours: a plugin's errors come as answers
            return self._lost(worker, f"the worker failed: {_line(problem)}")
        except RayError as problem:
            return self._lost(worker, f"{type(problem).__name__}: {_line(problem)}")
        self._unfinished.pop(ref, None)
        return Ready(worker) if first else Done(worker, answer)

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


def _here() -> str:
    return str(ray.get_runtime_context().get_node_id())


def _line(problem: BaseException) -> str:
    """What tells in one of Ray's messages: the last line of a traceback, else the first lines."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    has_traceback = any(line.startswith('File "') for line in lines)
    return (lines[-1] if has_traceback else " ".join(lines[:3]))[:500]
