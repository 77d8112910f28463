"""The door of the face: who comes in, and how often."""

from collections.abc import Callable
from typing import Annotated

from fastapi import Header, Query, Request

from bench.service.access import Access, Identity, RateLimit, Verb
from bench.service.queue import Refused


class Door:
    """rate: requests per second of one user, of which five seconds' worth may come at once."""

    def __init__(self, access: Access, rate: float) -> None:
        self.access = access
        self._limit = RateLimit(rate, 5 * rate)
        self._guesses = RateLimit(0.2, 20)

    def who(self, request: Request, authorization: Annotated[str | None, Header()] = None) -> Identity:
        """Whoever sends this request. Raises Refused: 401, 429."""
        return self._let_in(request, lambda: self.access.identify(authorization), guess=bool(authorization))

    def asked(
        self,
        request: Request,
        authorization: Annotated[str | None, Header()] = None,
        need: Annotated[Verb | None, Query()] = None,
    ) -> Identity:
        """The same for a proxy that asks whether to let somebody through. A browser may say its token as a password,
        and can only look with it: another site can make a browser send passwords. Raises Refused: 403 as well."""
        identify = lambda: self.access.identify(authorization, basic=True)  # noqa: E731
        found = self._let_in(request, identify, guess=bool(authorization))
        if need is not None:
            found.need(need)
        if need not in (None, Verb.READ) and (authorization or "").lower().startswith("basic"):
            raise Refused(403, "a token that is said as a password is good for looking only", "send it as a Bearer")
        return found

    def visitor(
        self,
        request: Request,
        authorization: Annotated[str | None, Header()] = None,
        key: Annotated[str | None, Query(max_length=128)] = None,
    ) -> Identity:
        """Whoever sends this request, or whoever made the link that leads here."""
        if key is None:
            return self.who(request, authorization)
        return self._let_in(request, lambda: self.access.follow(key, request.url.path), guess=True)

    def _let_in(self, request: Request, identify: Callable[[], Identity], *, guess: bool) -> Identity:
        try:
            found = identify()
        except Refused as refused:
            if refused.status == 401 and guess:
                self._guesses.take(address(request))
                self.access.audit(None, address(request), "identify", "", 401)
            raise
        self._limit.take(found.user)
        request.state.me = found  # for the audit log
        return found


def address(request: Request) -> str:
    """Where a request comes from."""
    return request.client.host if request.client else ""
