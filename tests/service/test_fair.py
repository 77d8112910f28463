"""The fair queue on simulated workers: shares, order, timings, sharing of tasks, failures. No Ray, no database."""

import math
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from bench.dispatch import Canceled
from bench.placement import Share
from bench.records import Reason
from bench.service.fair import PATIENCE, SLACK, FairQueue
from bench.service.tickets import WORTH, Ticket
from bench.service.watch import Watch
from bench.suite import Resources
from bench.worker import Failed, Measured, Outcome


@dataclass(frozen=True)
class Job:
    key: str
    seconds: float = 1.0
    group: str = "model"
    title: str = ""
    blobs: tuple[str, ...] = ()
    least_seconds: float = 0.0


def taken_up(queue: FairQueue, submission: str, thread: threading.Thread) -> None:
    """Waits until the thread of a submission has its stream in the queue."""
    while submission not in {stream.submission for stream in tuple(queue._streams)}:
        assert thread.is_alive()
        time.sleep(0.001)


@dataclass
class House:
    """A queue, and submissions in threads of their own."""

    now: float = 0.0
    told: list[tuple[str, str]] = field(default_factory=list)
    progress: list[tuple[str, str, int, int]] = field(default_factory=list)
    errors: dict[str, BaseException] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.queue = FairQueue(lambda job: 1.0, clock=lambda: self.now)  # every estimate is wrong alike
        self.threads: dict[str, threading.Thread] = {}
        self.canceled: set[str] = set()

    def submit(
        self, owner: str, name: str, jobs: list[Job], *, alone: bool = False, sink=None, abandon: bool = False
    ) -> None:
        def body() -> None:
            try:
                self.queue.dispatch(
                    owner, name, iter(jobs), sink or (lambda job, outcome, _: self.told.append((name, job.key))),
                    resources=Resources(), progress=lambda *figures: self.progress.append((name, *figures)),
                    canceled=lambda: name in self.canceled, alone=alone, abandoned=lambda: abandon,
                )  # fmt: skip
            except BaseException as problem:  # noqa: BLE001
                self.errors[name] = problem

        self.threads[name] = threading.Thread(target=body, daemon=True)
        self.threads[name].start()
        taken_up(self.queue, name, self.threads[name])

    def end(self, ticket: Ticket, outcome: Outcome | None = None) -> None:
        self.now += ticket.job.seconds
        self.queue.sink(ticket, outcome or Measured(b"", ticket.job.seconds), 1)

    def serve(self, count: int, workers: int = 4) -> Counter[str]:
        """So many tasks on so many workers; the seconds that each user got."""
        got: Counter[str] = Counter()
        busy: list[Ticket] = []
        for _ in range(count):
            while len(busy) < workers and (ticket := next(self.queue, None)):
                busy.append(ticket)
            if not busy:
                break
            ticket = busy.pop(0)
            got[ticket.stream.owner] += ticket.job.seconds
            self.end(ticket)
        return got

    def join(self, name: str) -> None:
        self.threads[name].join(60)
        assert not self.threads[name].is_alive()


def jobs(prefix: str, count: int, seconds: float = 1.0) -> list[Job]:
    return [Job(f"{prefix}{i}", seconds) for i in range(count)]


def jain(shares: list[float]) -> float:
    """(sum x)² / (n · sum x²), Jain, Chiu, Hawe 1984."""
    return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))


def test_users_share_alike_whatever_the_number_and_the_length_of_their_tasks():
    house = House()
    house.queue.turn(0)
    house.submit("many", "m1", jobs("a", 1000, 0.2))
    house.submit("many", "m2", jobs("b", 1000, 0.2))
    house.submit("long", "l", jobs("c", 1000, 5.0))
    house.submit("few", "f", jobs("d", 1000, 1.0))
    got = house.serve(600)
    assert set(got) == {"many", "long", "few"}
    assert jain(list(got.values())) > 0.99


def test_a_users_submissions_share_what_the_user_gets():
    house = House()
    house.submit("ann", "one", jobs("a", 100))
    house.submit("ann", "two", jobs("b", 100))
    house.serve(50)
    assert Counter(name for name, _ in house.told) == {"one": 25, "two": 25}


def test_who_comes_late_gets_a_fair_share_and_no_arrears():
    house = House()
    house.submit("early", "e", jobs("a", 1000))
    house.serve(200)
    house.submit("late", "l", jobs("b", 1000))
    got = house.serve(100)
    assert abs(got["early"] - got["late"]) <= 8


