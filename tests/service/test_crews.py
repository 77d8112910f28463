"""Workers of several kinds on simulated nodes and a simulated clock: the real queue, allotment, dispatchers. No Ray."""

import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from bench.dispatch import Canceled, Done, Event, Lost, Ready
from bench.errors import ClusterError
from bench.placement import Share, accepts, fits
from bench.service.crews import Crews, lacking
from bench.service.fair import FairQueue
from bench.service.tickets import Ticket
from bench.suite import Resources
from bench.worker import Measured
from tests.service.test_fair import Job, jain, jobs, taken_up

START = 7.0  # seconds that a worker takes to start


@dataclass
class Node:
    name: str
    cpus: float
    gpus: float = 0.0
    labels: dict[str, str] = field(default_factory=dict)
    alive: bool = True

    def listed(self) -> dict[str, Any]:
        amounts = {"CPU": self.cpus, "GPU": self.gpus}
        return {"NodeID": self.name, "Alive": self.alive, "Resources": amounts, "Labels": self.labels}


@dataclass
class Hand:
    """A worker. ends: when it is ready, or has done the first of its tasks."""

    takes: Mapping[str, Any]
    node: Node | None = None
    ready: bool = False
    ends: float = 0.0
    tasks: "deque[Ticket]" = field(default_factory=deque)


class Ray:
    """Nodes and workers as Ray has them: one that fits nowhere waits; no node ever holds more than it can."""

    def __init__(self, *nodes: Node) -> None:
        self.nodes = list(nodes)
        self.now = 0.0
        self.hands: dict[int, Hand] = {}
        self.started = 0
        self.broken: Callable[[Mapping[str, Any]], bool] = lambda takes: False
        self.ran: list[tuple[float, str, str, str, Mapping[str, Any]]] = []  # when, owner, key, node, takes
        self.plans: list[tuple[float, Callable[[], None]]] = []  # what happens, and when

    def clock(self) -> float:
        return self.now

    def listing(self) -> list[dict[str, Any]]:
        return [node.listed() for node in self.nodes]

    def free(self, node: Node) -> dict[str, float]:
        here = [hand.takes for hand in self.hands.values() if hand.node is node]
        return {
            "CPU": node.cpus - sum(takes["num_cpus"] for takes in here),
            "GPU": node.gpus - sum(takes["num_gpus"] for takes in here),
        }

    def start(self) -> int:
        raise AssertionError("each kind of worker says what it takes")

    def start_as(self, takes: Mapping[str, Any]) -> int:
        self.started += 1
        self.hands[self.started] = Hand(takes)
        self._place()
        return self.started

    def submit(self, worker: int, job: Ticket) -> None:
        hand = self.hands[worker]
        assert hand.ready
        hand.tasks.append(job)
        if len(hand.tasks) == 1:
            hand.ends = self.now + job.job.seconds

    def stop(self, worker: int) -> None:
        self.hands.pop(worker, None)

    def wait(self, seconds: float) -> list[Event]:
        due = [hand.ends for hand in self.hands.values() if hand.node and (hand.tasks or not hand.ready)]
        due += [when for when, _ in self.plans]
        self.now = min([self.now + seconds, *(max(self.now, when) for when in due)])
        for plan in [plan for plan in self.plans if plan[0] <= self.now]:
            self.plans.remove(plan)
            plan[1]()
        events: list[Event] = []
        for number, hand in list(self.hands.items()):
            if hand.node and not hand.node.alive:
                del self.hands[number]
                events.append(Lost(number, "its node has died"))
            elif hand.node and hand.ends <= self.now and not hand.ready:
                if self.broken(hand.takes):
                    del self.hands[number]
                    events.append(Lost(number, "no such library there"))
                    continue
                hand.ready = True
                events.append(Ready(number, hand.node.name))
            elif hand.node and hand.tasks and hand.ends <= self.now:
                done = hand.tasks.popleft()
                self.ran.append((self.now, done.stream.owner, done.key, hand.node.name, hand.takes))
                events.append(Done(number, Measured(b"", done.job.seconds)))
                if hand.tasks:
                    hand.ends += hand.tasks[0].job.seconds
        self._place()
        return events

    def _place(self) -> None:
        for hand in self.hands.values():
            if hand.node is None:
                selector = hand.takes.get("label_selector", {})
                for node in self.nodes:
                    if node.alive and accepts(selector, node.labels) and fits(self.free(node), hand.takes):
                        hand.node, hand.ends = node, self.now + START
                        break
        for node in self.nodes:
            assert min(self.free(node).values()) >= -1e-9


