"""A client of the service: submit, watch, cancel, fetch. The only file besides bench.download that talks HTTP.

client = Client("http://127.0.0.1:8642", token)
mine = client.submit(Path("suite.yaml").read_bytes())
for event in client.watch(mine["id"]):
    print(event.kind, event.data)
client.records(mine["id"], Path("records.parquet"))
"""

import hashlib
import json
import re
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import requests

from bench.errors import GauntletError, Mistake, OperatorError, SuiteError

TIMEOUT = (5.0, 60.0)  # seconds to connect, seconds between two bytes
ATTEMPTS = 6  # of a request that can be sent twice, over about half a minute
AWAY = (502, 503, 504)  # of the face, or of the proxy before it
PIECE = 4 << 20  # bytes of a file of weights in one request
CHUNK = 1 << 16
PAGE = 100  # submissions that one request lists
BUILDING = (5.0, 300.0)  # while a model is built to see whether it can be
_SUBMISSIONS, _UPLOADS, _MODELS, _ADAPTERS = "submissions", "uploads", "models", "adapters"


class ServiceError(GauntletError):
    """The service refuses. `status` is the HTTP status."""

    def __init__(self, status: int, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.status = status


@dataclass(frozen=True)
class Event:
    """What happened: `state` and `note` have `time` and `text`, `progress` is a submission."""

    kind: str
    data: dict[str, Any]
    id: int | None = None


class Client:
    """Requests are sent again where the service is away for a moment: none of them does anything twice."""

    def __init__(self, url: str, token: str) -> None:
        """Raises SuiteError for what is no address or no token, before anything is sent."""
        self._url, token = url.rstrip("/"), token.strip()
        if not (parts := urlsplit(url)).hostname or parts.scheme not in ("http", "https"):
            raise SuiteError([Mistake("--server", "", f"'{url}' is no address: http://HOST:PORT, or https://")])
        if not re.fullmatch(r"[!-~]+", token):
            raise SuiteError([Mistake("--token", "", "this is no token: gauntlet_... (`gauntlet tokens create`)")])
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy or netrc from the environment gets the token
        self._session.headers["Authorization"] = f"Bearer {token}"

    def submit(
        self, suite: bytes, *, priority: int = 0, shared: bool = False, idempotency_key: str | None = None
    ) -> dict[str, Any]:
        """Hand in a suite (YAML or JSON). Raises SuiteError with its mistakes, ServiceError."""
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex, "Content-Type": "application/yaml"}
        params = {"priority": priority, "shared": str(shared).lower()}
        return self._row("POST", "", data=suite, headers=headers, params=params)

    def get(self, submission: str) -> dict[str, Any]:
        return self._row("GET", f"/{submission}")

    def submissions(self, state: str | None = None, limit: int = PAGE) -> list[dict[str, Any]]:
        """Those that you may see, the latest first; no more than `limit`."""
        found: list[dict[str, Any]] = []
        while len(found) < limit:
            most = min(PAGE, limit - len(found))
            last = {"before": found[-1]["created"], "after": found[-1]["id"]} if found else {}
            page = self._json("GET", "", params={"state": state, "limit": most, **last})["submissions"]
            found += page
            if len(page) < most:
                break
        return found

    def cancel(self, submission: str) -> dict[str, Any]:
        return self._row("POST", f"/{submission}/cancel")

    def pause(self, submission: str) -> dict[str, Any]:
        return self._row("POST", f"/{submission}/pause")

    def resume(self, submission: str) -> dict[str, Any]:
        return self._row("POST", f"/{submission}/resume")

    def retry(self, submission: str) -> dict[str, Any]:
        """Try again what failed."""
        return self._row("POST", f"/{submission}/retry")

    def prioritise(self, submission: str, priority: int) -> dict[str, Any]:
        return self._row("PUT", f"/{submission}/priority", json={"priority": priority})

    def failures(self, submission: str) -> Any:
        return self._json("GET", f"/{submission}/failures")

    def leaderboard(self, submission: str) -> dict[str, Any]:
        return self._row("GET", f"/{submission}/leaderboard", params={"form": "json"})

    def page(self, submission: str, path: Path) -> None:
        """Write the leaderboard's page."""
        self._fetch(f"/{submission}/leaderboard", path)

    def records(self, submission: str, path: Path) -> None:
        """Write the records as Parquet."""
        self._fetch(f"/{submission}/records", path)

    # --- weights and models

    def upload(
        self, file: Path, name: str | None = None, *, told: Callable[[int, int], None] = lambda sent, size: None
    ) -> dict[str, Any]:
        """Send a file of weights; returns the upload, complete and scanned. One that was cut off is gone on with.

        name: what it is called there. told: gets the bytes sent, and all. Raises ServiceError where it is refused.
        """
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
            size = file.stat().st_size
            wanted = {"file": name or file.name, "size": size, "digest": digest}
            row = next((one for one in self.uploads() if _begun(one, wanted)), None)
            row = row or dict(self._json("POST", "", _UPLOADS, json=wanted))
            piece = PIECE
            while row["received"] < size:
                told(row["received"], size)
                content.seek(row["received"])
                try:
                    row = self._piece(row, content.read(piece))
                except ServiceError as refused:
                    if refused.status != 408 or piece <= CHUNK:
                        raise
                    piece //= 4  # the line is too slow for so much at a time
        told(size, size)
        return dict(self._json("POST", f"/{row['id']}/finish", _UPLOADS, timeout=BUILDING))

    def uploads(self) -> list[dict[str, Any]]:
        """Your uploads, the latest first; to maintainers everybody's."""
        found: list[dict[str, Any]] = self._json("GET", "", _UPLOADS)["uploads"]
        return found

    def discard(self, upload: str) -> None:
        """Throw an upload away."""
        self._send("DELETE", f"/{upload}", _UPLOADS)

    def register(self, upload: str, name: str, adapter: str, args: dict[str, Any] | None = None) -> dict[str, Any]:
        """Register an upload as the next version of a model. For maintainers."""
        wanted = {"upload": upload, "name": name, "adapter": adapter, "args": args or {}}
        return dict(self._json("POST", "", _MODELS, json=wanted, timeout=BUILDING))

    def models(self) -> list[dict[str, Any]]:
        """Every version of every registered model."""
        found: list[dict[str, Any]] = self._json("GET", "", _MODELS)["models"]
        return found

    def retire(self, name: str, version: int) -> None:
        """Take a version out of the registry. For maintainers."""
        self._send("DELETE", f"/{name}/{version}", _MODELS)

    # --- adapters

    def adapters(self) -> dict[str, Any]:
        """`adapters`: those that a suite may name, with a JSON schema of their arguments; `modules`: those that were
        registered, with what they bring."""
        return dict(self._json("GET", "", _ADAPTERS))

    def register_adapters(self, module: str) -> dict[str, Any]:
        """Register a module that is installed on the service's machines, or register it anew. For administrators."""
        return dict(self._json("POST", "", _ADAPTERS, json={"module": module}, timeout=BUILDING))

    def retire_adapters(self, module: str) -> None:
        """New suites cannot name what it brings; what was accepted goes on. For administrators."""
        self._send("DELETE", f"/{quote(module, safe='')}", _ADAPTERS)

    def _piece(self, row: dict[str, Any], piece: bytes) -> dict[str, Any]:
        headers = {"Content-Type": "application/octet-stream"}
        try:
            return dict(
                self._json(
                    "PUT", f"/{row['id']}", _UPLOADS, data=piece, headers=headers, params={"offset": row["received"]}
                )
            )
        except ServiceError as refused:
            if refused.status != 409:
                raise
            now = dict(self._json("GET", f"/{row['id']}", _UPLOADS))
            if now["received"] == row["received"]:
                raise
            return now  # a piece whose answer was lost had come after all

    def watch(self, submission: str) -> Iterator[Event]:
        """Events until the submission has ended. A connection that breaks off goes on where it was, also where the
        submission has ended meanwhile: its last events say how."""
        last: int | None = None
        told = ended = False
        while True:
            try:
                for event in self._stream(submission, last):
                    last = event.id or last
                    told = event.kind == "progress" and event.data["ended"] is not None
                    yield event
            except requests.RequestException:
                pass  # it broke off: whether the service is there is what `get` finds out, and gives up after a while
            except ServiceError as refused:
                if refused.status not in AWAY:
                    raise
            if told or ended:
                return
            ended = self.get(submission)["ended"] is not None
            if not ended:
                time.sleep(1.0)

    def _stream(self, submission: str, last: int | None) -> Iterator[Event]:
        headers = {"Last-Event-ID": str(last)} if last else {}
        with self._session.get(
            f"{self._url}/v1/submissions/{submission}/events", headers=headers, stream=True, timeout=TIMEOUT
        ) as answer:
            _check(answer)
            fields: dict[str, str] = {}
            for raw in answer.iter_lines(chunk_size=1):
                line = raw.decode()
                if line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                elif "data" in fields:
                    yield Event(
                        fields["event"], json.loads(fields["data"]), int(fields["id"]) if "id" in fields else None
                    )
                    fields = {}

    def _fetch(self, path: str, to: Path) -> None:
        with self._send("GET", path, stream=True) as answer, to.open("wb") as file:
            for chunk in answer.iter_content(CHUNK):
                file.write(chunk)

    def _row(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        return dict(self._json(method, path, **more))

    def _json(self, method: str, path: str, kind: str = _SUBMISSIONS, **more: Any) -> Any:
        answer = self._send(method, path, kind, **more)
        try:
            return answer.json()
        except ValueError:
            raise ServiceError(
                answer.status_code, f"what answers at {self._url} is no service of Gauntlet's", "is --server right?"
            ) from None

    def _send(
        self, method: str, path: str, kind: str = _SUBMISSIONS, timeout: tuple[float, float] = TIMEOUT, **more: Any
    ) -> requests.Response:
        full = method == "POST" and timeout is not BUILDING  # a quota, which waiting does not help
        url = f"{self._url}/v1/{kind}{path}"
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(min(10.0, 0.5 * 2.0**attempt))
            try:
                answer = self._session.request(method, url, timeout=timeout, allow_redirects=False, **more)
            except (requests.ConnectionError, requests.Timeout) as problem:
                why = type(problem).__name__
                continue
            if answer.status_code not in AWAY and (answer.status_code != 429 or full):
                return _check(answer)
            why = f"HTTP {answer.status_code}"
        if why == "HTTP 429":
            return _check(answer)
        raise OperatorError(f"the service at {self._url} does not answer: {why}", "is it up? (`gauntlet up`)")


def _begun(upload: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether it is this file, begun before and not registered yet."""
    return upload["state"] != "registered" and all(upload[key] == value for key, value in wanted.items())


def _check(answer: requests.Response) -> requests.Response:
    """Raises SuiteError, ServiceError."""
    if answer.status_code < 300:
        return answer
    try:
        told = dict(answer.json())
    except ValueError:
        told = {
            "error": f"HTTP {answer.status_code} {answer.reason}: no answer of Gauntlet's",
            "hint": "is --server right?",
        }
    if answer.status_code == 400 and told.get("mistakes"):
        raise SuiteError([Mistake("", "", mistake) for mistake in told["mistakes"]], str(told.get("hint", "")))
    more = "".join(f"\n  {mistake}" for mistake in told.get("mistakes", ()))
    raise ServiceError(answer.status_code, f"{told.get('error', 'refused')}{more}", str(told.get("hint", "")))
