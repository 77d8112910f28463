"""Files of weights on their way in: begun, sent in pieces, held against their digest, scanned.

The name that a user gives a file is text in the database; its bytes lie under an id of ours, so that no name is ever a
path. How much has come is the length of the file on the disk: after a kill the sender goes on from there.
"""

import contextlib
import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from bench.service.database import Database, Upload, User
from bench.service.queue import Quotas, Refused

PIECE = 4 << 20  # bytes that one request may carry
STALE = 86_400.0  # seconds after which a file that has not grown is given up
OPEN, READY, REGISTERED = "open", "ready", "registered"


class Uploads:
    """The table of uploads, and the folder with their bytes. scan: the kind of a file, or Refused."""

    def __init__(
        self,
        database: Database,
        folder: Path,
        quotas: Quotas,
        scan: Callable[[Path], str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._folder = folder
        self._quotas = quotas
        self._scan = scan
        self._clock = clock

    def begin(self, owner: str, file: str, size: int, digest: str) -> Upload:
        """Raises Refused: 413 for a file that is too large, 429 where the user's bytes or uploads are used up."""
        quotas, now = self._quotas, self._clock()
        if size > quotas.upload:
            raise Refused(413, f"{size} bytes are more than the {quotas.upload} of a file", "ask whoever runs this")
        self._sweep(now)
        with self._database.writing() as session:
            session.get(User, owner, with_for_update=True)  # one at a time: else two could pass the quota together
            mine = select(func.count(), func.coalesce(func.sum(Upload.size), 0)).where(Upload.owner == owner)
            count, held = session.execute(mine).one()
            if held + size > quotas.bytes:
                raise Refused(
                    429, f"'{owner}' holds {held} of {quotas.bytes} bytes", "remove an upload, or have a model retired"
                )
            open_ = select(func.count()).where(Upload.owner == owner, Upload.state != REGISTERED)
            if (session.scalar(open_) or 0) >= quotas.uploads:
                raise Refused(429, f"'{owner}' has {count} uploads", "remove one")
            made = Upload(
                id=secrets.token_hex(16), owner=owner, file=file, size=size, digest=digest, state=OPEN, created=now,
                touched=now,
            )  # fmt: skip
            session.add(made)
        return made

    def get(self, upload: str) -> Upload:
        """Raises Refused: 404."""
        with self._database.reading() as session:
            return _get(session, upload)

    def page(self, owners: Sequence[str] | None, limit: int) -> list[Upload]:
        """The latest first. owners: whose; None: everybody's."""
        asked = select(Upload).order_by(Upload.created.desc(), Upload.id).limit(limit)
        with self._database.reading() as session:
            return list(session.scalars(asked if owners is None else asked.where(Upload.owner.in_(owners))))

    def received(self, upload: Upload) -> int:
        """Bytes that have come."""
        if upload.state == REGISTERED:
            return upload.size
        try:
            return self.path(upload).stat().st_size
        except FileNotFoundError:
            return 0

    def path(self, upload: Upload) -> Path:
        return self._folder / upload.id

    def append(self, upload: Upload, offset: int, piece: bytes) -> None:
        """Raises Refused: 409 where the piece does not begin where the file ends, 413 where it goes beyond its size."""
        with self.alone(upload) as row:
            if row.state != OPEN:
                raise Refused(409, f"'{row.id}' is {row.state}", "nothing is missing")
            with self.path(row).open("ab") as file:
                has = os.fstat(file.fileno()).st_size
                if offset != has:
                    raise Refused(409, f"the next byte is {has}, not {offset}", "go on from there")
                if has + len(piece) > row.size:
                    raise Refused(413, f"the file was to have {row.size} bytes", "begin anew with its true size")
                file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            with self._database.writing() as session:
                _get(session, row.id).touched = self._clock()

    @contextlib.contextmanager
    def alone(self, upload: Upload) -> Iterator[Upload]:
        """While nobody else, in any face, adds to it, checks it, registers it or throws it away: as it is now.

        Raises Refused: 409 where somebody does, 404 where it has gone.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.path(upload)
        lock = os.open(path, os.O_RDONLY | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                mine = os.path.samestat(os.fstat(lock), path.stat())  # not one that was thrown away meanwhile
            except (BlockingIOError, FileNotFoundError):
                mine = False
            if not mine:
                raise Refused(409, f"'{upload.id}' is being worked on", "one after the other")
            try:
                yield self.get(upload.id)
            finally:
                if os.fstat(lock).st_size == 0 or not self._known(upload.id):
                    path.unlink(missing_ok=True)  # made to lock it, or its row has gone
        finally:
            os.close(lock)

    def _known(self, upload: str) -> bool:
        with self._database.reading() as session:
            return session.get(Upload, upload) is not None

    def finish(self, upload: Upload) -> Upload:
        """Hold it against its digest, and scan it. What is not right is thrown away. Twice is once.

        Raises Refused: 409 while bytes are missing, 400 with what is wrong.
        """
        with self.alone(upload) as row:
            if row.state != OPEN:
                return row
            if (has := self.received(row)) < row.size:
                raise Refused(409, f"{row.size - has} bytes are missing", f"go on from byte {has}")
            path = self.path(row)
            try:
                self._check(row, path)
                kind = self._scan(path)
            except Refused as refused:
                if refused.status == 400:
                    self._forget(row)
                raise
            path.chmod(0o400)
            with self._database.writing() as session:
                made = _get(session, row.id)
                made.state, made.kind, made.touched = READY, kind, self._clock()
                return made

    @staticmethod
    def _check(upload: Upload, path: Path) -> None:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != upload.digest:
            raise Refused(400, f"its SHA-256 is {found}, not {upload.digest}", "it was thrown away: send it again")

    def registered(self, upload: Upload, model: str) -> Upload:
        """MLflow has it: the file is not needed any more, and its bytes count until the model is retired."""
        with self._database.writing() as session:
            row = _get(session, upload.id)
            row.state, row.model, row.touched = REGISTERED, model, self._clock()
        self.path(upload).unlink(missing_ok=True)
        return row

    def retired(self, model: str) -> None:
        """The model is gone: its bytes count no more."""
        with self._database.writing() as session:
            session.execute(delete(Upload).where(Upload.model == model))

    def remove(self, upload: Upload) -> None:
        """Forget it, and its bytes. Raises Refused: 409 for what stands in the registry."""
        with self.alone(upload) as row:
            self._forget(row)

    def _forget(self, upload: Upload) -> None:
        with self._database.writing() as session:
            row = _get(session, upload.id)
            if row.state == REGISTERED:
                raise Refused(409, f"'{row.id}' is registered as {row.model}", "retire that model")
            session.delete(row)
        self.path(upload).unlink(missing_ok=True)

    def _sweep(self, now: float) -> None:
        """What nobody goes on with, and files that a kill has left without a row."""
        with self._database.reading() as session:
            known = {row.id: row for row in session.scalars(select(Upload).where(Upload.state != REGISTERED))}
        for row in known.values():
            if row.state == OPEN and row.touched < now - STALE:
                with contextlib.suppress(Refused):  # somebody goes on with it, or throws it away, at this very moment
                    self.remove(row)
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            if path.name not in known and path.stat().st_mtime < now - STALE:
                path.unlink(missing_ok=True)


def no_upload(upload: str) -> NoReturn:
    """The same answer for what is not there and for what is none of the asker's business."""
    raise Refused(404, f"no upload '{upload}'", "`gauntlet models uploads` lists yours")


def _get(session: Session, upload: str) -> Upload:
    found = session.get(Upload, upload)
    return found if found is not None else no_upload(upload)