def test_the_same_task_of_two_is_done_once_and_told_to_both():
    house = House()
    house.submit("ann", "one", [Job("same"), Job("a")])
    house.submit("bob", "two", [Job("same"), Job("b")])
    assert sum(house.serve(10, workers=4).values()) == 3
    assert sorted(house.told) == [("one", "a"), ("one", "same"), ("two", "b"), ("two", "same")]
    house.join("one")
    house.join("two")
    assert house.errors == {}


def test_a_user_has_no_more_on_workers_than_the_cap():
    house = House()
    house.queue.in_flight = 2
    house.submit("ann", "one", jobs("a", 10))
    taken = [next(house.queue), next(house.queue)]
    assert next(house.queue, None) is None
    house.end(taken[0])
    assert next(house.queue).key == "a2"


def test_timings_wait_until_the_rest_is_done_but_not_for_ever():
    house = House()
    house.submit("ann", "work", jobs("a", 1000))
    assert house.queue.turn(0) is False
    house.submit("bob", "timing", jobs("t", 2), alone=True)
    got = house.serve(1000, workers=1)
    assert got == {"ann": PATIENCE + 1}
    assert house.queue.turn(0) is True
    assert house.serve(1000, workers=1) == {"bob": 2.0}
    house.join("timing")
    assert house.queue.turn(0) is False


def test_workers_are_kept_for_a_while_and_given_up_for_timings():
    house = House()
    house.submit("ann", "work", jobs("a", 1))
    house.queue.turn(0)
    house.serve(10)
    house.join("work")
    assert house.queue.linger(Share())
    house.now += 100
    assert not house.queue.linger(Share())
    house.submit("bob", "timing", jobs("t", 1), alone=True)
    house.now += 1
    assert not house.queue.linger(Share())


def test_how_far_a_training_or_a_fit_is_is_told_to_whose_it_is():
    house = House()
    house.submit("ann", "one", jobs("a", 1))
    house.submit("bob", "two", jobs("b", 1))
    house.queue.progress("fit two|rss on cnn", 3, 10)
    house.queue.progress("train one|cnn", 1, 2)
    assert house.progress == [("two", "fit rss on cnn", 3, 10), ("one", "train cnn", 1, 2)]
    house.canceled |= {"one", "two"}


def test_cancel_hands_out_no_more_and_keeps_what_was_at_work():
    house = House()
    house.submit("ann", "one", jobs("a", 10))
    taken = next(house.queue)
    house.canceled.add("one")
    house.join("one")
    assert isinstance(house.errors["one"], Canceled)
    assert next(house.queue, None) is None
    house.end(taken)
    assert house.told == [("one", "a0")]


def test_a_submission_whose_records_cannot_be_written_ends_alone():
    def full(job: Job, outcome: Outcome, attempts: int) -> None:
        raise OSError("disk full")

    def broken() -> Iterator[Job]:
        yield Job("x")
        raise ValueError("no such block")

    house = House()
    house.submit("ann", "full", jobs("a", 5), sink=full)
    house.submit("ann", "broken", broken())  # type: ignore[arg-type]
    house.submit("bob", "sound", jobs("b", 5))
    house.serve(20, workers=1)
    for name in ("full", "broken", "sound"):
        house.join(name)
    assert str(house.errors["full"]) == "disk full"
    assert str(house.errors["broken"]) == "no such block"
    assert [key for name, key in house.told if name == "sound"] == [f"b{i}" for i in range(5)]


def test_failures_cost_what_they_took():
    house = House()
    house.submit("ann", "one", jobs("a", 100, 3.0))
    house.submit("bob", "two", jobs("b", 100, 3.0))
    got: Counter[str] = Counter()
    for _ in range(40):
        ticket = next(house.queue)
        got[ticket.stream.owner] += 1
        house.end(ticket, Failed(Reason.TIMEOUT, "late") if ticket.stream.owner == "ann" else None)
    assert abs(got["ann"] - got["bob"]) <= 1


def test_groups_are_a_submissions_own_so_that_one_users_broken_model_blocks_nobody_else():
    house = House()
    house.submit("ann", "one", [Job("a")])
    house.submit("bob", "two", [Job("b")])
    tickets = [next(house.queue), next(house.queue)]
    assert len({ticket.group for ticket in tickets}) == 2


