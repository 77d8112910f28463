"""A Ray cluster, of our own or a running one, and what its nodes are.

With `bench.pool`, which has the workers, the only file that imports ray.
"""

import contextlib
import logging
import math
import os
import secrets
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants
from ray._private import worker as ray_worker
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]
from ray.autoscaler.sdk import request_resources
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.exceptions import GetTimeoutError, RayError

from bench import placement
from bench.errors import ClusterError
from bench.fingerprint import Fingerprint, fingerprint, fingerprint_digest, with_threads
from bench.placement import Share
from bench.plugins import PACKAGES, ROOT, Source
from bench.pool import Files, RayPool, line

FRESH = 0.5  # seconds that a list of the nodes is good for
ASKING = 120.0  # seconds that a node has to say what it is

# A node that is frozen is noticed within eight seconds instead of a minute. For a Ray of our own; others are told by
# `ray start --head --system-config='{...}'`.
WATCHFUL = {"health_check_period_ms": 1000, "health_check_timeout_ms": 2000, "health_check_failure_threshold": 3}


@dataclass(frozen=True)
class Dashboard:
    """Ray's own pages, on loopback. token: the file that gets what they ask for; only its owner can read it."""

    port: int
    token: Path


@contextlib.contextmanager
def cluster(
    address: str | None,
    workers: int | None,
    share: Share,
    system: Mapping[str, int] | None = None,
    dashboard: Dashboard | None = None,
) -> Iterator["Cluster"]:
    """A Ray cluster for the length of the block: one of our own on loopback, or the one at `address`.

    system: settings of a Ray of our own (WATCHFUL); dashboard: of one. Raises ClusterError where it cannot be started
    or reached.
    """
    if ray.is_initialized():
        raise ClusterError("Ray is in use in this process already", "run Gauntlet in a process of its own")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    if address is None:
        cores = len(os.sched_getaffinity(0))
        wanted = cores if workers is None else max(cores, math.ceil(workers * share.cpus))
        options |= {"address": "local", "_node_ip_address": "127.0.0.1", "num_cpus": wanted}
        options |= {"include_dashboard": dashboard is not None, "dashboard_host": "127.0.0.1"}
        options |= {"dashboard_port": dashboard.port} if dashboard else {}
        options["_system_config"] = dict(system or {})
    with contextlib.ExitStack() as around:
        around.enter_context(_quiet())
        if address is None:
            around.enter_context(_private(dashboard.token if dashboard else None))
        else:
            options |= {"address": address, "runtime_env": {"working_dir": around.enter_context(_our_source())}}
        try:
            with _own_signals():
                pages = ray.init(**options).dashboard_url or ""
        except Exception as problem:
            where = f"the cluster at {address}" if address else "a local Ray"
            raise ClusterError(
                f"cannot start or join {where}: {line(problem)}", "`gauntlet doctor` looks at the machine"
            ) from problem
        joined = Cluster(share, workers, pages)
        try:
            yield joined
        finally:
            joined.leave()
            ray.shutdown()


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """What this process does on SIGTERM and SIGINT is as before: joining, Ray takes SIGTERM for a crash, and aborts."""
    ours = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():  # Python lets no other set them
            for number, handler in ours.items():
                signal.signal(number, handler)


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
def _private(told: Path | None) -> Iterator[None]:
    """A Ray of our own hears nobody else: it listens on loopback only, and asks for a token that nobody was told but
    whoever can read the file `told`.

    Ray replaces 127.0.0.1 by the machine's address unless it takes itself for a Ray that cannot form clusters.
    """
    ours = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    before = {name: os.environ.get(name) for name in ours}
    clusters, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    os.environ.update(ours)
    _reread_token()
    if told is not None:
        _write_secret(told, ours["RAY_AUTH_TOKEN"])
    try:
        yield
    finally:
        if told is not None:
            told.unlink(missing_ok=True)
        ray_constants.ENABLE_RAY_CLUSTER = clusters
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        _reread_token()


def _write_secret(path: Path, text: str) -> None:
    """Into a new file that nobody else can read at any moment."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _reread_token() -> None:
    """Ray has read the environment when it was imported, and keeps what it found."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


