"""What the service forgets, and what it does not, on both kinds of database."""

import json
import math
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, func, select, update
from typer.testing import CliRunner

from bench import cli, cli_service
from bench.errors import OperatorError
from bench.runs import Run
from bench.service import retention
from bench.service.access import Access, Role
from bench.service.database import Attempt, Audit, Base, Database, Event, State, Submission, Token, Usage, User
from bench.service.queue import DAY, Queue, Quotas
from bench.service.retention import KINDS, Days, Retention
from bench.service.work import Work

NEVER = Days(*[math.inf] * len(KINDS))


class Clock:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now

    def pass_days(self, days: float) -> None:
        self.now += days * DAY


class Place:
    """A service's database and folder, on a clock."""

    def __init__(self, database: Database, output: Path) -> None:
        self.clock, self.database, self.output = Clock(), database, output
        self.queue = Queue(database, Quotas(), self.clock)
        self.access = Access(database, self.clock)
        self.work = Work(database, clock=self.clock)
        with database.writing() as session:
            session.add_all(User(name=name, role="submitter", created=0) for name in ("ann", "bob"))
        assert self.work.acquire()

    def ended(self, owner: str = "ann", **more: Any) -> str:
        """A submission that ran and came to its end, with its files."""
        row, _ = self.queue.submit(owner, "s", "name: s\n", **more)
        assert (claimed := self.work.claim({}, sorted)) is not None
        assert claimed.id == row.id
        self.work.note(row.id, "a line")
        self.work.end(row.id, State.COMPLETE)
        run = Run(self.output, row.id)
        for folder in (run.folder, run.reports):
            folder.mkdir(parents=True)
            (folder / "file").write_text("x")
        return row.id

    def forget(self, **days: float) -> dict[str, int]:
        """What was said to be old is what went."""
        made = Retention(self.database, replace(NEVER, **days), self.output, self.clock)
        said = made.old()
        gone = made.forget(threading.Event())
        assert gone == {kind: count for kind, count in said.items() if count}
        assert not any(made.old().values())
        return gone

    def count(self, table: type[Base], *which: Any) -> int:
        with self.database.reading() as session:
            return session.scalar(select(func.count()).select_from(table).where(*which)) or 0


