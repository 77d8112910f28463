"""The dispatcher's rules on a simulated pool: no Ray, no clock of the machine's."""

from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from bench.dispatch import GRACE, IN_FLIGHT, SHORT, Alive, Canceled, Dispatcher, Done, Event, Lost, Ready
from bench.errors import ClusterError
from bench.records import Reason
from bench.worker import Failed, Measured, Outcome


@dataclass(frozen=True)
class Job:
    key: str
    group: str = "model"


@dataclass
class FakePool:
    """Workers that answer one task per tick. `script` decides what becomes of an attempt at a job."""

    script: dict[str, list[str]] = field(default_factory=dict)
    starts: list[str] = field(default_factory=list)
    now: float = 0.0
    log: list[tuple[int, str]] = field(default_factory=list)
    most_in_flight: int = 0
    seconds: float = 0.0  # that a task says it took

    def __post_init__(self) -> None:
        self.queues: dict[int, deque[Job]] = {}
        self.news: list[Event] = []
        self.count = 0

    def clock(self) -> float:
        return self.now

    def start(self) -> int:
        self.count += 1
        fate = self.starts.pop(0) if self.starts else "ready"
        if fate == "ready":
            self.queues[self.count] = deque()
            self.news.append(Ready(self.count))
        elif fate == "dies":
            self.news.append(Lost(self.count, "no room"))
        return self.count

    def submit(self, worker: int, job: Job) -> None:
        self.queues[worker].append(job)
        self.log.append((worker, job.key))
        self.most_in_flight = max(self.most_in_flight, sum(map(len, self.queues.values())))

    def wait(self, seconds: float) -> list[Event]:
        self.now += 1.0
        events, self.news = self.news, []
        for worker, queue in list(self.queues.items()):
            if not queue:
                continue
            fates = self.script.get(queue[0].key, [])
            fate = fates[0] if fates else "ok"
            if fate == "hangs":
                continue
            if fate == "works on":
                fates.pop(0)
                events.append(Alive(worker))
                continue
            if fates:
                fates.pop(0)
            if fate == "dies":
                del self.queues[worker]
                events.append(Lost(worker, "killed"))
                continue
            queue.popleft()
            outcome: Outcome = (
                Measured(b"", self.seconds)
                if fate == "ok"
                else Failed(Reason.ADAPTER, fate, model=fate == "cannot load")
            )
            events.append(Done(worker, outcome))
        return events

    def stop(self, worker: int) -> None:
        for job in self.queues.pop(worker, ()):
            fates = self.script.get(job.key, [])
            if fates and fates[0] == "hangs":
                fates.pop(0)


def dispatch(pool: FakePool, jobs: list[Job], workers: int = 2, retries: int = 2, **options: object):
    ended: dict[str, tuple[Outcome, int]] = {}

    def sink(job: Job, outcome: Outcome, attempts: int) -> None:
        assert job.key not in ended, "an outcome is told once"
        ended[job.key] = (outcome, attempts)

    Dispatcher(
        pool, sink, workers=workers, timeout=10.0, retries=retries, clock=pool.clock, startup=30.0, **options
    ).run(iter(jobs))
    return ended


def jobs(n: int) -> list[Job]:
    return [Job(f"t{i}") for i in range(n)]


def test_every_task_ends_once_whatever_the_number_of_workers():
    for workers in (1, 3):
        ended = dispatch(FakePool(), jobs(20), workers)
        assert set(ended) == {f"t{i}" for i in range(20)}
        assert all(isinstance(outcome, Measured) for outcome, _ in ended.values())


def test_no_more_than_two_tasks_per_worker_are_in_flight_and_the_source_is_read_lazily():
    pool = FakePool()
    read = []

    def source():
        for job in jobs(50):
            read.append(job.key)
            assert len(read) - len(ended) <= 3 * IN_FLIGHT + 1
            yield job

    ended: list[str] = []
    Dispatcher(pool, lambda job, *_: ended.append(job.key), workers=3, timeout=9, retries=0, clock=pool.clock).run(
        source()
    )
    assert pool.most_in_flight == 3 * IN_FLIGHT
    assert len(ended) == 50


def test_a_worker_whose_tasks_are_long_gets_one_at_a_time():
    """What waits at its door would wait for long, while others may have nothing to do."""
    short, long = FakePool(seconds=SHORT / 4), FakePool(seconds=SHORT * 4)
    waiting: dict[int, list[int]] = {}
    for pool in (short, long):
        seen = waiting.setdefault(id(pool), [])
        tick = pool.wait

        def wait(seconds: float, pool: FakePool = pool, seen: list[int] = seen, tick=tick) -> list[Event]:
            seen.append(max(map(len, pool.queues.values()), default=0))
            return tick(seconds)

        pool.wait = wait  # type: ignore[method-assign]
        assert len(dispatch(pool, jobs(40))) == 40
    assert max(waiting[id(short)][5:]) == IN_FLIGHT
    assert max(waiting[id(long)][5:]) == 1


