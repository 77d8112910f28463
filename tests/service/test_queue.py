"""What users and the dispatcher do to submissions, on both kinds of database."""

import threading
from dataclasses import dataclass

import pytest

from bench.service.database import Database, State, User
from bench.service.queue import Queue, Quotas, Refused
from bench.service.work import AGEING, CUT_SHORT, TERM, LeaseLost, Work


@dataclass
class Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(database: Database, clock: Clock) -> Queue:
    with database.writing() as session:
        session.add_all(User(name=name, role="submitter", created=0) for name in ("ann", "bob"))
    return Queue(database, Quotas(waiting=50), clock)


def worker(database: Database, clock: Clock, **quotas: float) -> Work:
    made = Work(database, Quotas(**quotas), clock)
    assert made.acquire()
    return made


def test_the_same_idempotency_key_gives_the_same_submission_and_another_text_is_refused(queue: Queue):
    first, new = queue.submit("ann", "s", "text", key="k")
    again, twice = queue.submit("ann", "s", "text", key="k")
    assert (first.id, new, twice) == (again.id, True, False)
    assert queue.submit("bob", "s", "text", key="k")[0].id != first.id, "keys are a user's own"
    with pytest.raises(Refused, match="another suite") as refused:
        queue.submit("ann", "s", "another", key="k")
    assert refused.value.status == 409
    assert queue.submit("ann", "s", "text")[0].id != queue.submit("ann", "s", "text")[0].id


def test_one_key_at_the_same_time_is_one_submission(queue: Queue):
    ids: list[str] = []

    def submit() -> None:
        ids.append(queue.submit("ann", "s", "t", key="k")[0].id)

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 8
    assert len(set(ids)) == 1


def test_too_many_that_wait_are_refused(database: Database, queue: Queue, clock: Clock):
    small = Queue(database, Quotas(waiting=2), clock)
    made = [small.submit("ann", "s", "t")[0] for _ in range(2)]
    with pytest.raises(Refused, match="cancel one") as refused:
        small.submit("ann", "s", "t")
    assert refused.value.status == 429
    small.submit("bob", "s", "t")
    small.cancel(made[0].id)
    small.submit("ann", "s", "t")


def test_what_is_tried_again_counts_like_what_is_handed_in(database: Database, queue: Queue, clock: Clock):
    small = Queue(database, Quotas(waiting=2), clock)
    ended = [small.submit("ann", "s", "t")[0].id for _ in range(2)]
    for each in ended:
        small.cancel(each)
    more = [small.submit("ann", "s", "t")[0].id for _ in range(2)]
    with pytest.raises(Refused, match="2 submissions of 'ann' have not ended") as refused:
        small.retry(ended[0])
    assert refused.value.status == 429
    small.pause(more[0])
    small.resume(more[0])  # it has never ended: it counts already
    small.cancel(more[1])
    assert small.retry(ended[0]).state == State.QUEUED


def test_a_day_has_so_many_even_where_each_is_canceled_at_once(database: Database, queue: Queue, clock: Clock):
    small = Queue(database, Quotas(handed_in=3), clock)
    for _ in range(3):
        small.cancel(small.submit("ann", "s", "t", key="k" if _ == 2 else None)[0].id)
    with pytest.raises(Refused, match="handed in 3 in 24 hours") as refused:
        small.submit("ann", "s", "t")
    assert refused.value.status == 429
    assert not small.submit("ann", "s", "t", key="k")[1], "what was handed in before is told again"
    small.submit("bob", "s", "t")
    clock.now += 86_401
    small.submit("ann", "s", "t")


def test_many_at_the_same_time_do_not_pass_a_quota_together(database: Database, queue: Queue, clock: Clock):
    small, told = Queue(database, Quotas(waiting=5), clock), []

    def submit() -> None:
        try:
            told.append(small.submit("ann", "s", "t")[0].state)
        except Refused as refused:
            told.append(str(refused.status))

    threads = [threading.Thread(target=submit) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told) == ["429"] * 15 + ["queued"] * 5


VERBS = ("cancel", "pause", "resume", "retry")
TABLE = {  # state -> what cancel, pause, resume, retry make of it; a wish in brackets; None: refused
    State.QUEUED: ("canceled", "paused", "queued", "queued"),
    State.PAUSED: ("canceled", "paused", "queued", None),
    State.RUNNING: ("running [cancel]", "running [pause]", None, None),
    State.COMPLETE: (None, None, None, None),
    State.INCOMPLETE: (None, None, None, "queued"),
    State.FAILED: (None, None, None, "queued"),
    State.CANCELED: ("canceled", None, None, "queued"),
}


@pytest.mark.parametrize("state", list(State))
def test_every_verb_in_every_state(queue: Queue, database: Database, clock: Clock, state: State):
    work = worker(database, clock)
    for verb, expected in zip(VERBS, TABLE[state], strict=True):
        made, _ = queue.submit("ann", "s", "t")
        if state is State.PAUSED:
            queue.pause(made.id)
        elif state is not State.QUEUED:
            claimed = work.claim({}, lambda names: names)
            assert claimed is not None
            assert claimed.id == made.id
            if state is not State.RUNNING:
                work.end(made.id, state)
        if expected is None:
            with pytest.raises(Refused, match=str(state)) as refused:
                getattr(queue, verb)(made.id)
            assert refused.value.status == 409
        else:
            found = getattr(queue, verb)(made.id)
            assert found.state + (f" [{found.wish}]" if found.wish else "") == expected
            queue.cancel(made.id)