@pytest.fixture
def place(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(retention, "PAUSE", 0.0)
    return Place(database, tmp_path / "out")


def test_events_and_attempts_go_once_their_submission_has_ended_for_so_long(place: Place):
    old = place.ended()
    place.clock.pass_days(5)
    young = place.ended()
    place.clock.pass_days(6)
    assert place.forget(events=12) == {}
    assert place.forget(events=10) == {"events": 5}, "queued, running, a line, complete; and an attempt"
    assert place.queue.events(old) == []
    assert [each.text for each in place.queue.events(young)] == ["queued", "running", "a line", "complete"]
    assert place.queue.get(old).state == State.COMPLETE, "the submission itself is kept"


def make(place: Place, state: str) -> str:
    """A submission that has not ended, which was tried before."""
    submission = place.ended()
    with place.database.writing() as session:
        session.get_one(Submission, submission).state = State.FAILED
    place.queue.retry(submission)
    if state in (State.RUNNING, "to be canceled"):
        assert place.work.claim({}, sorted) is not None
    if state == State.PAUSED:
        place.queue.pause(submission)
    if state == "to be canceled":
        place.queue.cancel(submission)
    return submission


@pytest.mark.parametrize("state", [State.QUEUED, State.RUNNING, State.PAUSED, "to be canceled"])
def test_what_has_not_ended_keeps_everything_however_old_it_is(place: Place, state: str):
    submission = make(place, state)
    before = [each.id for each in place.queue.events(submission)]
    place.clock.pass_days(10_000)
    place.forget(events=1, submissions=1)
    assert [each.id for each in place.queue.events(submission)] == before
    assert place.count(Attempt, Attempt.submission == submission) >= 1
    assert Run(place.output, submission).folder.is_dir()


def test_a_submission_goes_with_its_run_and_its_key_and_not_before_mlflow_has_been_told(place: Place):
    told, untold = place.ended(key="k"), place.ended()
    with place.database.writing() as session:
        session.execute(update(Submission).where(Submission.id == untold).values(state=State.RUNNING))
    place.work.end(untold, State.COMPLETE, publish=True)
    place.ended()
    place.clock.pass_days(100)
    latest = place.ended()
    assert place.forget(submissions=50)["submissions"] == 2
    for folder in ("runs", "reports"):
        assert {path.name for path in (place.output / folder).iterdir()} == {untold, latest}
    assert {row.id for row in place.queue.page(None)} == {untold, latest}
    again, new = place.queue.submit("ann", "s", "another text", key="k")
    assert (new, again.id == told) == (True, False), "the key is free again"
    place.queue.cancel(again.id)
    place.work.published(untold, [])
    assert place.forget(submissions=50)["submissions"] == 1


def test_numbers_are_never_given_twice_so_who_goes_on_after_one_misses_nothing(place: Place):
    """SQLite gives the number of the newest row again once that row has gone."""
    submission = place.ended()
    seen = place.queue.events(submission)[-1].id
    newest = place.access.audit(None, "here", "x", "y", 200) or place.access.audited(1)[0].id
    place.clock.pass_days(1000)
    place.forget(events=1, audit=1, submissions=1)
    assert place.queue.get(submission).state == State.COMPLETE, "its last event is the newest of all"
    with place.database.writing() as session:
        session.get_one(Submission, submission).state = State.FAILED
    place.queue.retry(submission)
    assert [each.text for each in place.queue.events(submission, after=seen)] == ["queued"]
    place.access.audit(None, "here", "x", "later", 200)
    assert place.access.audited(1)[0].id > newest


def test_the_audit_log_usage_and_worthless_tokens_go_by_their_own_age(place: Place):
    alive = place.access.create("ann", Role.SUBMITTER, days=300)
    place.access.create("ann", Role.SUBMITTER, days=10)
    revoked = place.access.create("bob", Role.SUBMITTER, days=300).split("_")[1]
    place.access.revoke(revoked)
    place.work.charge("ann", 10.0, 3)
    place.clock.pass_days(99)
    place.work.charge("ann", 20.0, 3)
    place.access.audit(None, "here", "x", "y", 200)
    place.clock.pass_days(1)
    assert place.forget(tokens=95, audit=101, usage=100) == {"tokens": 1}, "the one that was revoked"
    assert place.forget(tokens=89, audit=99, usage=99) == {"tokens": 1, "audit": 4, "usage": 1}
    assert place.access.identify(f"Bearer {alive}").user == "ann"
    assert place.count(Audit) == 1
    place.work.charge("ann", 1.0, 1)
    assert place.queue.usage("ann") == 1.0
    place.forget(usage=1)
    assert place.queue.usage("ann") == 1.0, "today counts against a quota"
    assert place.count(User) == 2
    assert place.count(Token) == 1
    assert place.count(Usage) == 2


def test_many_rows_go_in_small_transactions_between_which_others_write(place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(retention, "BATCH", 10)
    monkeypatch.setattr(retention, "AT_ONCE", 2)
    owners = [place.ended() for _ in range(5)]
    with place.database.writing() as session:
        session.add_all(Event(submission=owner, time=1.0, kind="note", text="x") for owner in owners for _ in range(20))
        session.add_all(Audit(time=1.0, address="a", verb="v", object="o", status=200) for _ in range(35))
    removed, commits = [0], []

    def counted(_c: Any, cursor: Any, statement: str, *_: Any) -> None:
        removed[0] += cursor.rowcount if statement.startswith("DELETE") else 0

    def committed(_: Any) -> None:
        commits.append(removed[0])
        removed[0] = 0

    event.listen(place.database.engine, "after_cursor_execute", counted)
    event.listen(place.database.engine, "commit", committed)
    place.clock.pass_days(1000)
    between: list[int] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            place.access.audit(None, "here", "between", "batches", 200)  # another writer gets in at once
            between.append(1)
            return False

    gone = Retention(place.database, replace(NEVER, events=1, audit=1), place.output, place.clock).forget(Stop())
    assert gone == {"events": 5 * 24 - 1 + 5 - 1, "audit": 35}, "all but the newest event and the newest attempt"
    assert max(commits) <= 10
    assert sum(commits) == sum(gone.values())
    assert place.count(Audit, Audit.verb == "between") == len(between) >= 12


def test_what_is_taken_up_again_at_this_moment_keeps_what_it_has(place: Place, monkeypatch: pytest.MonkeyPatch):
    submission, other, _ = place.ended(), place.ended(), place.ended("bob")
    with place.database.writing() as session:
        session.get_one(Submission, submission).state = State.FAILED
    place.clock.pass_days(1000)
    write, retried = place.database.writing, threading.Event()

    def late() -> Any:
        """It was found to be old; before it is removed, its user tries it again."""
        if not retried.is_set():
            retried.set()
            place.queue.retry(submission)
        return write()

    monkeypatch.setattr(place.database, "writing", late)
    days = replace(NEVER, events=1, submissions=1)
    gone = Retention(place.database, days, place.output, place.clock).forget(threading.Event())
    assert retried.is_set()
    kept = [each.text for each in place.queue.events(submission)]
    assert kept == ["queued", "running", "a line", "complete", "queued"]
    assert Run(place.output, submission).folder.is_dir()
    assert gone["submissions"] == 1, "the other one of hers; the newest attempt is bob's"
    assert other not in {row.id for row in place.queue.page(None)}


def test_files_that_cannot_be_removed_keep_their_submission_and_say_so(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    first, _ = place.ended(), place.ended()
    place.clock.pass_days(1000)

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    made = Retention(place.database, replace(NEVER, submissions=1), place.output, place.clock)
    with pytest.raises(OperatorError, match="cannot be removed"):
        made.forget(threading.Event())
    assert place.queue.get(first).id == first
    stop = threading.Event()
    monkeypatch.setattr(retention, "EVERY", 0.01)
    thread = threading.Thread(target=made.run, args=(stop,))
    thread.start()
    while "could not be forgotten" not in caplog.text:
        stop.wait(0.01)
    monkeypatch.undo()
    stop.set()
    thread.join(60)
    assert not thread.is_alive()


def test_the_dispatchers_thread_forgets_now_and_again_until_it_is_stopped(
    place: Place, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(retention, "EVERY", 0.01)
    first = place.ended()
    place.ended("bob")
    place.clock.pass_days(10)
    stop = threading.Event()
    made = Retention(place.database, replace(NEVER, events=5), place.output, place.clock)
    thread = threading.Thread(target=made.run, args=(stop,))
    thread.start()
    try:
        while place.queue.events(first):
            assert thread.is_alive()
        second = place.ended()
        place.ended("bob")
        place.clock.pass_days(10)
        while place.queue.events(second):
            assert thread.is_alive()
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()


def test_the_command_says_what_would_go_and_removes_it_only_when_told(database: Database, url: str, tmp_path: Path):
    assert cli_service.prune
    place = Place(database, tmp_path)
    place.ended()
    place.ended("bob")
    place.clock.now = 1_000_000.0  # long ago, by the clock of the machine
    place.access.audit(None, "here", "x", "y", 200)
    place.access.audit(None, "here", "x", "z", 200)
    (tmp_path / "quotas.yaml").write_text("days: {events: for ever, audit: 1000}\n")
    words = ["database", "prune", "--output", str(tmp_path), "--database", url, "--format", "json"]

    def pruned(*more: str) -> dict[str, dict[str, Any]]:
        answer = CliRunner().invoke(cli.app, [*words, *more])
        assert answer.exit_code == 0, answer.output
        return {row["of"]: row for row in json.loads(answer.stdout)}

    told = pruned()
    assert told["audit"] == {"of": "audit", "days": 365.0, "would be removed": 1}
    assert told["submissions"] == {"of": "submissions", "days": "for ever", "would be removed": 0}
    assert told["events"]["would be removed"] == 8
    assert pruned() == told, "nothing was removed"
    kept = pruned("--quotas", str(tmp_path / "quotas.yaml"), "--remove")
    assert (kept["events"]["removed"], kept["events"]["days"]) == (0, "for ever")
    assert kept["audit"] == {"of": "audit", "days": 1000.0, "removed": 1}
    entry = place.access.audited(1)[0]
    assert (entry.verb, entry.object) == ("prune", "1 audit")
    assert pruned("--remove")["events"]["removed"] == 8
    assert pruned()["events"]["would be removed"] == 0