def test_a_worker_that_dies_costs_an_attempt_of_the_task_it_ran_and_none_of_the_one_that_waited():
    ended = dispatch(FakePool({"t0": ["dies"]}), jobs(3), workers=1)
    assert isinstance(ended["t0"][0], Measured)
    assert {key: attempts for key, (_, attempts) in ended.items()} == {"t0": 2, "t1": 1, "t2": 1}


def test_a_task_that_kills_its_worker_each_time_fails_after_its_retries_and_the_others_are_measured():
    ended = dispatch(FakePool({"t1": ["dies"] * 9}), jobs(6))
    outcome, attempts = ended.pop("t1")
    assert isinstance(outcome, Failed)
    assert (outcome.reason, attempts) == (Reason.WORKER, 3)
    assert all(isinstance(other, Measured) for other, _ in ended.values())


def test_a_plugin_that_raises_is_tried_again_and_then_recorded_with_its_message():
    ended = dispatch(FakePool({"t0": ["boom"], "t1": ["boom"] * 9}), jobs(3))
    assert isinstance(ended["t0"][0], Measured)
    failed, attempts = ended["t1"]
    assert isinstance(failed, Failed)
    assert (failed.message, attempts) == ("boom", 3)


def test_a_task_that_hangs_past_its_timeout_is_killed_with_its_worker_and_tried_again():
    ended = dispatch(FakePool({"t0": ["hangs"]}), jobs(4))
    assert isinstance(ended["t0"][0], Measured)
    assert ended["t0"][1] == 2


def test_a_task_that_always_hangs_fails_with_the_timeout_as_its_reason():
    ended = dispatch(FakePool({"t0": ["hangs"] * 9}), jobs(4))
    failed, attempts = ended["t0"]
    assert isinstance(failed, Failed)
    assert (failed.reason, attempts) == (Reason.TIMEOUT, 3)
    assert sum(isinstance(outcome, Measured) for outcome, _ in ended.values()) == 3


def test_a_task_that_gives_signs_of_life_may_take_longer_than_its_timeout():
    ended = dispatch(FakePool({"t0": ["works on"] * 50}), jobs(2), workers=1)
    assert isinstance(ended["t0"][0], Measured)
    assert ended["t0"][1] == 1


def test_a_model_that_cannot_be_loaded_fails_all_its_tasks_without_trying_each():
    broken = [Job(f"b{i}", "broken") for i in range(10)]
    pool = FakePool({job.key: ["cannot load"] * 9 for job in broken})
    ended = dispatch(pool, [*broken, *jobs(5)], workers=1)
    assert len(ended) == 15
    assert all(isinstance(ended[job.key][0], Failed) for job in broken)
    tried = [key for _, key in pool.log if key.startswith("b")]
    assert len(tried) <= (1 + 2) * (IN_FLIGHT + 1), "the quarantine came late"


def test_when_no_worker_can_be_started_the_run_ends_with_the_reason():
    with pytest.raises(ClusterError, match="no room"):
        dispatch(FakePool(starts=["dies"] * 9), jobs(3))


def test_a_worker_that_never_comes_up_does_not_stop_the_others():
    ended = dispatch(FakePool(starts=["silent", "ready"]), jobs(80))
    assert len(ended) == 80


def test_a_run_that_is_canceled_stops_its_workers_and_says_so():
    pool = FakePool()
    with pytest.raises(Canceled):
        dispatch(pool, jobs(1000), canceled=lambda: pool.now > 20)
    assert not pool.queues


def changes(pool: FakePool, groups: dict[str, str]) -> int:
    """How often a worker got a job of another group than its last."""
    by_worker: dict[int, list[str]] = {}
    for worker, key in pool.log:
        by_worker.setdefault(worker, []).append(groups[key])
    return sum(a != b for mine in by_worker.values() for a, b in pairwise(mine))


def test_a_worker_rather_gets_a_job_whose_model_it_has_loaded():
    made = [Job(f"t{i}", f"model{i % 8}") for i in range(160)]
    groups = {job.key: job.group for job in made}
    plain = FakePool()
    dispatch(plain, made)

    left = deque(made)
    asked: list[list[str]] = []

    def rather(loaded) -> Job | None:
        asked.append(list(loaded))
        found = next((job for job in left if job.group in loaded), None)
        if found is not None:
            left.remove(found)
        return found

    def source():
        while left:
            yield left.popleft()

    pool, ended = FakePool(), {}
    Dispatcher(
        pool, lambda job, *_: ended.setdefault(job.key), workers=2, timeout=10.0, retries=0, clock=pool.clock,
        rather=rather,
    ).run(source())  # fmt: skip
    assert len(ended) == 160
    assert changes(plain, groups) > 100 > 20 > changes(pool, groups)
    assert max(map(len, asked)) == 2, "a worker keeps two models"


