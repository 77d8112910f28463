"""A client of the service: submit, watch, cancel, fetch. The only file besides bench.download that talks HTTP.

client = Client("http://127.0.0.1:8642", token)
mine = client.submit(Path("suite.yaml").read_bytes())
for event in client.watch(mine["id"]):
    print(event.kind, event.data)
client.records(mine["id"], Path("records.parquet"))
"""

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from bench.errors import GauntletError, Mistake, OperatorError, SuiteError

TIMEOUT = (5.0, 60.0)  # seconds to connect, seconds between two bytes
ATTEMPTS = 6  # of a request that can be sent twice, over about half a minute
AGAIN = (429, 503)
CHUNK = 1 << 16


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
        self._url = url.rstrip("/")
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

    def submissions(self, state: str | None = None) -> list[dict[str, Any]]:
        """Those that you may see, the latest first; no more than a page."""
        found: list[dict[str, Any]] = self._json("GET", "", params={"state": state} if state else None)["submissions"]
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

    def watch(self, submission: str) -> Iterator[Event]:
        """Events until the submission has ended. A connection that breaks off goes on where it was."""
        last: int | None = None
        while True:
            try:
                for event in self._stream(submission, last):
                    last = event.id or last
                    yield event
                if self.get(submission)["ended"] is not None:
                    return
            except requests.RequestException:
                time.sleep(1.0)
                self.get(submission)  # which gives up after a while

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

    def _json(self, method: str, path: str, **more: Any) -> Any:
        return self._send(method, path, **more).json()

    def _send(self, method: str, path: str, **more: Any) -> requests.Response:
        url = f"{self._url}/v1/submissions{path}"
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(min(10.0, 0.5 * 2.0**attempt))
            try:
                answer = self._session.request(method, url, timeout=TIMEOUT, allow_redirects=False, **more)
            except (requests.ConnectionError, requests.Timeout) as problem:
                why = type(problem).__name__
                continue
            if answer.status_code not in AGAIN or (answer.status_code == 429 and method == "POST"):
                return _check(answer)
            why = f"HTTP {answer.status_code}"
        raise OperatorError(f"the service at {self._url} does not answer: {why}", "is it up? (`gauntlet up`)")


def _check(answer: requests.Response) -> requests.Response:
    """Raises SuiteError, ServiceError."""
    if answer.ok:
        return answer
    try:
        told = dict(answer.json())
    except ValueError:
        told = {"error": f"HTTP {answer.status_code} {answer.reason}: no answer of Gauntlet's"}
    if answer.status_code == 400 and told.get("mistakes"):
        raise SuiteError([Mistake("", "", mistake) for mistake in told["mistakes"]])
    more = "".join(f"\n  {mistake}" for mistake in told.get("mistakes", ()))
    raise ServiceError(answer.status_code, f"{told.get('error', 'refused')}{more}", str(told.get("hint", "")))
