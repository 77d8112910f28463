"""Streams of events: who gets how many, and how long."""

import json
import threading
import time
from collections.abc import Iterator

import pytest
import requests
from sqlalchemy import delete

from bench.client import ServiceError
from bench.service import stream
from bench.service.access import Role
from bench.service.database import Event, Submission
from bench.service.face import face
from bench.service.retention import Days, Retention
from tests.service.house import PATIENCE, House, house, serving

__all__ = ["house"]  # a fixture


def opened(url: str, token: str, submission: str) -> requests.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return requests.get(f"{url}/v1/submissions/{submission}/events", headers=headers, stream=True, timeout=PATIENCE)


@pytest.fixture
def fresh(house: House) -> Iterator[str]:
    """A face of which nobody has a stream yet: a stream that was closed is noticed only as it goes on."""
    with serving(face(house.database, house.folder, rate=10_000)) as url:
        yield url


def test_a_stream_ends_soon_after_its_token_was_revoked(house: House, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stream, "ASK", 0.5)
    token = house.token("leaver")
    row, _ = house.queue.submit("leaver", "s", "name: s\n")
    answer = opened(house.url, token, row.id)
    content = answer.iter_content(1)
    assert next(content)
    house.access.revoke(token.split("_")[1])
    deadline = time.monotonic() + 60
    for _ in content:  # with its signs of life, where it does not end
        assert time.monotonic() < deadline
    assert opened(house.url, token, row.id).status_code == 401


def test_a_stream_ends_when_its_reader_is_no_maintainer_any_more(house: House, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stream, "ASK", 0.5)
    house.token("somebody")
    row, _ = house.queue.submit("somebody", "s", "name: s\n")
    client = house.client("demoted", Role.MAINTAINER)
    seen = client.watch(row.id)
    assert next(seen).data["text"] == "queued"
    house.token("demoted", Role.READER)
    with pytest.raises(ServiceError, match="no submission"):
        for _ in seen:
            pass


def test_a_user_has_so_many_streams_however_quickly_they_ask(house: House, fresh: str):
    token = house.token("greedy")
    row, _ = house.queue.submit("greedy", "s", "name: s\n")
    answers: list[requests.Response] = []
    threads = [
        threading.Thread(target=lambda: answers.append(opened(fresh, token, row.id))) for _ in range(2 * stream.MOST)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    good = [answer for answer in answers if answer.status_code == 200]
    assert {answer.status_code for answer in answers} <= {200, 429}
    bytes_ = [answer.iter_content(1) for answer in good]  # a generator that is forgotten closes its connection
    assert sum(bool(next(each, b"")) for each in bytes_) == stream.MOST
    assert opened(fresh, token, row.id).status_code == 429
    assert opened(fresh, house.token("other", Role.MAINTAINER), row.id).status_code == 200
    for answer in answers:
        answer.close()
    deadline = time.monotonic() + 60
    while (again := opened(fresh, token, row.id)).status_code == 429 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert again.status_code == 200, "what was closed counts no more"
    house.queue.cancel(row.id)
    assert b"canceled" in again.content


def test_all_users_together_leave_connections_for_everything_else(
    house: House, fresh: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(stream, "ALL", 2)
    token = house.token("many")
    row, _ = house.queue.submit("many", "s", "name: s\n")
    answers = [opened(fresh, token, row.id) for _ in range(2)]
    bytes_ = [answer.iter_content(1) for answer in answers]
    assert all(next(each) for each in bytes_)
    refused = opened(fresh, house.token("one-more", Role.MAINTAINER), row.id)
    assert (refused.status_code, refused.json()["error"]) == (429, "2 streams are open")
    headers = {"Authorization": f"Bearer {token}"}
    assert requests.get(f"{fresh}/v1/submissions/{row.id}", headers=headers, timeout=PATIENCE).status_code == 200
    for answer in answers:
        answer.close()
    house.queue.cancel(row.id)


def test_a_face_that_ends_ends_its_streams_and_does_not_wait_for_them(house: House):
    token = house.token("left-alone")
    row, _ = house.queue.submit("left-alone", "s", "name: s\n")
    with serving(face(house.database, house.folder)) as url:
        content = opened(url, token, row.id).iter_content(1)
        assert next(content)
    rest = b"".join(content)  # it ends as it should: nothing is cut off in the middle
    assert b"queued" in rest
    house.queue.cancel(row.id)


def test_who_goes_on_after_events_that_are_kept_no_longer_gets_what_there_is(house: House):
    """The submission as it is now, and what happened since; then the stream ends as ever."""
    token = house.token("slow")
    row, _ = house.queue.submit("slow", "s", "name: s\n")
    house.queue.cancel(row.id)
    last = house.queue.events(row.id)[-1].id
    house.queue.retry(row.id)
    days, later = Days(events=1), lambda: time.time() + 3 * 86400
    house.queue.cancel(row.id)
    other, _ = house.queue.submit("slow", "s", "name: s\n")
    Retention(house.database, days, house.folder, later).forget(threading.Event())
    assert house.queue.events(row.id) == []
    url, headers = f"{house.url}/v1/submissions/{row.id}/events", {"Authorization": f"Bearer {token}"}
    for after in (0, last, 2**31 - 1):
        answer = requests.get(url, headers={**headers, "Last-Event-ID": str(after)}, timeout=PATIENCE)
        lines = answer.text.split("\n")
        assert (answer.status_code, lines[0]) == (200, "event: progress")
        assert json.loads(lines[1].removeprefix("data: "))["state"] == "canceled"
        assert len(lines) == 4, "nothing else, and it has ended"
    house.queue.retry(row.id)
    house.queue.cancel(row.id)
    answer = requests.get(url, headers={**headers, "Last-Event-ID": str(last)}, timeout=PATIENCE)
    told = [json.loads(line[6:]).get("text") for line in answer.text.split("\n") if line.startswith("data: ")]
    assert told == ["queued", "canceled", None]
    house.queue.cancel(other.id)


def test_a_stream_of_a_submission_that_is_removed_ends(house: House):
    token = house.token("watcher")
    row, _ = house.queue.submit("watcher", "s", "name: s\n")
    content = opened(house.url, token, row.id).iter_content(1)
    assert next(content)
    with house.database.writing() as session:
        for table, key in ((Event, Event.submission), (Submission, Submission.id)):
            session.execute(delete(table).where(key == row.id))
    assert b"queued" in b"".join(content), "and it was not cut off in the middle"
    assert opened(house.url, token, row.id).status_code == 404
