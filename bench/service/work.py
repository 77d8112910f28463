"""What the dispatcher does to submissions: claim them, say how far they are, end them. Its half of the queue.

One process at a time holds the lease. Each of its transactions first looks whether the lease is still its own, so one
that was frozen and has woken up changes nothing any more.
"""

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from bench.errors import OperatorError
from bench.service.database import Attempt, Database, Lease, Module, Outbox, State, Submission, Usage, User
from bench.service.queue import Quotas, day, say, storable

TERM = 15.0  # seconds that a lease lasts without being renewed
AGEING = 600.0  # seconds of waiting that count as one step of priority
CUT_SHORT = 5  # attempts in a row that no dispatcher has survived: then it is the submission's fault
NOTE = 2000  # characters kept of a note


class LeaseLost(OperatorError):
    """Another dispatcher has taken over, since this one was not heard of for too long."""


class Work:
    """Submissions, as the holder of the dispatcher's lease sees them."""

    def __init__(
        self, database: Database, quotas: Quotas | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._quotas = quotas or Quotas()
        self._clock = clock
        self._mine = threading.local()  # a transaction that this thread has open
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self.epoch = 0

    # --- the lease

    def acquire(self) -> bool:
        """Take the lease if it is free, or was not renewed in time; then put back what its last holder left."""
        with self._database.writing() as session:
            now = self._clock()
            lease = session.get(Lease, "dispatcher", with_for_update=True)
            if lease is None:
                lease = Lease(name="dispatcher", holder=self._holder, epoch=0, expires=0.0)
                session.add(lease)
            elif lease.expires > now and lease.holder != self._holder:
                return False
            lease.holder, lease.epoch, lease.expires = self._holder, lease.epoch + 1, now + TERM
            self.epoch = lease.epoch
            for left in session.scalars(select(Submission).where(Submission.state == State.RUNNING)):
                self._put_back(session, left, now)
            return True

    def renew(self) -> None:
        """Raises LeaseLost."""
        with self._acting() as session:
            session.execute(update(Lease).where(Lease.name == "dispatcher").values(expires=self._clock() + TERM))

    def release(self) -> None:
        """So that the next dispatcher need not wait."""
        with self._acting() as session:
            session.execute(update(Lease).where(Lease.name == "dispatcher").values(expires=0.0))

    # --- submissions

    def claim(self, running: dict[str, int], order: Callable[[list[str]], list[str]]) -> Submission | None:
        """The submission that is next, which is running from now on.

        running: how many each user has at work. order: puts users in order, the one who has had least first. Among a
        user's own: by priority, which grows while they wait, then the oldest.
        """
        with self._acting() as session:
            now = self._clock()
            fit = [owner for owner in self._waiting(session, now) if running.get(owner, 0) < self._quotas.running]
            if not fit:
                return None
            chosen = session.scalars(
                select(Submission)
                .where(Submission.state == State.QUEUED, Submission.owner == order(sorted(fit))[0])
                .order_by((Submission.priority - Submission.queued / AGEING).desc(), Submission.id)
                .limit(1)
                .with_for_update(skip_locked=True)
            ).first()
            if chosen is None:
                return None
            chosen.state, chosen.started, chosen.wish, chosen.message = State.RUNNING, now, None, ""
            session.add(Attempt(submission=chosen.id, epoch=self.epoch, began=now))
            say(session, chosen.id, "state", State.RUNNING, now)
            return chosen

    def put_back_all_but(self, at_work: set[str]) -> None:
        """What is said to run and is not at work waits again: a database that went away may have kept a claim of which
        it could not tell any more."""
        with self._acting() as session:
            for found in session.scalars(select(Submission).where(Submission.state == State.RUNNING)):
                if found.id not in at_work:
                    self._put_back(session, found, self._clock())

    def waiting(self) -> list[str]:
        """Users who have submissions that wait, and seconds left today."""
        with self._database.reading() as session:
            return self._waiting(session, self._clock())

    def modules(self) -> list[Module]:
        """All that were registered, retired ones, too: what was accepted may need them."""
        with self._database.reading() as session:
            return list(session.scalars(select(Module).order_by(Module.name)))

    def wishes(self) -> dict[str, str]:
        """By submission: whether its user wants it paused or canceled."""
        with self._database.reading() as session:
            asked = select(Submission).where(Submission.state == State.RUNNING, Submission.wish.is_not(None))
            return {found.id: str(found.wish) for found in session.scalars(asked)}

    def progress(self, submission: str, done: int, failed: int, total: int, eta: float | None) -> None:
        with self._acting() as session:
            change = update(Submission).where(Submission.id == submission)
            session.execute(change.values(done=done, failed=failed, total=total, eta=eta))

    def lacks(self, submission: str, text: str) -> None:
        """For what kind of node it waits; nothing: for none."""
        with self._acting() as session:
            change = update(Submission).where(Submission.id == submission)
            session.execute(change.values(message=storable(text[:NOTE])))

    def note(self, submission: str, text: str) -> None:
        with self._acting() as session:
            say(session, submission, "note", text[:NOTE], self._clock())

    def charge(self, owner: str, seconds: float, tasks: int) -> None:
        """Add to what a user has had today."""
        with self._acting() as session:
            today = day(self._clock())
            found = session.get(Usage, (owner, today))
            if found is None:
                session.add(Usage(owner=owner, day=today, seconds=seconds, tasks=tasks))
                session.flush()
            else:
                found.seconds, found.tasks = found.seconds + seconds, found.tasks + tasks

    def remember(self, ahead: Mapping[str, float]) -> None:
        """How far users' clocks are ahead of the one that is furthest behind; who is not among them is not ahead."""
        with self._acting() as session:
            known = _ahead(session)
            changed = [
                {"name": owner, "ahead": ahead.get(owner, 0.0)}
                for owner in {**known, **ahead}
                if known.get(owner) != ahead.get(owner)
            ]
            if changed:
                session.execute(update(User), changed)

    def ahead(self) -> dict[str, float]:
        """What the last dispatcher remembered."""
        with self._database.reading() as session:
            return _ahead(session)

    def end(self, submission: str, state: State, message: str = "", *, publish: bool = False) -> None:
        """It has come to an end, or is paused or put back: then what its user wants by now counts, who may have changed
        their mind. publish: MLflow has to be told of its results. Told twice, after a doubt, is told once."""
        with self._acting() as session:
            now = self._clock()
            found = session.get_one(Submission, submission)
            if found.state != State.RUNNING:
                return
            state = _wanted(found) if state in (State.PAUSED, State.QUEUED) else state
            found.state, found.wish, found.message, found.eta = state, None, storable(message[:NOTE]), None
            found.ended = None if state in (State.PAUSED, State.QUEUED) else now
            session.execute(
                update(Attempt)
                .where(Attempt.submission == submission, Attempt.ended.is_(None))
                .values(ended=now, outcome=state)
            )
            if publish and session.get(Outbox, submission) is None:
                session.add(Outbox(submission=submission, due=now))
                session.flush()
            say(session, submission, "state", state, now)

    # --- the outbox

    def due(self) -> Submission | None:
        """A submission that MLflow should be told of now."""
        with self._database.reading() as session:
            asked = select(Submission).join(Outbox, Outbox.submission == Submission.id)
            return session.scalars(asked.where(Outbox.due <= self._clock()).order_by(Outbox.due).limit(1)).first()

    def published(self, submission: str, told: list[str]) -> None:
        with self._acting() as session:
            session.delete(session.get_one(Outbox, submission))
            for line in told:
                say(session, submission, "note", line[:NOTE], self._clock())

    def postpone(self, submission: str, problem: str) -> float:
        """It could not be told: again later, each time after twice as long. Returns the seconds until then."""
        with self._acting() as session:
            entry = session.get_one(Outbox, submission)
            wait = min(3600.0, 5.0 * 2.0**entry.tries)
            entry.tries, entry.due, entry.problem = (
                min(entry.tries + 1, 30),
                self._clock() + wait,
                storable(problem[:NOTE]),
            )
            return wait

    # --- several of these at once

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What this thread does within is one transaction: all of it or nothing. Raises LeaseLost."""
        with self._acting() as session:
            self._mine.session = session
            try:
                yield
            finally:
                self._mine.session = None

    # --- inside

    @contextlib.contextmanager
    def _acting(self) -> Iterator[Session]:
        """A transaction of the one who holds the lease. Raises LeaseLost."""
        if (mine := getattr(self._mine, "session", None)) is not None:
            yield mine
            return
        with self._database.writing() as session:
            lease = session.get(Lease, "dispatcher", with_for_update=True)
            if lease is None or (lease.holder, lease.epoch) != (self._holder, self.epoch):
                raise LeaseLost("another dispatcher has taken over", "this one was not heard of for too long")
            yield session

    def _waiting(self, session: Session, now: float) -> list[str]:
        waiting = select(Submission.owner).where(Submission.state == State.QUEUED).distinct()
        used = {row.owner: row.seconds for row in session.scalars(select(Usage).where(Usage.day == day(now)))}
        return [owner for owner in session.scalars(waiting) if used.get(owner, 0.0) < self._quotas.seconds]

    def _put_back(self, session: Session, left: Submission, now: float) -> None:
        """What was left running waits again, unless its user wanted otherwise; what has killed too many is given up."""
        last = session.scalar(select(func.max(Attempt.id)).where(Attempt.ended.is_not(None), _of(left)))
        cut = session.scalar(select(func.count()).where(_of(left), Attempt.ended.is_(None), Attempt.id > (last or 0)))
        if (cut or 0) >= CUT_SHORT:
            left.state, left.ended = State.FAILED, now
            left.message = f"{cut} dispatchers in a row have died while it ran"
        else:
            left.state = _wanted(left)
            left.ended = now if left.state == State.CANCELED else None
        left.wish = None
        say(session, left.id, "state", left.state, now)


def _ahead(session: Session) -> dict[str, float]:
    return {row.name: row.ahead for row in session.scalars(select(User).where(User.ahead > 0))}


def _wanted(submission: Submission) -> State:
    """What becomes of one that is not at work any more and has not ended."""
    return {"cancel": State.CANCELED, "pause": State.PAUSED}.get(submission.wish or "", State.QUEUED)


def _of(submission: Submission) -> ColumnElement[bool]:
    return Attempt.submission == submission.id