@pytest.mark.parametrize("users", [2, 20])
def test_equal_users_get_equal_shares(users: int):
    house = House()
    for index in range(users):
        house.submit(f"u{index}", f"s{index}", jobs(f"{index}-", 300, 1 + index % 3))
    assert jain(list(house.serve(users * 60, workers=16).values())) > 0.99


def test_a_worker_stays_with_a_submission_but_gets_nobody_far_ahead():
    house = House()
    house.queue.turn(0)
    for name in ("ann", "bob", "cid", "dan"):
        house.submit(name, name, jobs(name, 300))
    loaded: list[str] = []
    got: Counter[str] = Counter()
    loads = 0
    for _ in range(400):
        first = next(house.queue) if not loaded else None
        ticket = first or house.queue.rather(loaded) or next(house.queue)
        loads += ticket.group not in loaded
        loaded = [*[group for group in loaded if group != ticket.group], ticket.group][-2:]
        house.end(ticket)
        got[ticket.stream.owner] += 1
        assert max(got.values()) - min(got[name] for name in ("ann", "bob", "cid", "dan")) <= 2 * SLACK
    assert loads < 100, "strictly in turn, each of the 400 tasks would have its model loaded"
    assert jain([float(count) for count in got.values()]) > 0.99


def test_nothing_of_a_model_that_no_submission_has():
    house = House()
    house.submit("ann", "one", jobs("a", 3))
    assert house.queue.rather(["another"]) is None
    house.canceled.add("one")


def test_what_was_canceled_is_dropped_unless_somebody_else_waits_for_the_same():
    house = House()
    house.submit("ann", "one", [Job("same"), Job("own")], abandon=True)
    house.submit("bob", "two", [Job("same")])
    same, own = next(house.queue), next(house.queue)
    assert next(house.queue, None) is None
    assert not house.queue.dropped(same)
    house.canceled.add("one")
    house.join("one")
    assert house.queue.dropped(own)
    assert not house.queue.dropped(same), "bob waits for it"
    house.end(own, Failed(Reason.WORKER, "canceled"))
    house.end(same)
    house.join("two")
    assert house.told == [("one", "same"), ("two", "same")], "what was canceled does not fail"


def test_what_is_paused_ends_by_itself():
    house = House()
    house.submit("ann", "one", jobs("a", 3))
    ticket = next(house.queue)
    house.canceled.add("one")
    house.join("one")
    assert not house.queue.dropped(ticket)
    house.end(ticket, Failed(Reason.WORKER, "died"))
    assert house.told == [("one", "a0")]


def test_a_model_that_could_not_be_loaded_may_be_tried_again_by_the_same_submission():
    house = House()
    groups = []
    for _ in range(2):
        house.submit("ann", "one", [Job("a")])
        ticket = next(house.queue)
        groups.append(ticket.group)
        house.end(ticket)
        assert next(house.queue, None) is None
        house.join("one")
    assert len(set(groups)) == 2


def test_who_waits_to_be_taken_up_is_not_idle():
    house = House()
    house.submit("ann", "a1", jobs("a", 100))
    house.queue.waits(["bob", "cid"])
    house.serve(40, workers=1)
    house.queue.waits(["ann", "bob", "cid", "dan"])
    assert house.queue.order(["ann", "bob", "cid", "dan"]) == ["bob", "cid", "dan", "ann"]
    house.submit("bob", "b1", jobs("b", 100))
    assert house.serve(30, workers=1) == {"bob": 30.0}, "what it has waited for"
    assert house.queue.order(["bob", "cid"]) == ["cid", "bob"]


def test_who_was_away_has_no_arrears():
    house = House()
    house.submit("ann", "a1", jobs("a", 100))
    house.queue.waits(["bob"])
    house.queue.waits([])  # bob has gone
    house.serve(40, workers=1)
    house.queue.waits(["bob"])
    house.submit("bob", "b1", jobs("b", 100))
    got = house.serve(30, workers=1)
    assert abs(got["ann"] - got["bob"]) <= 2


