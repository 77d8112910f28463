"""Who may do what: tokens, roles, scopes, owners, and how often.

A token is `gauntlet_ID_SECRET` with 256 random bits. Its SHA-256 is kept: bits that nobody can guess need no slow hash.
"""

import base64
import binascii
import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from threading import Lock

from sqlalchemy import select

from bench.errors import OperatorError, did_you_mean
from bench.service.database import Audit, Database, Submission, Token, Upload, User
from bench.service.queue import Refused, missing
from bench.service.uploads import no_upload

TOKEN = re.compile(r"gauntlet_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
KEY = re.compile(r"([0-9a-f]{12})\.([0-9]{10})\.([0-9a-f]{64})")
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
DAYS = 366  # a token lasts no longer
LINK = 60.0  # seconds that a link lasts, which opens one thing without a token


class Role(StrEnum):
    """What a user is, each more than the one before."""

    READER = "reader"
    SUBMITTER = "submitter"
    MAINTAINER = "maintainer"
    ADMIN = "admin"


class Verb(StrEnum):
    """What a token may be good for: to look, to hand in, to change what was handed in, to register and retire models,
    to register and retire modules of adapters, to read the audit log."""

    READ = "read"
    SUBMIT = "submit"
    CONTROL = "control"
    REGISTER = "register"
    EXTEND = "extend"
    AUDIT = "audit"


VERBS: dict[Role, frozenset[Verb]] = {
    Role.READER: frozenset({Verb.READ}),
    Role.SUBMITTER: frozenset({Verb.READ, Verb.SUBMIT, Verb.CONTROL}),
    Role.MAINTAINER: frozenset({Verb.READ, Verb.SUBMIT, Verb.CONTROL, Verb.REGISTER}),
    Role.ADMIN: frozenset(Verb),
}
OTHERS = (Role.MAINTAINER, Role.ADMIN)  # who may see and control what is not their own


@dataclass(frozen=True)
class Identity:
    """Whoever sends a request: the user of the token, and what the token is good for."""

    user: str
    role: Role
    token: str
    scopes: frozenset[Verb]

    @property
    def owners(self) -> list[str] | None:
        """Whose submissions are listed besides those that are shared; None: everybody's."""
        return None if self.role in OTHERS else [self.user]

    def need(self, verb: Verb) -> None:
        """Raises Refused: 403, and says whether the role or the token is too small."""
        if verb not in VERBS[self.role]:
            raise Refused(403, f"a {self.role} may not {verb}", "ask an administrator for another role")
        if verb not in self.scopes:
            has = ", ".join(sorted(self.scopes))
            raise Refused(403, f"this token is not good for '{verb}' (it is for: {has})", "use another token")

    def see(self, submission: Submission) -> Submission:
        """Raises Refused: 404 where it is somebody else's: whether it exists is their business."""
        self.need(Verb.READ)
        if not (submission.shared or submission.owner == self.user or self.role in OTHERS):
            missing(submission.id)
        return submission

    def handle(self, upload: Upload) -> Upload:
        """Raises Refused: 404 where it is somebody else's."""
        self.need(Verb.SUBMIT)
        if upload.owner != self.user and self.role not in OTHERS:
            no_upload(upload.id)
        return upload

    def control(self, submission: Submission) -> Submission:
        """Raises Refused: 404 for what they may not see, 403 for what they may only see."""
        self.need(Verb.CONTROL)
        if submission.owner != self.user and self.role not in OTHERS:
            if not submission.shared:
                missing(submission.id)
            raise Refused(403, f"'{submission.id}' belongs to '{submission.owner}'", "only they may change it")
        return submission


class Access:
    """Tokens in a database, and the audit log."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def create(self, user: str, role: Role, scopes: Sequence[Verb] = (), days: float = 90, note: str = "") -> str:
        """A new token, which is shown this once. The user gets this role, and is made where there is none."""
        if not NAME.fullmatch(user):
            raise OperatorError(f"'{user}' is no name of a user", "lower-case letters, digits, '-', '_' and '.'")
        if not 0 < days <= DAYS:
            raise OperatorError(f"a token lasts up to {DAYS} days, not {days:g}", "make a new one when it has expired")
        if beyond := set(scopes) - VERBS[role]:
            raise OperatorError(f"a {role} may not {', '.join(sorted(beyond))}", "choose another role or other scopes")
        secret, name, now = secrets.token_urlsafe(32), secrets.token_hex(6), self._clock()
        with self._database.writing() as session:
            known = session.get(User, user)
            if known is None:
                session.add(User(name=user, role=role, created=now))
                session.flush()
            else:
                known.role = role
            chosen = sorted(scopes or VERBS[role])
            session.add(
                Token(
                    id=name, digest=_digest(secret), owner=user, scopes=chosen, note=note[:200],
                    created=now, expires=now + days * 86400,
                )
            )  # fmt: skip
            session.add(self._here("create token", f"{name} of {user}, {role}", 201))
        return f"gauntlet_{name}_{secret}"

    def tokens(self) -> list[tuple[Token, str]]:
        """All tokens with their users' roles, the latest first."""
        with self._database.reading() as session:
            roles = {user.name: user.role for user in session.scalars(select(User))}
            return [
                (token, roles[token.owner]) for token in session.scalars(select(Token).order_by(Token.created.desc()))
            ]

    def revoke(self, name: str) -> None:
        """Raises OperatorError for a token that is not there."""
        with self._database.writing() as session:
            found = session.get(Token, name)
            if found is None:
                near = did_you_mean(name, session.scalars(select(Token.id)))
                raise OperatorError(f"no token '{name}'{near}", "`gauntlet tokens list` shows their ids")
            found.revoked = found.revoked or self._clock()
            session.add(self._here("revoke token", f"{name} of {found.owner}", 204))

    def identify(self, header: str | None, *, basic: bool = False) -> Identity:
        """Whose `Authorization` header this is. basic: a browser's, with the token as the password, is good, too.

        Raises Refused: 401, without saying what is wrong with a token.
        """
        scheme, _, text = (header or "").partition(" ")
        secret = text.strip() if scheme.lower() == "bearer" else _password(text) if basic else ""
        match = TOKEN.fullmatch(secret)
        if match is None:
            raise Refused(
                401,
                "this is no token" if secret else "no token",
                "a token begins with gauntlet_, and is sent as `Authorization: Bearer gauntlet_...`: whoever runs the "
                "service makes one by `gauntlet tokens create`",
            )
        found, user = self._valid(match[1])
        if not hmac.compare_digest(found.digest if found else "", _digest(match[2])):
            raise _worthless()
        return _identity(found, user)

    def again(self, me: Identity) -> Identity:
        """The same token a while later. Raises Refused: 401 where it has expired, or was revoked, meanwhile."""
        return _identity(*self._valid(me.token))

    def link(self, me: Identity, place: str) -> str:
        """A key that lets anybody read this one place for LINK seconds: following a link sends no token."""
        me.need(Verb.READ)
        found, _ = self._valid(me.token)
        if found is None:
            raise _worthless()
        ends = f"{int(self._clock() + LINK):010}"
        return f"{found.id}.{ends}.{_sign(found, place, ends)}"

    def follow(self, key: str, place: str) -> Identity:
        """Who made the key, as somebody who may read. Raises Refused: 401."""
        match = KEY.fullmatch(key)
        found, user = self._valid(match[1]) if match else (None, None)
        if (
            match is None or found is None or user is None or int(match[2]) <= self._clock()
            or not hmac.compare_digest(_sign(found, place, match[2]), match[3])
        ):  # fmt: skip
            raise Refused(401, "this link is not good any more", "ask for a new one")
        return Identity(user.name, Role(user.role), found.id, frozenset({Verb.READ}))

    def _valid(self, token: str) -> tuple[Token | None, User | None]:
        with self._database.reading() as session:
            found = session.get(Token, token)
            if found is None or found.revoked or found.expires <= self._clock():
                return None, None
            return found, session.get(User, found.owner)

    def audit(self, who: Identity | None, address: str, verb: str, object_: str, status: int) -> None:
        entry = Audit(
            time=self._clock(), owner=who and who.user, token=who and who.token, address=address[:64], verb=verb[:32],
            object=object_[:200], status=status,
        )  # fmt: skip
        with self._database.writing() as session:
            session.add(entry)

    def _here(self, verb: str, object_: str, status: int) -> Audit:
        """What an account of this machine did, without a token."""
        return Audit(time=self._clock(), address=f"uid {os.getuid()}", verb=verb, object=object_, status=status)

    def audited(self, limit: int, before: int | None = None) -> list[Audit]:
        """The latest entries first. before: those with a lower id."""
        asked = select(Audit).order_by(Audit.id.desc()).limit(limit)
        if before is not None:
            asked = asked.where(Audit.id < before)
        with self._database.reading() as session:
            return list(session.scalars(asked))


class RateLimit:
    """A bucket of requests for each name: `burst` at once, `rate` more every second. In the memory of one process."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._left: dict[str, tuple[float, float]] = {}
        self._lock = Lock()

    def take(self, name: str, cost: float = 1.0) -> None:
        """Raises Refused: 429."""
        with self._lock:
            now = self._clock()
            left, seen = self._left.pop(name, (self._burst, now))
            left = min(self._burst, left + (now - seen) * self._rate)
            if len(self._left) > 10_000:  # the oldest are full again anyway
                del self._left[next(iter(self._left))]
            self._left[name] = (left - cost if left >= cost else left, now)
            if left < cost:
                raise Refused(429, "too many requests", f"again in {(cost - left) / self._rate:.1f} s")


def _identity(token: Token | None, user: User | None) -> Identity:
    if token is None or user is None:
        raise _worthless()
    return Identity(user.name, Role(user.role), token.id, frozenset(map(Verb, token.scopes)))


def _worthless() -> Refused:
    return Refused(401, "this token is unknown, expired or revoked", "ask an administrator for a new one")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _sign(token: Token, place: str, ends: str) -> str:
    return hmac.new(token.digest.encode(), f"{ends} {place}".encode(), hashlib.sha256).hexdigest()


def _password(text: str) -> str:
    """Of `Basic`: RFC 7617, section 2."""
    try:
        return base64.b64decode(text.strip(), validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""