class House:
    """Submissions in threads of their own, and crews that work for them."""

    def __init__(self, *nodes: Node, most: int | None = None) -> None:
        self.ray = Ray(*nodes)
        self.queue = FairQueue(lambda job: 1.0, clock=self.ray.clock)
        self.crews = Crews(
            self.ray, self.queue, self.ray.listing, most, startup=120.0, lacking=self.lacking, clock=self.ray.clock
        )
        self.told: list[tuple[str, str]] = []
        self.said: dict[str, list[str]] = {}
        self.errors: dict[str, BaseException] = {}
        self.threads: dict[str, threading.Thread] = {}
        self.canceled: set[str] = set()
        self.queue.turn(0)

    def lacking(self) -> set[Share]:
        return lacking(self.queue, self.ray.listing())

    def submit(self, owner: str, name: str, work: list[Job], alone: bool = False, **resources: Any) -> None:
        self.said[name] = []

        def body() -> None:
            try:
                self.queue.dispatch(
                    owner, name, iter(work), lambda job, outcome, _: self.told.append((name, job.key)),
                    resources=Resources(**{"timeout": 1000, **resources}), progress=lambda *_: None,
                    canceled=lambda: name in self.canceled, alone=alone, waits=self.said[name].append,
                )  # fmt: skip
            except BaseException as problem:  # noqa: BLE001
                self.errors[name] = problem

        self.threads[name] = threading.Thread(target=body, daemon=True)
        self.threads[name].start()
        taken_up(self.queue, name, self.threads[name])

    def until(self, over: Callable[[], bool], steps: int = 100_000) -> None:
        for _ in range(steps):
            if over():
                return
            self.crews.step()
        raise AssertionError(f"still at it at {self.ray.now:g} s: {len(self.told)} tasks have ended")

    def finish(self, *names: str) -> None:
        """Run until these submissions (all, if none is named) have ended."""
        wanted = names or tuple(self.threads)
        self.until(lambda: not any(self.threads[name].is_alive() for name in wanted))
        assert len(set(self.told)) == len(self.told), "an outcome is told once"

    def ended(self, *owners: str) -> float:
        """When the last task of these users ended. The clock goes on until their threads have heard of it."""
        return max(when for when, owner, *_ in self.ray.ran if owner in owners)

    def seconds(self, since: float = 0.0, until: float = float("inf")) -> Counter[str]:
        """Of workers, by user."""
        found: Counter[str] = Counter()
        for when, owner, key, _, takes in self.ray.ran:
            if since <= when < until:
                found[owner] += max(takes["num_cpus"], takes["num_gpus"]) * SECONDS[key]  # type: ignore[assignment]
        return found


SECONDS: dict[str, float] = {}


def work(prefix: str, count: int, seconds: float = 5.0) -> list[Job]:
    made = jobs(prefix, count, seconds)
    SECONDS.update({job.key: job.seconds for job in made})
    return made


def test_one_kind_has_all_workers_that_there_is_room_for_and_they_stay():
    house = House(Node("a", 3), Node("b", 2))
    house.submit("ann", "one", work("a", 60))
    house.submit("bob", "two", work("b", 60))
    house.finish()
    assert house.ray.started == 5
    assert house.ended("ann", "bob") < 120 * 5.0 / 5 + START + 10


def test_each_suite_gets_workers_of_its_own_size():
    house = House(Node("a", 8))
    house.submit("ann", "one", work("a", 10), cpus_per_worker=4)
    house.submit("bob", "two", work("b", 10), cpus_per_worker=2, gpus_per_worker=0)
    house.finish()
    took = {
        owner: {takes["num_cpus"] for _, who, _, _, takes in house.ray.ran if who == owner} for owner in ("ann", "bob")
    }
    assert took == {"ann": {4.0}, "bob": {2.0}}


def test_what_wants_certain_nodes_runs_there_and_the_rest_anywhere():
    house = House(Node("plain", 2), Node("gold", 2, labels={"tier": "gold"}))
    house.submit("ann", "one", work("a", 40), nodes={"tier": "gold"})
    house.submit("bob", "two", work("b", 40), nodes={"tier": "!gold"})
    house.submit("cid", "three", work("c", 80))
    house.finish()
    where = {owner: {node for _, who, _, node, _ in house.ray.ran if who == owner} for owner in ("ann", "bob", "cid")}
    assert where == {"ann": {"gold"}, "bob": {"plain"}, "cid": {"gold", "plain"}}