class Cluster:
    """The cluster this process has joined. dashboard: host and port of Ray's own pages, where it has any.

    share: what its workers take, unless something else is asked for. most: how many there may be, None: as many as
    there is room for.
    """

    def __init__(self, share: Share, most: int | None, dashboard: str = "") -> None:
        self.dashboard = dashboard
        self.most = most
        self._share = share
        self._listed: tuple[float, list[dict[str, Any]]] = (-math.inf, [])
        self._fingerprints: dict[str, Fingerprint] = {_here(): fingerprint()}
        self._asked: list[Share] | None = None  # what another driver has asked for before is not known

    def listing(self) -> list[dict[str, Any]]:
        """The nodes, as Ray lists them; not older than a moment."""
        if time.monotonic() - self._listed[0] > FRESH:
            self._listed = time.monotonic(), ray.nodes()
        return self._listed[1]

    @property
    def nodes(self) -> int:
        return sum(1 for node in self.listing() if node["Alive"])

    def check(self) -> None:
        """Raises ClusterError where no node can hold a worker now."""
        if why := placement.nowhere(self.listing(), self._share):
            raise ClusterError(*why)

    def options(self, share: Share | None = None) -> dict[str, Any]:
        """Of an actor that is such a worker now."""
        return placement.amounts(self.listing(), share or self._share)

    def room(self, without: str | None = None) -> int:
        """How many workers there is room for now, on all nodes or on all but one; no more than were asked for.

        Nodes that have joined since count.
        """
        there = max(1, placement.room(self.listing(), self.options(), without))
        return there if self.most is None else min(self.most, there)

    def ask_for(self, workers: Iterable[Share]) -> None:
        """Tell Ray's autoscaler, where the cluster has one, of all workers for which there should be room, those that
        there are among them. It starts nodes for the others, and keeps what it is asked to until it is asked for less.
        Ray's first autoscaler knows nothing of labels: of a kind that has some it is asked for one, whatever it starts.
        """
        every = list(workers)
        some = [share for share in every if not share.nodes or is_autoscaler_v2()]
        wanted = sorted([*some, *(set(every) - set(some))], key=str)
        if wanted == self._asked:
            return
        self._asked = wanted
        taken = [placement.amounts(self.listing(), share) for share in wanted]
        bundles = [
            {name: amount for name, amount in (("CPU", each["num_cpus"]), ("GPU", each["num_gpus"])) if amount}
            for each in taken
        ]
        request_resources(bundles=bundles, bundle_label_selectors=[dict(share.nodes) for share in wanted])

    def leave(self) -> None:
        """Take back what was asked for. Where Ray has gone, so has that."""
        if self._asked:
            with contextlib.suppress(RayError):
                self.ask_for(())

    def pool(
        self,
        sources: Sequence[Source],
        files: Files,
        progress: Callable[[str, int, int], None],
        avoided: Callable[[], str | None] = lambda: None,
    ) -> RayPool:
        """Workers that know these plugin modules. files: each blob is asked for once. progress: of trainings.

        avoided: a node on which no worker may start at the moment.
        """
        return RayPool(lambda: placement.elsewhere(self.options(), avoided()), sources, files, progress)

    # --- timings

    def hardware(self, share: Share | None = None) -> Fingerprint:
        """The fingerprint that timings of such workers bear: this node's where it can hold one, else another's.

        Of several kinds of nodes always the same one, whatever their order. Raises ClusterError.
        """
        holding = self._holding(share or self._share)
        if not holding or _here() in holding:
            return self._fingerprints[_here()]
        return min((self._fingerprint(node) for node in holding), key=fingerprint_digest)

    def timing_node(self, hardware: str, threads: int) -> str | None:
        """The node that timings have to themselves while others do the rest; None: the rest comes first.

        hardware: digest of their fingerprint, with so many threads.
        """
        equals = self._equals(self._share, hardware, threads)
        return placement.timing_node(self.listing(), self.options(), equals)

    def apart(
        self,
        sources: Sequence[Source],
        files: Files,
        progress: Callable[[str, int, int], None],
        hardware: str,
        threads: int,
        share: Share | None = None,
    ) -> RayPool:
        """Workers each of which has a node of this fingerprint to itself. Raises ClusterError where there is none."""

        def options() -> dict[str, Any]:
            equals = self._equals(share or self._share, hardware, threads)
            found = placement.alone(self.listing(), self.options(share), equals)
            if found is None:
                raise ClusterError(
                    f"the nodes that timings of {hardware} belong to have gone",
                    "the same command, or `gauntlet retry`, takes the nodes that there are",
                )
            return found

        return RayPool(options, sources, files, progress)

    def _equals(self, share: Share, hardware: str, threads: int) -> list[str]:
        """Nodes that can hold such a worker, and have this fingerprint; this one first."""
        here, holding = _here(), self._holding(share)
        if holding == [here]:
            return holding
        found = [here] if here in holding else []
        found += [node for node in holding if node != here]
        return [node for node in found if with_threads(self._fingerprint(node), threads)[1] == hardware]

    def _holding(self, share: Share) -> list[str]:
        """Living nodes that can hold such a worker."""
        worker = self.options(share)
        there = placement.suited(self.listing(), worker)
        return [node["NodeID"] for node in there if placement.fits(node["Resources"], worker)]

    def _fingerprint(self, node: str) -> Fingerprint:
        """Asked once of each node. Raises ClusterError where it does not answer."""
        if node not in self._fingerprints:
            asked = _Fingerprint.options(label_selector={placement.NODE: node}).remote()
            try:
                self._fingerprints[node] = ray.get(asked, timeout=ASKING)
            except (RayError, GetTimeoutError) as problem:
                raise ClusterError(
                    f"node {node[:8]} does not say what it is: {line(problem)}", "try again once it works or has gone"
                ) from problem
        return self._fingerprints[node]


_Fingerprint = ray.remote(num_cpus=0)(fingerprint)


def _here() -> str:
    return str(ray.get_runtime_context().get_node_id())