def test_a_pause_that_was_not_carried_out_yet_is_taken_back_by_resume(queue: Queue, database: Database, clock: Clock):
    work = worker(database, clock)
    made, _ = queue.submit("ann", "s", "t")
    work.claim({}, sorted)
    queue.pause(made.id)
    assert work.wishes() == {made.id: "pause"}
    assert queue.resume(made.id).state == State.RUNNING
    assert work.wishes() == {}


@pytest.mark.parametrize(("later", "state"), [("resume", State.QUEUED), ("cancel", State.CANCELED), ("", State.PAUSED)])
def test_what_a_user_wants_when_a_pause_is_carried_out_counts(
    queue: Queue, database: Database, clock: Clock, later: str, state: State
):
    work = worker(database, clock)
    made, _ = queue.submit("ann", "s", "t")
    work.claim({}, sorted)
    queue.pause(made.id)
    if later:
        getattr(queue, later)(made.id)
    work.end(made.id, State.PAUSED)
    assert queue.get(made.id).state == state


def test_an_end_that_is_told_twice_undoes_nothing(queue: Queue, database: Database, clock: Clock):
    work = worker(database, clock)
    made, _ = queue.submit("ann", "s", "t")
    work.claim({}, sorted)
    work.end(made.id, State.INCOMPLETE)
    queue.retry(made.id)
    work.end(made.id, State.INCOMPLETE)  # the database went away before it could answer
    assert queue.get(made.id).state == State.QUEUED


def test_a_users_own_go_by_priority_and_waiting_makes_up_for_it(queue: Queue, database: Database, clock: Clock):
    old, _ = queue.submit("ann", "old", "t")
    clock.now += 1
    young, _ = queue.submit("ann", "young", "t", priority=1)
    work = worker(database, clock)
    assert (first := work.claim({}, sorted)) is not None
    assert first.id == young.id
    clock.now += 2 * AGEING
    queue.submit("ann", "late", "t", priority=1)
    assert (second := work.claim({}, sorted)) is not None
    assert second.id == old.id


def test_the_user_who_had_least_is_next_within_the_quotas(queue: Queue, database: Database, clock: Clock):
    for owner in ("ann", "ann", "bob"):
        queue.submit(owner, "s", "t")
    work = worker(database, clock, running=1, seconds=60.0)
    assert (first := work.claim({}, lambda names: list(reversed(names)))) is not None
    assert first.owner == "bob"
    assert work.claim({"ann": 1}, sorted) is None, "one at a time"
    work.charge("ann", 61.0, 3)
    assert queue.usage("ann") == 61.0
    assert work.claim({}, sorted) is None, "no more today"
    clock.now += 86400
    work.renew()
    assert work.claim({}, sorted) is not None, "tomorrow again"


def test_one_dispatcher_at_a_time_and_one_that_slept_changes_nothing_any_more(
    queue: Queue, database: Database, clock: Clock
):
    made, _ = queue.submit("ann", "s", "t")
    first = worker(database, clock)
    first.claim({}, sorted)
    second = Work(database, clock=clock)
    assert not second.acquire()
    clock.now += TERM - 1
    first.renew()
    clock.now += TERM - 1
    assert not second.acquire()
    clock.now += 2
    assert second.acquire()
    assert queue.get(made.id).state == State.QUEUED, "what it ran waits again"
    for act in (
        first.renew, first.release, lambda: first.end(made.id, State.COMPLETE), lambda: first.note(made.id, "x"),
        lambda: first.claim({}, sorted), lambda: first.charge("ann", 1, 1),
        lambda: first.progress(made.id, 1, 0, 1, None),
    ):  # fmt: skip
        with pytest.raises(LeaseLost):
            act()
    assert queue.get(made.id).state == State.QUEUED
    second.release()
    assert first.acquire()


@pytest.mark.parametrize(("wish", "state"), [("cancel", State.CANCELED), ("pause", State.PAUSED)])
def test_a_wish_outlives_the_dispatcher(queue: Queue, database: Database, clock: Clock, wish: str, state: State):
    made, _ = queue.submit("ann", "s", "t")
    worker(database, clock).claim({}, sorted)
    getattr(queue, wish)(made.id)
    clock.now += TERM + 1
    worker(database, clock)
    assert queue.get(made.id).state == state


def test_what_kills_dispatcher_after_dispatcher_is_given_up(queue: Queue, database: Database, clock: Clock):
    made, _ = queue.submit("ann", "s", "t")
    for round_ in range(CUT_SHORT):
        assert worker(database, clock).claim({}, sorted) is not None, round_
        clock.now += TERM + 1
    worker(database, clock)
    assert queue.get(made.id).state == State.FAILED
    assert "dispatchers in a row" in queue.get(made.id).message


