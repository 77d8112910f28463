"""How long the service remembers: what only grows is forgotten by age, in batches that keep nobody waiting for long.

A submission that has not ended keeps everything, however old it is. The newest row of a numbered table stays: SQLite
would give its number again, and whoever goes on after a number (`Last-Event-ID`, a page of the audit log) would miss
what comes with a lower one.
"""

import logging
import math
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from sqlalchemy import ColumnElement, CursorResult, ScalarSelect, delete, func, inspect, or_, select, tuple_
from sqlalchemy.orm import Session

from bench.errors import OperatorError
from bench.runs import Run
from bench.service.database import AWAY, ENDED, Attempt, Audit, Base, Database, Event, Outbox, Submission, Token, Usage
from bench.service.queue import DAY, day

BATCH = 500  # rows that a transaction removes
AT_ONCE = 20  # submissions whose events are removed together
EVERY = 3600.0  # seconds between two looks at what has become old
PAUSE = 0.05  # seconds between two batches, in which others get their turn

Which = tuple[ColumnElement[bool], ...]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Days:
    """How many days what is kept, at least one; infinite: for ever."""

    events: float = 90.0  # and attempts, of a submission that has ended
    audit: float = 365.0
    usage: float = 365.0  # what users' tasks took on a day
    tokens: float = 365.0  # that have expired or were revoked
    submissions: float = math.inf  # that have ended, with their runs and leaderboards


KINDS = tuple(each.name for each in fields(Days))


class Retention:
    """What has become old in a database, and in the output folder that goes with it. Any number may forget at once."""

    def __init__(self, database: Database, days: Days, output: Path, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._output = output
        self._clock = clock
        self._days: dict[str, float] = asdict(days)
        self._days["events"] = min(days.events, days.submissions)  # they go with their submission

    def run(self, stop: threading.Event) -> None:
        """Forget, now and every hour, until it is stopped. What could not be done is tried again the next time."""
        while not stop.is_set():
            try:
                if gone := self.forget(stop):
                    log.info("what was old is forgotten", extra={"rows": gone})
            except (*AWAY, OperatorError) as problem:
                log.warning("what is old could not be forgotten", extra={"why": str(problem)})
            stop.wait(EVERY)

    def old(self) -> dict[str, int]:
        """Rows of each kind that `forget` would remove now; a submission counts as one."""
        found: Counter[str] = Counter(dict.fromkeys(KINDS, 0))
        with self._database.reading() as session:
            for kind, table, which in self._rules():
                found[kind] += session.scalar(select(func.count()).select_from(table).where(*which)) or 0
        return dict(found)

    def forget(self, stop: threading.Event) -> dict[str, int]:
        """Remove it, until it is stopped. Returns the rows of each kind, where there were any.

        Raises OperatorError where the files of a submission cannot be removed.
        """
        gone: Counter[str] = Counter()
        for kind, table, which in self._rules():
            if table is Event or table is Attempt:
                batches = self._of_submissions(table, which)
            else:
                batches = self._submissions(which) if table is Submission else self._rows(table, which)
            for count in batches:
                gone[kind] += count
                if stop.wait(PAUSE):
                    return +gone
        return +gone

    # --- what is old

    def _rules(self) -> Iterator[tuple[str, type[Base], Which]]:
        """Kinds, tables, and which rows. Submissions last: what is theirs has gone by then."""
        ended = select(Submission.id).where(*self._ended("events"))
        for table in (Event, Attempt):
            yield "events", table, (table.submission.in_(ended), table.id < _newest(table))
        yield "audit", Audit, (Audit.time < self._since("audit"), Audit.id < _newest(Audit))
        yield "usage", Usage, (Usage.day < day(self._since("usage")),)
        yield "tokens", Token, (or_(Token.expires < self._since("tokens"), Token.revoked < self._since("tokens")),)
        newest = (select(table.submission).where(table.id == _newest(table)) for table in (Event, Attempt))
        kept = (Submission.id.not_in(each) for each in (select(Outbox.submission), *newest))
        yield "submissions", Submission, (*self._ended("submissions"), *kept)

    def _ended(self, kind: str) -> Which:
        return Submission.state.in_(ENDED), Submission.ended < self._since(kind)

    def _since(self, kind: str) -> float:
        return max(0.0, self._clock() - self._days[kind] * DAY)

    # --- how it goes: each tells how many rows a transaction has removed

    def _rows(self, table: type[Base], which: Which) -> Iterator[int]:
        key = tuple_(*inspect(table).primary_key)
        count = BATCH
        while count == BATCH:
            with self._database.writing() as session:
                count = _remove(session, table, key.in_(select(*inspect(table).primary_key).where(*which).limit(BATCH)))
            yield count

    def _of_submissions(self, table: type[Event | Attempt], which: Which) -> Iterator[int]:
        """Of some submissions at a time, which nobody can take up again meanwhile."""
        with self._database.reading() as session:
            owners = session.scalars(select(table.submission).where(*which).distinct()).all()
        for start in range(0, len(owners), AT_ONCE):
            count = BATCH
            while count == BATCH:
                with self._database.writing() as session:
                    still = _held(session, Submission.id.in_(owners[start : start + AT_ONCE]), *self._ended("events"))
                    theirs = select(table.id).where(table.submission.in_(still), table.id < _newest(table))
                    count = _remove(session, table, table.id.in_(theirs.limit(BATCH)))
                yield count

    def _submissions(self, which: Which) -> Iterator[int]:
        """One after another, its files first: where that was cut short, the rest goes the next time."""
        with self._database.reading() as session:
            found = session.scalars(select(Submission.id).where(*which)).all()
        for submission in found:
            with self._database.writing() as session:
                still = _held(session, Submission.id == submission, *which)
                run = Run(self._output, submission)
                for folder in (run.folder, run.reports) if still else ():
                    _remove_folder(folder)
                for table in (Event, Attempt):
                    _remove(session, table, table.submission.in_(still))
                count = _remove(session, Submission, Submission.id.in_(still))
            yield count


def _newest(table: type[Event | Attempt | Audit]) -> ScalarSelect[int]:
    return select(func.max(table.id)).scalar_subquery()


def _held(session: Session, *which: ColumnElement[bool]) -> Sequence[str]:
    """The submissions of which this is true, for this transaction alone; those that somebody works on are left out."""
    return session.scalars(select(Submission.id).where(*which).with_for_update(skip_locked=True)).all()


def _remove(session: Session, table: type[Base], which: ColumnElement[bool]) -> int:
    removed = session.execute(delete(table).where(which), execution_options={"synchronize_session": False})
    assert isinstance(removed, CursorResult)
    return removed.rowcount


def _remove_folder(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return  # it was never run, or a removal was cut short
    except OSError as problem:
        raise OperatorError(f"{folder} cannot be removed: {problem}", "its submission is kept until it can") from None
