"""What a request's body may cost: so many bytes and so many seconds, whoever sends it and whatever reads it.

FastAPI reads JSON before anybody is asked who they are, so this cannot be left to the functions behind the paths.
"""

import asyncio

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SLOW = 30.0  # seconds that a body may take to come


class TooMuch(HTTPException):
    """413 or 408. An HTTPException, since FastAPI makes 400 of every other one that comes while it reads."""

    def __init__(self, status: int, message: str, hint: str = "") -> None:
        super().__init__(status, message)
        self.hint = hint


class Bodies:
    """most: bytes of a body. pieces: of those that are pieces of an upload."""

    def __init__(self, app: ASGIApp, most: int, pieces: int) -> None:
        self._app = app
        self._most = most
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        piece = scope["method"] == "PUT" and scope["path"].startswith("/v1/uploads/")
        most = self._pieces if piece else self._most
        until, came, more = asyncio.get_running_loop().time() + SLOW, 0, True

        async def limited() -> Message:
            nonlocal came, more
            if not more:  # from here on it only waits for the sender to go away
                return await receive()
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError:
                raise TooMuch(408, f"the body did not come within {SLOW:g} s", "send less at a time") from None
            came += len(message.get("body", b""))
            more = message.get("more_body", False)
            if came > most:
                hint = "send smaller pieces" if piece else "a suite names its data"
                raise TooMuch(413, f"larger than {most >> 10} KiB", hint)
            return message

        await self._app(scope, limited, send)
