"""The face's half of the queue: what users do to submissions.

The dispatcher's half, which claims submissions and says how far they are, is bench.service.work. Neither
talks to the other: the database is what both know, so either can be killed at any time.
"""

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from sqlalchemy import false, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from bench.errors import GauntletError
from bench.service.database import ENDED, Database, Event, State, Submission, Usage, User
from bench.store import digest

PRIORITIES = range(-10, 11)  # of a user's own submissions among each other: highest first
PAGE = 100
DAY = 86_400.0  # seconds


class Refused(GauntletError):
    """A request that cannot be granted as things stand. `status` is its HTTP status."""

    def __init__(self, status: int, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.status = status


@dataclass(frozen=True)
class Quotas:
    """What one user may have at a time, or on a day (UTC)."""

    waiting: int = 100  # submissions that have not ended
    handed_in: int = 1000  # submissions in 24 hours, whatever has become of them
    running: int = 4  # submissions at once
    in_flight: int = 1000  # tasks on workers at once
    tasks: int = 1_000_000  # tasks of one submission
    seconds: float = 7 * 86400.0  # seconds of a worker on a day; what exceeds it waits for the next
    bytes: int = 10 << 30  # of uploads, and of the registered models that came of them
    upload: int = 2 << 30  # bytes of one file of weights
    uploads: int = 100  # files that have not been registered


class Queue:
    """Submissions in a database."""

    def __init__(
        self, database: Database, quotas: Quotas | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._quotas = quotas or Quotas()
        self._clock = clock

    def submit(
        self, owner: str, name: str, text: str, *, key: str | None = None, priority: int = 0, shared: bool = False
    ) -> tuple[Submission, bool]:
        """Hand in a suite that was found valid; whether it is new. The same idempotency key gives the same submission.

        Raises Refused: 409 where the key was used for another text, 429 where the user has too many that wait.
        """
        content = digest(text.encode())
        try:
            with self._database.writing() as session:
                if key is not None and (known := _by_key(session, owner, key)) is not None:
                    return _same(known, content), False
                now = self._clock()
                self._must_have_room(session, owner)
                today = select(func.count()).where(Submission.owner == owner, Submission.created > now - DAY)
                if (session.scalar(today) or 0) >= self._quotas.handed_in:
                    _refuse(429, f"'{owner}' has handed in {self._quotas.handed_in} in 24 hours", "`retry` costs none")
                made = Submission(
                    id=f"{name}-{secrets.token_hex(8)}", owner=owner, name=name, text=text, digest=content,
                    idempotency_key=key, state=State.QUEUED, priority=priority, shared=shared, created=now, queued=now,
                )  # fmt: skip
                session.add(made)
                session.flush()
                say(session, made.id, "state", State.QUEUED, now)
            return made, True
        except IntegrityError:  # somebody was quicker with the same key
            with self._database.reading() as session:
                found = _by_key(session, owner, key or "")
            if found is None:
                raise
            return _same(found, content), False

    def get(self, submission: str) -> Submission:
        """Raises Refused: 404."""
        with self._database.reading() as session:
            return _get(session, submission)

    def page(
        self,
        owners: Sequence[str] | None,
        *,
        state: State | None = None,
        before: float | None = None,
        after: str = "",
        limit: int = PAGE,
    ) -> list[Submission]:
        """The latest first. owners: whose, besides what is shared; None: everybody's. before: created before that, or
        at that time with an id that comes after `after`: those of one moment are sorted by id."""
        asked = select(Submission).order_by(Submission.created.desc(), Submission.id).limit(limit)
        if owners is not None:
            asked = asked.where(Submission.owner.in_(owners) | Submission.shared)
        if state is not None:
            asked = asked.where(Submission.state == state)
        if before is not None:
            same = (Submission.created == before) & (Submission.id > after) if after else false()
            asked = asked.where((Submission.created < before) | same)
        with self._database.reading() as session:
            return list(session.scalars(asked))

    def events(self, submission: str, after: int = 0, limit: int = PAGE) -> list[Event]:
        """Its events in order, those with a higher id."""
        asked = select(Event).where(Event.submission == submission, Event.id > after).order_by(Event.id).limit(limit)
        with self._database.reading() as session:
            return list(session.scalars(asked))

    def cancel(self, submission: str) -> Submission:
        """What waits is canceled at once, what runs as soon as the dispatcher looks. Twice is once."""
        return self._change(submission, "cancel", at_once=(State.QUEUED, State.PAUSED), becomes=State.CANCELED)

    def pause(self, submission: str) -> Submission:
        """Hand out no more of its tasks; those on workers end, and are kept."""
        return self._change(submission, "pause", at_once=(State.QUEUED,), becomes=State.PAUSED)

    def resume(self, submission: str) -> Submission:
        """A paused submission waits again for its turn, and goes on where it was."""
        return self._requeue(submission, "resume", (State.PAUSED,))

    def retry(self, submission: str) -> Submission:
        """Try again what failed, or what was canceled: only what the store lacks is measured."""
        return self._requeue(submission, "retry", (State.INCOMPLETE, State.FAILED, State.CANCELED))

    def prioritise(self, submission: str, priority: int) -> Submission:
        with self._database.writing() as session:
            found = _get(session, submission)
            found.priority = priority
            return found

    def usage(self, owner: str) -> float:
        """Seconds of workers that the user's tasks have taken today."""
        with self._database.reading() as session:
            found = session.get(Usage, (owner, day(self._clock())))
            return found.seconds if found else 0.0

    def _must_have_room(self, session: Session, owner: str) -> None:
        """For one more that has not ended. Raises Refused: 429."""
        session.get(User, owner, with_for_update={"key_share": True})  # else two could pass the quota together
        mine = select(func.count()).where(Submission.owner == owner, Submission.state.not_in(ENDED))
        if (session.scalar(mine) or 0) >= self._quotas.waiting:
            _refuse(429, f"{self._quotas.waiting} submissions of '{owner}' have not ended", "cancel one, or wait")

    def _change(self, submission: str, wish: str, *, at_once: Sequence[State], becomes: State) -> Submission:
        with self._database.writing() as session:
            found, now = _get(session, submission, lock=True), self._clock()
            if found.state in at_once:
                found.state, found.wish = becomes, None
                found.ended = now if becomes in ENDED else None
                say(session, submission, "state", becomes, now)
            elif found.state == State.RUNNING:
                found.wish = wish
            elif found.state != becomes:
                _refuse(409, f"'{submission}' is {found.state}: it cannot be {becomes}")
            return found

    def _requeue(self, submission: str, verb: str, states: Sequence[State]) -> Submission:
        with self._database.writing() as session:
            found, now = _get(session, submission, lock=True), self._clock()
            if found.state in states:
                if found.state in ENDED:
                    self._must_have_room(session, found.owner)
                found.state, found.wish, found.queued, found.ended, found.message = State.QUEUED, None, now, None, ""
                say(session, submission, "state", State.QUEUED, now)
            elif found.state == State.RUNNING and found.wish == "pause" and verb == "resume":
                found.wish = None
            elif found.state != State.QUEUED:
                _refuse(409, f"'{submission}' is {found.state}: {verb} is for what is {', '.join(states)}")
            return found


def say(session: Session, submission: str, kind: str, text: str, now: float) -> None:
    """Add an event in this very transaction."""
    session.add(Event(submission=submission, time=now, kind=kind, text=storable(text)))


def storable(text: str) -> str:
    """Text that every database takes: messages of foreign code may hold zero bytes and halves of characters."""
    return text.replace("\x00", "\\0").encode(errors="replace").decode()


def day(now: float) -> str:
    """`2026-11-21`, in UTC."""
    return time.strftime("%Y-%m-%d", time.gmtime(now))


def _get(session: Session, submission: str, *, lock: bool = False) -> Submission:
    found = session.get(Submission, submission, with_for_update=lock or None)
    return found if found is not None else missing(submission)


def missing(submission: str) -> NoReturn:
    """The same answer for what is not there and for what is none of the asker's business."""
    _refuse(404, f"no submission '{submission}'", "`gauntlet submissions` lists those that you may see")


def _refuse(status: int, message: str, hint: str = "") -> NoReturn:
    raise Refused(status, message, hint)


def _by_key(session: Session, owner: str, key: str) -> Submission | None:
    return session.scalar(select(Submission).where(Submission.owner == owner, Submission.idempotency_key == key))


def _same(known: Submission, content: str) -> Submission:
    if known.digest != content:
        _refuse(409, f"this Idempotency-Key was used for another suite ({known.id})", "take a new key for a new suite")
    return known