def test_the_outbox_waits_longer_each_time(queue: Queue, database: Database, clock: Clock):
    made, _ = queue.submit("ann", "s", "t")
    work = worker(database, clock)
    work.claim({}, sorted)
    work.end(made.id, State.COMPLETE, publish=True)
    assert (due := work.due()) is not None
    assert due.id == made.id
    assert [work.postpone(made.id, "away") for _ in range(3)] == [5.0, 10.0, 20.0]
    assert work.due() is None
    clock.now += 20
    assert work.due() is not None
    work.renew()
    work.published(made.id, ["33 runs"])
    assert work.due() is None
    assert [event.text for event in queue.events(made.id)] == ["queued", "running", "complete", "33 runs"]
    last = queue.events(made.id)[2]
    assert [event.text for event in queue.events(made.id, after=last.id)] == ["33 runs"]


def test_a_page_shows_ones_own_and_what_is_shared(queue: Queue, clock: Clock):
    mine, _ = queue.submit("ann", "mine", "t")
    clock.now += 1
    hidden, _ = queue.submit("bob", "hidden", "t")
    clock.now += 1
    shared, _ = queue.submit("bob", "shared", "t", shared=True)
    assert [s.id for s in queue.page(["ann"])] == [shared.id, mine.id]
    assert [s.id for s in queue.page(None)] == [shared.id, hidden.id, mine.id]
    assert [s.id for s in queue.page(None, limit=1, before=shared.created)] == [hidden.id]
    queue.cancel(mine.id)
    assert [s.id for s in queue.page(["ann"], state=State.CANCELED)] == [mine.id]
    clock.now += 1
    together = {queue.submit("ann", "s", "t")[0].id for _ in range(5)}
    first = queue.page(["ann"], limit=2)
    then = queue.page(["ann"], before=first[-1].created, after=first[-1].id)
    assert {s.id for s in [*first, *then[:3]]} == together, "those of one moment are on one page or the next"
    with pytest.raises(Refused, match="no submission") as refused:
        queue.get("nothing")
    assert refused.value.status == 404


def test_messages_of_foreign_code_are_kept_whatever_they_hold(queue: Queue, database: Database, clock: Clock):
    made, _ = queue.submit("ann", "s", "t")
    work = worker(database, clock)
    work.claim({}, sorted)
    work.note(made.id, "zero \x00 and half \ud83d of a character")
    work.end(made.id, State.FAILED, "\x00" * 3000)
    assert queue.get(made.id).message.startswith("\\0\\0")
    assert "zero \\0 and half ? of" in queue.events(made.id)[2].text


def test_a_claim_that_the_database_kept_without_telling_is_put_back(queue: Queue, database: Database, clock: Clock):
    work = worker(database, clock)
    made = {queue.submit("ann", "s", "t")[0].id for _ in range(3)}
    claimed = [work.claim({}, sorted) for _ in range(2)]
    known, unknown = (row.id for row in claimed if row is not None)
    queue.cancel(unknown)
    work.put_back_all_but({known})
    assert queue.get(known).state == State.RUNNING
    assert queue.get(unknown).state == State.CANCELED, "as its user wanted"
    assert [queue.get(other).state for other in made - {known, unknown}] == [State.QUEUED]


def test_what_is_done_together_is_done_wholly_or_not_at_all(queue: Queue, database: Database, clock: Clock):
    work = worker(database, clock)
    made, _ = queue.submit("ann", "s", "t")
    work.claim({}, sorted)

    def twice(fails: bool) -> None:
        with work.together():
            work.note(made.id, "first")
            work.charge("ann", 0.5, 1)
            work.charge("ann", 1.5, 1)
            assert not fails
            work.end(made.id, State.COMPLETE)

    with pytest.raises(AssertionError):
        twice(fails=True)
    assert queue.usage("ann") == 0.0
    twice(fails=False)
    twice(fails=False)  # told again after a doubt: nothing breaks
    assert queue.get(made.id).state == State.COMPLETE
    assert queue.usage("ann") == 4.0
    assert [event.text for event in queue.events(made.id) if event.kind == "note"] == ["first", "first"]


def test_who_waits_are_those_who_have_seconds_left(queue: Queue, database: Database, clock: Clock):
    for owner in ("ann", "ann", "bob"):
        queue.submit(owner, "s", "t")
    work = worker(database, clock, seconds=60.0)
    assert sorted(work.waiting()) == ["ann", "bob"]
    work.charge("bob", 61.0, 1)
    assert work.waiting() == ["ann"]


def test_users_clocks_outlive_a_dispatcher_that_was_killed(queue: Queue, database: Database, clock: Clock):
    work = worker(database, clock)
    assert work.ahead() == {}
    work.remember({"ann": 12.5, "bob": 0.1})
    work.remember({"ann": 12.25})
    clock.now += TERM + 1
    after = worker(database, clock)
    assert after.ahead() == {"ann": 12.25}, "bob is not ahead any more"
    with pytest.raises(LeaseLost):
        work.remember({"ann": 99.0})
    after.remember({})
    assert after.ahead() == {}
