"""Workers of several kinds on the same nodes: how many of each there may be, and which have to go for others. Pure.

Where there is room, a kind that is waited for gets it. Where there is none, room is made on one node at a time: workers
that have nothing to do go at once; one that is busy goes when it has done what it has, if its kind's next user has had
BOUND seconds more than the one who waits, and its kind more than its users' part of all workers, or the other kind none
at all. So two kinds on one node take turns, each for so long that starting workers costs little; on many nodes each
kind gets what its users would get of one kind, and keeps it.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from bench import placement
from bench.placement import Amounts, Nodes, Share

BOUND = 30.0  # seconds of workers; a worker takes some seconds to start, and more until it has a model loaded
IDLE = 1.0  # seconds without a task after which a worker has nothing to do
ASKS = 10.0  # seconds after which who has not asked again waits no more


@dataclass
class _Lodger:
    share: Share
    takes: Amounts
    since: float  # when it began to have nothing to do
    node: str | None = None  # unknown until it is ready
    tasks: int = 0


@dataclass
class _Claim:
    """Room that is being made on a node."""

    node: str
    leaving: set[int]
    takes: Amounts
    asked: float


@dataclass
class Allotment:
    """nodes: as they are now. most: workers of all kinds. had: seconds that the user has had who waits for a worker of
    this kind; None where nobody does. users: of each kind.
    """

    nodes: Callable[[], Nodes]
    most: int | None
    had: Callable[[Share], float | None]
    users: Callable[[], Mapping[Share, Collection[str]]]
    clock: Callable[[], float] = time.monotonic
    _lodgers: dict[int, _Lodger] = field(default_factory=dict)
    _kinds: dict[Share, set[int]] = field(default_factory=dict)  # workers of each; no kind without any
    _claims: dict[Share, _Claim] = field(default_factory=dict)

    # --- told of workers

    def started(self, worker: int, share: Share, takes: Amounts) -> None:
        self._lodgers[worker] = _Lodger(share, takes, self.clock())
        self._kinds.setdefault(share, set()).add(worker)
        self._claims.pop(share, None)

    def ready(self, worker: int, node: str) -> None:
        if (lodger := self._lodgers.get(worker)) is not None:
            lodger.node, lodger.since = node, self.clock()

    def given(self, worker: int) -> None:
        """A task."""
        self._lodgers[worker].tasks += 1

    def answered(self, worker: int) -> None:
        if (lodger := self._lodgers.get(worker)) is not None:
            lodger.tasks, lodger.since = lodger.tasks - 1, self.clock()

    def gone(self, worker: int) -> None:
        if (lodger := self._lodgers.pop(worker, None)) is not None:
            self._kinds[lodger.share].discard(worker)
            if not self._kinds[lodger.share]:
                del self._kinds[lodger.share]
        for claim in self._claims.values():
            claim.leaving.discard(worker)

    # --- asked

    def room(self, share: Share) -> int:
        """How many such workers there may be now, with those that there are. Asked again and again by who waits."""
        takes, now = placement.amounts(self.nodes(), share), self.clock()
        if not self._claims and self._kinds.keys() <= {share}:  # nobody else is there: quick, since it is usual
            there = placement.room(self.nodes(), takes)
            return there if self.most is None else min(self.most, there)
        self._claims = {
            kind: claim for kind, claim in self._claims.items() if now - claim.asked < ASKS or kind == share
        }
        mine = self._kinds.get(share, set())
        more = self._more(share, takes)
        if more == 0 and all(self._lodgers[worker].node for worker in mine):
            self._claim(share, takes)
        return len(mine) + more

    def leaving(self, share: Share) -> list[int]:
        """Workers of this kind that have to go: for others, or since they would be given other GPUs by now."""
        now = placement.amounts(self.nodes(), share)["num_gpus"]
        promised = {worker for claim in self._claims.values() for worker in claim.leaving}
        return [
            worker
            for worker in self._kinds.get(share, ())
            if worker in promised or self._lodgers[worker].takes["num_gpus"] != now
        ]

    # --- inside

    def _more(self, share: Share, takes: Amounts) -> int:
        """Workers that fit beside those that there are, and the room that is being made for others."""
        others = [claim for kind, claim in self._claims.items() if kind != share]
        free = self._free(others)
        fit = sum(placement.fits(free[node["NodeID"]], takes) for node in placement.suited(self.nodes(), takes))
        return fit if self.most is None else max(0, min(fit, self.most - len(self._lodgers) - len(others)))

    def _free(self, claims: Collection[_Claim]) -> dict[str, dict[str, float]]:
        """What is left of each living node. Workers that have not told where they are count where they fit first."""
        free = {node["NodeID"]: dict(node["Resources"]) for node in self.nodes() if node["Alive"]}
        lodgers = self._lodgers.values()
        for node, takes in [(lodger.node, lodger.takes) for lodger in lodgers if lodger.node] + [
            (claim.node, claim.takes) for claim in claims
        ]:
            if node in free:
                _take(free[node], takes)
        for lodger in lodgers:
            if lodger.node is None:
                suited = (node["NodeID"] for node in placement.suited(self.nodes(), lodger.takes))
                place = next((node for node in suited if placement.fits(free[node], lodger.takes)), None)
                if place is not None:
                    _take(free[place], lodger.takes)
        return free

    def _claim(self, share: Share, takes: Amounts) -> None:
        """Begin to make room on one node, or go on with it."""
        claim, now = self._claims.get(share), self.clock()
        living = {node["NodeID"] for node in placement.suited(self.nodes(), takes)}
        if claim is not None and claim.node in living and claim.leaving:
            claim.asked = now
            return
        self._claims.pop(share, None)
        if found := min(self._ways(share, takes), key=lambda way: way[0], default=None):
            self._claims[share] = _Claim(found[1], found[2], takes, now)

    def _ways(self, share: Share, takes: Amounts) -> Iterator[tuple[tuple[int, int], str, set[int]]]:
        """Of each node that will do: how many busy ones, and how many at all, would have to go, and which."""
        promised = {worker for claim in self._claims.values() for worker in claim.leaving}
        taken = {kind for kind in self._kinds if kind != share and self._takes_from(share, kind)}
        may = [
            (lodger.tasks > 0, worker)
            for worker, lodger in self._lodgers.items()
            if lodger.share != share and lodger.node and worker not in promised
            and (lodger.share in taken or self._idle(lodger))
        ]  # fmt: skip
        if not may:
            return
        there: dict[str | None, list[tuple[bool, int]]] = {}
        for each in sorted(may):
            there.setdefault(self._lodgers[each[1]].node, []).append(each)
        free = self._free(list(self._claims.values()))
        full = self.most is not None and len(self._lodgers) + len(self._claims) >= self.most
        for node in placement.suited(self.nodes(), takes):
            name, going = node["NodeID"], []
            for each in there.get(name, []):
                if placement.fits(free[name], takes):
                    break
                going.append(each)
                _take(free[name], self._lodgers[each[1]].takes, -1)
            if not placement.fits(free[name], takes):
                continue
            if full and not going:  # it is the number of workers that is short, wherever they are
                going = sorted(may)[:1]
            if going:
                yield (sum(busy for busy, _ in going), len(going)), name, {worker for _, worker in going}

    def _idle(self, lodger: _Lodger) -> bool:
        return lodger.tasks == 0 and self.clock() - lodger.since >= IDLE

    def _takes_from(self, share: Share, other: Share) -> bool:
        """Whether a busy worker of the other kind has to go for one of this kind."""
        mine, theirs = self.had(share), self.had(other)
        if theirs is None or mine is None or theirs - mine <= BOUND:
            return False
        used = {kind: kind.weight * len(workers) for kind, workers in self._kinds.items()}
        if share not in used:
            return True
        parts = self._parts(sum(used.values()))
        return used[share] < parts.get(share, 0.0) and used[other] > parts.get(other, 0.0)

    def _parts(self, total: float) -> dict[Share, float]:
        """What each kind would have if each user had as much, and divided it among the kinds that they use."""
        users = self.users()
        kinds = Counter(name for owners in users.values() for name in owners)
        each = total / max(1, len(kinds))
        return {kind: sum(each / kinds[name] for name in owners) for kind, owners in users.items()}


def _take(free: dict[str, float], takes: Amounts, times: int = 1) -> None:
    for resource, amount in (("CPU", takes["num_cpus"]), ("GPU", takes["num_gpus"])):
        free[resource] = free.get(resource, 0.0) - times * amount