def test_who_had_most_waits_as_long_when_the_dispatcher_has_been_killed_and_who_was_away_earns_nothing_by_it():
    first = House()
    first.queue.go_on({"old": 7.0})
    assert first.queue.ahead() == {"old": 7.0}, "nobody is there: nothing has changed"
    first.submit("ann", "a1", jobs("a", 200))
    first.serve(100, workers=1)
    first.queue.waits(["bob"])  # who came late, and has no arrears
    first.submit("bob", "b1", jobs("b", 200))
    first.queue.waits(["bob", "cid"])
    first.serve(30, workers=1)  # ann's and bob's, for cid's is not taken up yet
    assert first.queue.ahead() == {"ann": 15.0, "bob": 15.0}

    second = House()
    second.queue.go_on(first.queue.ahead())
    second.queue.waits(["ann", "bob", "cid", "dan"])  # dan has come meanwhile, and gains nothing by having idled
    second.submit("ann", "a1", jobs("a", 200))
    for name in ("bob", "cid", "dan"):
        second.submit(name, f"{name}1", jobs(name, 200))
    assert second.serve(30, workers=1) == {"cid": 15.0, "dan": 15.0}
    assert second.serve(40, workers=1) == dict.fromkeys(("ann", "bob", "cid", "dan"), 10.0)


def test_late_news_of_a_training_are_no_news():
    watch = Watch()
    watch.begin("train cnn", 100, 0)
    watch.advance("train cnn", 99)
    watch.phase()
    watch.begin("cnn/digits/clean", 10, 2)
    watch.advance("train cnn", 100)
    assert watch.figures() == (2, 0, 10, None)


def test_as_many_workers_are_of_use_as_there_are_minutes_of_work_and_no_more_than_tasks():
    house = House()
    assert house.queue.useful() == {}
    house.submit("ann", "long", [Job(f"l{n}", 300.0) for n in range(5)])
    assert house.queue.useful() == {Share(): 1}, "nobody knows yet how long its tasks take"
    first, second = house.queue.take(), house.queue.take()
    assert first is not None
    assert second is not None
    house.end(first)  # the estimate was 1 s; it took 300
    assert house.queue.useful() == {Share(): 4}, "one is on a worker, three wait: each has its own"
    house.queue.put_back([second])
    assert house.queue.useful() == {Share(): 4}
    count = 100
    house.submit("bob", "short", [Job(f"s{n}", 2.0) for n in range(count)])
    house.end(take_of(house, "short"))
    assert house.queue.useful() == {Share(): 4 + math.ceil((count - 1) * 2.0 / WORTH)}
    house.submit("bob", "timings", [Job(f"t{n}", 300.0) for n in range(10)], alone=True)
    with_timings = 4 + math.ceil((count - 1) * 2.0 / WORTH) + 1
    assert house.queue.useful() == {Share(): with_timings}, "one after another"
    house.canceled |= {"long", "short", "timings"}
    for thread in house.threads.values():
        thread.join(60)
    assert house.queue.useful() == {}, "it is taken back"


def take_of(house: House, submission: str) -> Ticket:
    found = []
    while (ticket := house.queue.take()) is not None:
        found.append(ticket)
        if ticket.stream.submission == submission:
            break
    house.queue.put_back(found[:-1])
    return found[-1]


def test_no_workers_are_asked_for_what_has_failed_and_jobs_of_unknown_number_count_as_one():
    house = House()
    house.submit("ann", "made", (Job(f"j{n}", 300.0) for n in range(9)))
    ticket = house.queue.take()
    assert ticket is not None
    house.end(ticket)
    assert house.queue.useful() == {Share(): 1}
    house.queue.fail(ValueError("x"), lambda stream: True)
    assert sum(house.queue.useful().values()) == 0


def test_outcomes_are_dealt_with_elsewhere_and_a_submission_ends_after_that():
    house, later = House(), []
    house.queue.later = lambda act, size: later.append(act)
    house.submit("ann", "one", [Job("a"), Job("b")])
    first, second = house.queue.take(), house.queue.take()
    for ticket in (first, second):
        assert ticket is not None
        house.end(ticket)
    assert house.queue.take() is None
    house.submit("bob", "two", [Job("b")])
    assert house.queue.take() is None, "what is not written yet is not measured again"
    assert house.told == []
    house.threads["one"].join(0.5)
    assert house.threads["one"].is_alive()
    for act in later:
        act()
    for name in ("one", "two"):
        house.threads[name].join(60)
        assert not house.threads[name].is_alive()
    assert house.told == [("one", "a"), ("one", "b"), ("two", "b")]


def test_an_outcome_of_timings_is_dealt_with_before_the_next_one_is_taken():
    house = House()
    house.queue.later = lambda act, size: pytest.fail("nothing may be at work beside the next timing")
    house.submit("ann", "timings", [Job("a"), Job("b")], alone=True)
    assert house.queue.turn(1.0) is True
    for key in "ab":
        ticket = house.queue.take()
        assert ticket is not None
        house.end(ticket)
        assert house.told[-1] == ("timings", key)