def test_two_kinds_on_a_node_that_holds_one_worker_take_turns_and_each_gets_its_half():
    house = House(Node("a", 2))
    house.submit("ann", "one", work("a", 400), cpus_per_worker=2)
    house.submit("bob", "two", work("b", 400), cpus_per_worker=1.5)
    house.until(lambda: house.ray.now > 1500)
    got = house.seconds()
    assert jain([got["ann"], got["bob"]]) > 0.98
    assert house.ray.started < 1500 / 30, "a turn is long enough to be worth its start"
    busy = sum(SECONDS[key] for _, _, key, _, _ in house.ray.ran)
    assert busy > 0.75 * house.ray.now
    house.canceled |= {"one", "two"}


def test_on_many_nodes_each_kind_gets_what_its_users_are_due_and_keeps_it():
    house = House(*(Node(f"n{index}", 1) for index in range(8)))
    house.submit("ann", "a", work("a", 5000), cpus_per_worker=1)
    house.until(lambda: house.ray.now > 30)
    for name in ("bob", "cid", "dan"):
        house.submit(name, name, work(name, 5000), gpus_per_worker=0)
    house.until(lambda: house.ray.now > 400)
    settled = house.ray.started
    house.until(lambda: house.ray.now > 1200)
    got = house.seconds(400, 1200)
    assert jain([float(got[name]) for name in ("ann", "bob", "cid", "dan")]) > 0.95
    assert house.ray.started - settled <= 4, "who has what is due keeps it"
    house.canceled |= set(house.threads)


def test_a_large_worker_gets_a_node_that_small_ones_have_filled():
    house = House(Node("a", 8))
    house.submit("ann", "small", work("a", 4000))
    house.until(lambda: house.ray.now > 60)
    house.submit("bob", "large", work("b", 6), cpus_per_worker=8)
    house.finish("large")
    assert house.ended("bob") < 600
    house.canceled.add("small")


def test_workers_that_have_nothing_to_do_go_at_once_for_others():
    house = House(Node("a", 2))
    house.submit("ann", "one", work("a", 4), cpus_per_worker=2)
    house.finish()
    before = house.ray.now
    house.submit("bob", "two", work("b", 1), cpus_per_worker=1.5)
    house.finish()
    assert house.ended("bob") - before < START + 5.0 + 4


def test_what_no_node_can_hold_waits_says_why_and_holds_up_nobody():
    house = House(Node("a", 2))
    house.submit("ann", "gold", work("a", 10), nodes={"tier": "gold"})
    house.submit("ann", "large", work("l", 10), cpus_per_worker=16)
    house.submit("bob", "plain", work("b", 40))
    house.finish("plain")
    assert house.ended("bob") < 40 * 5.0 / 2 + START + 10
    assert house.said["gold"] == ["no living node with tier=gold"]
    assert house.said["large"] == [
        "a worker takes 16 CPUs: no such node has as much (the largest has 2 CPUs and 0 GPUs)"
    ]
    house.submit("cid", "timing", work("t", 1), alone=True)
    house.until(lambda: house.queue.turn(0) is True, steps=200)
    [ticket] = list(house.queue)
    house.queue.sink(ticket, Measured(b"", 1.0), 1)
    house.ray.nodes.append(Node("g", 1, labels={"tier": "gold"}))
    house.lacking()
    assert house.queue.turn(0) is False
    house.finish("gold")
    assert house.said["gold"][1:] == [""]
    assert {node for _, who, _, node, _ in house.ray.ran if who == "ann"} == {"g"}
    house.canceled.add("large")


def test_who_waits_for_a_node_earns_nothing_meanwhile():
    house = House(Node("a", 1))
    house.submit("ann", "gold", work("a", 100), nodes={"tier": "gold"})
    house.submit("bob", "plain", work("b", 1000))
    house.queue.waits(["bob"])
    house.until(lambda: house.ray.now > 300)
    house.queue.waits(["bob"])
    house.ray.nodes.append(Node("g", 1, labels={"tier": "gold"}))
    since = house.ray.now
    house.submit("ann", "too", work("c", 1000))
    house.until(lambda: house.ray.now > since + 400)
    got = house.seconds(since)
    assert jain([float(got["ann"]), float(got["bob"])]) > 0.9, "no arrears for the time when there was no node"
    house.canceled |= set(house.threads)


def test_a_node_that_joins_is_used_by_the_kind_that_it_suits():
    house = House(Node("a", 1))
    house.submit("ann", "one", work("a", 40), cpus_per_worker=1)
    house.ray.plans.append((30.0, lambda: house.ray.nodes.append(Node("b", 4))))
    house.finish()
    assert {node for _, _, _, node, _ in house.ray.ran} == {"a", "b"}
    assert house.ended("ann") < 80, "alone, the first one would take 207"