def test_a_job_that_was_asked_for_by_its_model_is_held_against_the_quarantine_too():
    pool = FakePool({"b0": ["cannot load"] * 9})
    more = deque(Job(f"b{i}", "broken") for i in range(1, 5))

    def rather(loaded) -> Job | None:
        return more.popleft() if more and pool.now > 5 else None

    ended: dict[str, Outcome] = {}
    Dispatcher(
        pool, lambda job, outcome, _: ended.update({job.key: outcome}), workers=1, timeout=10.0, retries=0,
        clock=pool.clock, rather=rather,
    ).run(iter([Job("b0", "broken"), *(Job(f"t{i}", f"model{i}") for i in range(20))]))  # fmt: skip
    assert len(ended) == 25
    assert all(isinstance(ended[f"b{i}"], Failed) for i in range(5))
    assert [key for _, key in pool.log if key.startswith("b")] == ["b0"], "none was tried in vain"


def test_a_job_that_nobody_waits_for_any_more_is_killed_after_a_moment_and_the_others_are_measured():
    pool = FakePool({"t0": ["hangs"] * 9})
    canceled = {"t0", "t9"}
    ended: dict[str, tuple[Outcome, int, float]] = {}
    Dispatcher(
        pool, lambda job, outcome, attempts: ended.update({job.key: (outcome, attempts, pool.now)}), workers=2,
        timeout=1000.0, retries=5, clock=pool.clock, dropped=lambda job: job.key in canceled and pool.now > 3,
    ).run(iter(jobs(20)))  # fmt: skip
    outcome, attempts, when = ended["t0"]
    assert isinstance(outcome, Failed)
    assert attempts == 1, "it is not tried again"
    assert 3 + GRACE < when < 3 + GRACE + 4
    assert isinstance(ended["t9"][0], Failed), "it was never tried"
    assert "t9" not in [key for _, key in pool.log]
    assert sum(isinstance(outcome, Measured) for outcome, *_ in ended.values()) == 18


def test_a_job_for_which_somebody_waits_again_goes_on():
    pool = FakePool({"t0": ["works on"] * 20})
    ended: dict[str, Outcome] = {}
    Dispatcher(
        pool, lambda job, outcome, _: ended.update({job.key: outcome}), workers=1, timeout=1000.0, retries=0,
        clock=pool.clock, dropped=lambda job: 3 < pool.now < 6,
    ).run(iter(jobs(1)))  # fmt: skip
    assert isinstance(ended["t0"], Measured)


@dataclass
class Rotten(FakePool):
    """The first worker fails everything from a moment on, as one whose disk has gone."""

    def wait(self, seconds: float) -> list[Event]:
        return [
            Done(1, Failed(Reason.ADAPTER, "no such file"))
            if isinstance(event, Done) and event.worker == 1 and self.now > 5
            else event
            for event in super().wait(seconds)
        ]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_fails_what_it_gets_is_replaced_before_a_task_has_used_up_its_attempts(workers: int):
    pool = Rotten()
    ended = dispatch(pool, jobs(40), workers=workers)
    assert len(ended) == 40
    assert all(isinstance(outcome, Measured) for outcome, _ in ended.values())
    assert pool.count == workers + 1, "one new worker"


def test_tasks_that_always_fail_do_not_cost_a_worker_each():
    pool = FakePool({f"t{i}": ["boom"] * 9 for i in range(5, 15)})
    ended = dispatch(pool, jobs(20), workers=1)
    assert sum(isinstance(outcome, Failed) for outcome, _ in ended.values()) == 10
    assert pool.count <= 4


def test_a_worker_that_has_to_go_ends_what_it_has_and_gets_nothing_more():
    pool = FakePool()
    asked: list[float] = []

    def leaving() -> list[int]:
        asked.append(pool.now)
        return [1] if pool.now > 5 else []

    ended = dispatch(pool, jobs(40), leaving=leaving)
    assert len(ended) == 40
    assert all(attempts == 1 for _, attempts in ended.values())
    assert 1 not in pool.queues
    assert max(index for index, (worker, _) in enumerate(pool.log) if worker == 1) < 20
    assert pool.count == 3, "another takes its place"


def test_what_is_closed_gives_back_what_has_not_ended_and_tells_nobody():
    pool = FakePool({"t0": ["dies"]})
    told: list[str] = []
    dispatcher = Dispatcher(
        pool, lambda job, *_: told.append(job.key), workers=1, timeout=9, retries=2, clock=pool.clock
    )
    source = iter(jobs(6))
    for _ in range(4):
        patience = dispatcher.hand_out(source)
        assert patience is not None
        dispatcher.hear(pool.wait(patience))
    left = [job.key for job in dispatcher.close()]
    assert len(left) == len(set(left)) >= 2
    assert sorted([*left, *told, *(job.key for job in source)]) == [f"t{i}" for i in range(6)]
    assert not dispatcher.staffed
    assert dispatcher.waiting is None


def test_where_there_is_no_room_it_waits_instead_of_giving_up():
    pool = FakePool()
    ended = dispatch(pool, jobs(5), workers=lambda: 0 if pool.now < 50 else 1)  # type: ignore[arg-type]
    assert len(ended) == 5
    assert pool.now > 50
