"""A dispatcher for each kind of worker that submissions want: all on one pool, in one thread.

How many workers each may have is the allotment's to say. What wants nodes that are not there gets no crew, and waits in
the queue.
"""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from bench import placement
from bench.dispatch import Canceled, Dispatcher, Done, Event, Lost, Pool, Ready
from bench.errors import ClusterError
from bench.placement import Nodes, Share
from bench.service.allotment import Allotment
from bench.service.fair import FairQueue
from bench.service.tickets import Ticket

LOOK = 0.5  # seconds between two looks at whether there are nodes for everybody


class Workers(Pool[Ticket], Protocol):
    """Workers of any kind."""

    def start_as(self, options: Mapping[str, Any]) -> int:
        """Begin to start a worker that takes so much of a node."""
        ...


@dataclass(frozen=True)
class _Part:
    """Workers of one kind: a `bench.dispatch.Pool`."""

    crews: "Crews"
    share: Share

    def start(self) -> int:
        return self.crews.start(self.share)

    def submit(self, worker: int, job: Ticket) -> None:
        self.crews.allotment.given(worker)
        self.crews.pool.submit(worker, job)

    def wait(self, seconds: float) -> list[Event]:
        return self.crews.wait(seconds)

    def stop(self, worker: int) -> None:
        self.crews.allotment.gone(worker)
        self.crews.pool.stop(worker)


class _Of:
    """What the queue has for such workers. Ends when there is nothing at the moment, and may go on later."""

    def __init__(self, queue: FairQueue, share: Share) -> None:
        self._queue = queue
        self._share = share

    def __iter__(self) -> "_Of":
        return self

    def __next__(self) -> Ticket:
        if (ticket := self._queue.take(self._share)) is None:
            raise StopIteration
        return ticket


class Crews:
    """pool: workers of all kinds. nodes: as they are now. most: workers at once; None: as many as there is room for.

    lacking: which of the workers that the queue asks for no node can hold; it has been told so.
    """

    def __init__(
        self,
        pool: Workers,
        queue: FairQueue,
        nodes: Callable[[], Nodes],
        most: int | None,
        *,
        startup: float,
        lacking: Callable[[], Collection[Share]],
        canceled: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pool = pool
        self.allotment = Allotment(nodes, most, self._had, queue.users, clock)
        self._queue = queue
        self._nodes = nodes
        self._startup = startup
        self._lacking = lacking
        self._canceled = canceled
        self._clock = clock
        self._looked = float("-inf")
        self._crews: dict[Share, Dispatcher[Ticket]] = {}

    def run(self) -> None:
        """Until there is nothing for them to do, or timings have waited long enough.

        Raises Canceled, or ClusterError where no worker at all can be started.
        """
        try:
            while self.step():
                pass
        finally:
            for crew in self._crews.values():
                crew.close()

    def step(self) -> bool:
        """Each crew hands out, all wait, each hears. Whether there are any left."""
        if self._canceled():
            raise Canceled
        self._look()
        for share in self._queue.shares():
            if share not in self._crews:
                self._crews[share] = self._crew(share)
        patience = [seconds for share in list(self._crews) if (seconds := self._hand_out(share)) is not None]
        if patience:
            news = self.wait(min(patience))
            for crew in self._crews.values():
                crew.hear(news)
        if not any(crew.busy or crew.waiting for crew in self._crews.values()):
            self._queue.rest()
        return bool(self._crews)

    # --- by the parts

    def start(self, share: Share) -> int:
        takes = placement.amounts(self._nodes(), share)
        worker = self.pool.start_as(takes)
        self.allotment.started(worker, share, takes)
        return worker

    def wait(self, seconds: float) -> list[Event]:
        """News of all workers."""
        news = self.pool.wait(seconds)
        for event in news:
            if isinstance(event, Ready):
                self.allotment.ready(event.worker, event.node)
            elif isinstance(event, Done):
                self.allotment.answered(event.worker)
            elif isinstance(event, Lost):
                self.allotment.gone(event.worker)
        return news

    # --- inside

    def _hand_out(self, share: Share) -> float | None:
        """As the crew's dispatcher does; None: it is disbanded."""
        try:
            patience = self._crews[share].hand_out(_Of(self._queue, share))
        except ClusterError as problem:
            if not any(crew.staffed for crew in self._crews.values()):
                raise
            self._disband(share)  # others get workers: it is these that cannot be had
            self._queue.fail(problem, lambda stream: stream.share == share and not stream.alone)
            return None
        if patience is None:
            self._disband(share)
        return patience

    def _crew(self, share: Share) -> Dispatcher[Ticket]:
        return Dispatcher(
            _Part(self, share),
            self._queue.sink,
            workers=lambda: self.allotment.room(share),
            startup=self._startup,
            timeout=lambda ticket: ticket.timeout,
            retries=lambda ticket: ticket.retries,
            linger=lambda: self._queue.linger(share),
            rather=lambda groups: self._queue.rather(groups, share),
            dropped=self._queue.dropped,
            leaving=lambda: self.allotment.leaving(share),
            clock=self._clock,
        )

    def _disband(self, share: Share) -> None:
        self._queue.put_back(self._crews.pop(share).close())

    def _look(self) -> None:
        """Which workers no node can hold. Crews that have lost their last nodes give back what they have."""
        if self._clock() - self._looked < LOOK:
            return
        self._looked = self._clock()
        for share in set(self._lacking()) & self._crews.keys():
            if not self._crews[share].staffed:
                self._disband(share)

    def _had(self, share: Share) -> float | None:
        crew = self._crews.get(share)
        return self._queue.had(crew.waiting) if crew and crew.waiting else None


def lacking(queue: FairQueue, nodes: Nodes) -> set[Share]:
    """The workers that submissions want and no node can hold now. The queue is told which and why."""
    found = {share: why[0] for share in queue.asked() if (why := placement.nowhere(nodes, share))}
    queue.nowhere(found)
    return set(found)