def test_the_first_gpu_that_joins_is_used_by_who_left_the_number_of_gpus_out():
    house = House(Node("a", 2))
    house.submit("ann", "one", work("a", 60))
    house.submit("bob", "two", work("b", 20), gpus_per_worker=0)
    house.ray.plans.append((40.0, lambda: house.ray.nodes.append(Node("g", 4, gpus=2))))
    house.finish()
    late = [takes["num_gpus"] for when, who, _, _, takes in house.ray.ran if who == "ann" and when > 60]
    assert late
    assert set(late) == {1.0}, "those without one have gone"
    assert {takes["num_gpus"] for _, who, _, _, takes in house.ray.ran if who == "bob"} == {0.0}


def test_when_the_last_node_of_a_kind_dies_its_tasks_wait_and_others_do_theirs():
    house = House(Node("a", 1), Node("g", 1, labels={"tier": "gold"}))
    [same] = work("same", 1, 20.0)
    house.submit("ann", "gold", [same, *work("a", 3)], nodes={"tier": "gold"})
    house.until(lambda: any(hand.tasks for hand in house.ray.hands.values()))
    house.submit("bob", "plain", [*work("b", 2), same])  # waits for ann's, which will not come
    house.ray.nodes[1].alive = False
    house.finish("plain")
    assert ("plain", "same0") in house.told
    assert house.said["gold"] == ["no living node with tier=gold"]
    house.ray.nodes.append(Node("g2", 1, labels={"tier": "gold"}))
    house.finish("gold")
    assert Counter(name for name, _ in house.told) == {"gold": 4, "plain": 3}


def test_a_kind_whose_workers_cannot_start_fails_alone():
    house = House(Node("a", 2), Node("g", 1, gpus=1))
    house.ray.broken = lambda takes: takes["num_gpus"] > 0
    house.submit("ann", "gpu", work("a", 3), gpus_per_worker=1)
    house.submit("bob", "cpu", work("b", 60), gpus_per_worker=0)
    house.finish()
    assert isinstance(house.errors["gpu"], ClusterError)
    assert "no such library there" in str(house.errors["gpu"])
    assert Counter(name for name, _ in house.told) == {"cpu": 60}


def test_where_no_worker_at_all_can_be_started_the_dispatcher_ends():
    house = House(Node("a", 2))
    house.ray.broken = lambda takes: True
    house.submit("ann", "one", work("a", 3))
    with pytest.raises(ClusterError, match="no such library there"):
        house.finish()
    house.canceled.add("one")


def test_there_are_never_more_workers_than_allowed_whatever_their_kind():
    house = House(Node("a", 8), most=2)
    most = 0
    house.submit("ann", "one", work("a", 60))
    house.submit("bob", "two", work("b", 60), cpus_per_worker=2)
    while any(thread.is_alive() for thread in house.threads.values()):
        house.crews.step()
        most = max(most, len(house.ray.hands))
    assert most == 2
    assert house.errors == {}


@pytest.mark.parametrize("seed", range(8))
def test_every_task_of_everybody_ends_whatever_the_nodes_and_kinds(seed: int):
    draw = random.Random(seed)
    tiers = [{"tier": "gold"}, {"tier": "silver"}, {}]
    nodes = [
        Node(f"n{index}", draw.choice([1, 2, 4, 8]), draw.choice([0, 0, 1, 2]), draw.choice(tiers))
        for index in range(5)
    ]
    house = House(Node("n", 8, 2, {"tier": "gold"}), Node("m", 8, 2, {"tier": "silver"}), *nodes)
    asked = 0
    for user in range(6):
        for number in range(draw.choice([1, 2])):
            name, count = f"s{user}-{number}", draw.randint(1, 40)
            house.submit(
                f"u{user}", name, work(name, count, draw.choice([0.5, 5.0, 40.0])),
                cpus_per_worker=draw.choice([0.5, 1, 2, 4, 8]), gpus_per_worker=draw.choice([None, 0, 0.5, 1, 2]),
                nodes=draw.choice([{}, {}, {"tier": "gold"}, {"tier": "in(gold, silver)"}, {"tier": "!gold"}]),
            )  # fmt: skip
            asked += count

    def fault(node: Node) -> Callable[[], None]:
        return lambda: setattr(node, "alive", not node.alive)

    for node in nodes:
        if draw.random() < 0.5:
            house.ray.plans.append((draw.uniform(0, 200), fault(node)))
            house.ray.plans.append((draw.uniform(200, 300), fault(node)))
    house.finish()
    assert house.errors == {}
    assert len(house.told) == asked


def test_cancel_ends_it_all():
    house = House(Node("a", 2))
    house.submit("ann", "one", work("a", 100))
    house.crews._canceled = lambda: house.ray.now > 20
    with pytest.raises(Canceled):
        house.crews.run()
    assert house.ray.hands == {}
    house.canceled.add("one")
