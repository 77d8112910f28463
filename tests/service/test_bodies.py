"""What a stranger may make the face hold: so many bytes, for so many seconds, on so few connections."""

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bench.service import bodies, server, shapes
from bench.service.face import face
from bench.service.intake import MAX_BYTES
from bench.service.uploads import PIECE
from tests.service.house import PATIENCE, House, announced, house, serving

__all__ = ["house"]  # a fixture
READ_FIRST = {  # FastAPI reads the bodies of these before it asks for a token
    "priority": ("PUT", "/v1/submissions/x/priority"),
    "announce": ("POST", "/v1/uploads"),
    "register": ("POST", "/v1/models"),
}


def connect(url: str) -> http.client.HTTPConnection:
    place = urlsplit(url)
    return http.client.HTTPConnection(str(place.hostname), place.port, timeout=PATIENCE)


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("what", READ_FIRST)
def test_nobody_without_a_token_makes_the_face_hold_a_large_body(house: House, what: str, declared: bool):
    method, path = READ_FIRST[what]
    connection = connect(house.url)
    headers = {"Content-Type": "application/json"}
    sent = b" " * (MAX_BYTES + 65_536)
    if declared:
        connection.request(method, path, sent, headers)
    else:
        connection.request(method, path, iter([sent[:65536]] * 5), headers, encode_chunked=True)
    answer = connection.getresponse()
    problem = shapes.Problem.model_validate_json(answer.read())
    assert (answer.status, problem.error) == (413, "larger than 256 KiB")
    connection.close()


def test_a_piece_of_an_upload_may_be_larger_and_no_larger_than_that(house: House):
    token = house.token("piece-by-piece")
    content = b"x" * PIECE
    made = house.call("POST", "/v1/uploads", token, json=announced(b"x" * 1_900_000)).json()["id"]
    assert house.call("PUT", f"/v1/uploads/{made}?offset=0", token, data=content[:1_900_000]).status_code == 200
    large = house.call("PUT", f"/v1/uploads/{made}?offset=0", token, data=content + b"x")
    assert (large.status_code, large.json()["hint"]) == (413, "send smaller pieces")
    elsewhere = house.call("POST", f"/v1/uploads/{made}/../{made}", token, data=content)
    assert elsewhere.status_code in (405, 413)
    house.call("DELETE", f"/v1/uploads/{made}", token)


@pytest.fixture
def hasty(house: House, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A face that does not wait long for a body."""
    monkeypatch.setattr(bodies, "SLOW", 0.6)
    with serving(face(house.database, house.folder)) as url:
        yield url


@pytest.fixture
def prompt(house: House, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A face that does not wait long for a request."""
    monkeypatch.setattr(server, "IDLE", 1)
    with serving(face(house.database, house.folder)) as url:
        yield url


@pytest.mark.parametrize("what", READ_FIRST)
def test_a_body_that_drips_is_given_up_whoever_sends_it(hasty: str, what: str):
    method, path = READ_FIRST[what]
    connection = connect(hasty)
    connection.putrequest(method, path)
    for name, value in {"Content-Type": "application/json", "Content-Length": "100"}.items():
        connection.putheader(name, value)
    connection.endheaders(b"{")
    answer = connection.getresponse()
    assert answer.status == 408
    assert json.loads(answer.read())["error"] == "the body did not come within 0.6 s"
    connection.close()


DRIPS = {
    "nothing at all": (b"", b""),
    "headers without an end": (b"GET /health HTTP/1.1\r\nHost: x\r\n", b"X: y\r\n"),
    "a second request without an end": (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /hea", b"l"),
    "the rest of a body that was refused": (
        b"PUT /v1/submissions/x/priority HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n" + b"x" * 300_000, b"x"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", DRIPS)
def test_a_connection_that_brings_no_request_is_closed_however_often_a_byte_comes(prompt: str, what: str):
    first, drip = DRIPS[what]
    place = urlsplit(prompt)
    with socket.create_connection((place.hostname, place.port), timeout=PATIENCE) as connection:
        deadline, open_, send = time.monotonic() + 60, True, first
        while open_ and time.monotonic() < deadline:
            try:
                connection.settimeout(PATIENCE)
                connection.sendall(send)
                send = drip
                connection.settimeout(0.1)
                open_ = bool(connection.recv(65536))
            except TimeoutError:
                continue
            except (ConnectionResetError, BrokenPipeError):
                open_ = False
        assert not open_


def test_a_stream_of_events_outlives_that_patience(house: House, prompt: str, tmp_path: Path):
    token = house.token("streamer")
    row, _ = house.queue.submit("streamer", "s", "name: s\n")
    connection, answer = connect(prompt), None
    while answer is None:  # whoever stands still between connecting and asking is hung up on, and asks anew
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            connection.close()
            connection.request("GET", f"/v1/submissions/{row.id}/events", headers={"Authorization": f"Bearer {token}"})
            answer = connection.getresponse()
    time.sleep(2.5)
    house.queue.cancel(row.id)
    assert b"canceled" in answer.read()
    connection.close()
