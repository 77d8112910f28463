"""What a submission leaves in the service's database, in bytes, and how long forgetting it takes.

    python benchmarks/database_bytes.py [--submissions 2000] [--notes 3] [--database postgresql+psycopg://…]

Hands in suites/quickstart.yaml so many times, as the face does (an entry of the audit log each), and takes each through
a dispatcher's transactions: claimed, some notes, ended, its user charged. Then all is forgotten but the submissions,
then these, by the real code without its pauses. SQLite in a temporary folder, or an empty database that is given.
"""

import argparse
import sys
import tempfile
import threading
import time
from dataclasses import replace
from math import inf
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from sqlalchemy import text

from bench.service import retention
from bench.service.access import Access, Role
from bench.service.database import Database, State
from bench.service.queue import DAY, Queue, Quotas
from bench.service.retention import Days, Retention
from bench.service.work import Work

SUITE = Path(__file__).parents[1] / "suites" / "quickstart.yaml"
ALL = Days(events=1, audit=1, usage=1, tokens=1, submissions=inf)


def size(database: Database) -> int:
    """Bytes of the database, without what is free to be used again."""
    sqlite = database.engine.dialect.name == "sqlite"
    with database.reading() as session:
        if not sqlite:
            return int(session.scalar(text("SELECT pg_database_size(current_database())")) or 0)
        pages = session.scalar(text("PRAGMA page_count")) - session.scalar(text("PRAGMA freelist_count"))
        return int(pages * session.scalar(text("PRAGMA page_size")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--submissions", type=int, default=2000)
    parser.add_argument("--notes", type=int, default=3, help="lines that a submission is told of")
    parser.add_argument("--database", help="an empty one; default: a SQLite file")
    given = parser.parse_args()
    retention.PAUSE = 0.0
    with tempfile.TemporaryDirectory() as folder:
        database = Database(given.database or f"sqlite:///{folder}/service.db")
        database.upgrade()
        queue, work, access = Queue(database, Quotas(handed_in=10**9)), Work(database), Access(database)
        access.create("ann", Role.SUBMITTER)
        work.acquire()
        suite, before = SUITE.read_text(), size(database)
        for _ in range(given.submissions):
            row, _new = queue.submit("ann", "quickstart", suite)
            access.audit(None, "127.0.0.1", "submit", row.id, 202)
            work.claim({}, sorted)
            with work.together():
                for number in range(given.notes):
                    work.note(
                        row.id, f"resnet under pgd[{number}:{number + 1}]: failed (timeout): no answer after 600 s"
                    )
                work.charge("ann", 1.0, 1)
                work.end(row.id, State.COMPLETE)
        after = size(database)
        each = (after - before) / given.submissions
        print(f"a suite of {len(suite.encode())} bytes and {given.notes} notes: {each:.0f} bytes a submission")
        for days in (ALL, replace(ALL, submissions=1)):
            began = time.perf_counter()
            forgetting = Retention(database, days, Path(folder), lambda: time.time() + 1000 * DAY)
            gone = forgetting.forget(threading.Event())
            took = time.perf_counter() - began
            left = (size(database) - before) / given.submissions
            rows = ", ".join(f"{count} {kind}" for kind, count in gone.items())
            print(f"forgotten in {took:.1f} s: {rows}; left of each submission: {left:.0f} bytes")
        database.close()


if __name__ == "__main__":
    main()
