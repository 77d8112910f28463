"""The client and its commands: wrong words, wrong addresses, and services that go away."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from bench.__main__ import main
from bench.client import Client, Event, ServiceError
from bench.errors import OperatorError, SuiteError
from bench.records import Failure, Reason
from bench.runs import Run
from bench.service.access import Role
from bench.service.database import State
from tests.service.house import House, house

__all__ = ["house"]  # a fixture
TOKEN = "gauntlet_000000000000_" + "x" * 43


@pytest.fixture
def somebody_else() -> Iterator[str]:
    """A web server that is no service of Gauntlet's: pages at every address, and elsewhere at /v1/models."""

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302 if "models" in self.path else 200)
            self.send_header("Location", "http://127.0.0.1:1/")
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *_: object) -> None:
            """Not a word."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("url", ["localhost:8642", "127.0.0.1", "htp://x", "http://", "", "file:///etc/passwd"])
def test_what_is_no_address_is_told_before_anything_is_sent(url: str, capsys: pytest.CaptureFixture[str]):
    assert main(["submissions", "--server", url, "--token", TOKEN]) == 2
    assert f"--server: '{url}' is no address: http://HOST:PORT" in capsys.readouterr().err


@pytest.mark.parametrize("token", ["", " ", "a b", "a\nb", "gauntlet_ü", "\x00"])
def test_what_is_no_token_is_told_before_anything_is_sent(token: str):
    with pytest.raises(SuiteError, match="this is no token"):
        Client("http://127.0.0.1:1", token)
    assert Client("http://127.0.0.1:1", f" {TOKEN}\n")._session.headers["Authorization"] == f"Bearer {TOKEN}"


def test_another_web_server_is_named_as_such(somebody_else: str):
    client = Client(somebody_else, TOKEN)
    with pytest.raises(ServiceError, match="is no service of Gauntlet's"):
        client.submissions()
    with pytest.raises(ServiceError, match=r"HTTP 302 .*no answer of Gauntlet's"):
        client.models()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["submissions", "--state", "qeued"], 2, "--state: no 'qeued' - did you mean 'queued'?"),
        (["prioritise", "x", "11"], 2, "for 'PRIORITY': "),
        (["prioritise", "x", "high"], 2, "for 'PRIORITY': Input should be a valid integer"),
        (["cancel", "nothing-here"], 1, "no submission 'nothing-here'"),
        (["watch", "../x"], 1, "Not Found"),
        (["failures", "nothing-here"], 1, "no submission 'nothing-here'"),
    ],
)
def test_wrong_words_are_told_with_the_right_ones(
    house: House, words: list[str], code: int, told: str, capsys: pytest.CaptureFixture[str]
):
    assert main([*words, "--server", house.url, "--token", house.token("typo")]) == code
    assert told in capsys.readouterr().err


def test_a_priority_may_be_negative_on_the_command_line(house: House, capsys: pytest.CaptureFixture[str]):
    row, _ = house.queue.submit("minus", "s", "t") if house.token("minus") else (None, False)
    assert row is not None
    assert main(["prioritise", row.id, "-3", "--server", house.url, "--token", house.token("minus")]) == 0
    assert house.queue.get(row.id).priority == -3


def test_more_than_a_page_is_listed_and_what_is_left_out_is_said(house: House, capsys: pytest.CaptureFixture[str]):
    token = house.token("prolific")
    made = [house.queue.submit("prolific", "s", "t")[0].id for _ in range(205)]
    for each in made:
        house.queue.cancel(each)
    client = Client(house.url, token)
    listed = [row["id"] for row in client.submissions(limit=1000) if row["owner"] == "prolific"]
    assert (len(listed), set(listed)) == (205, set(made))
    assert len(client.submissions(limit=150)) == 150
    place = ["--server", house.url, "--token", token, "--format", "json"]
    assert main(["submissions", "--limit", "110", *place]) == 0
    printed = capsys.readouterr()
    assert len(json.loads(printed.out)) == 110
    assert "there may be more than these 110" in printed.err


def test_an_id_is_in_one_piece_on_a_narrow_terminal(
    house: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("COLUMNS", "60")
    token = house.token("narrow-screen")
    row, _ = house.queue.submit("narrow-screen", "a-name-of-a-suite-that-is-long", "t")
    assert main(["submissions", "--server", house.url, "--token", token]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:3] == [row.id, "narrow-screen", "queued"], "a program that reads it gets whole lines"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert main(["submissions", "--server", house.url, "--token", token]) == 0
    printed = capsys.readouterr().out
    assert f"id: {row.id}\nowner: narrow-screen\nstate: queued\n" in printed
    assert "None" not in printed, "what is not known yet is left out"
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["submissions", "--server", house.url, "--token", token]) == 0
    wide = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert re.search(rf"^{row.id}  narrow-screen +queued ", wide, re.MULTILINE)


def test_what_failed_is_listed_with_the_reason(house: House, capsys: pytest.CaptureFixture[str]):
    token = house.token("unlucky")
    row, _ = house.queue.submit("unlucky", "s", "t")
    failure = Failure(
        key="k", model="m", dataset="d", evaluation="pgd", start=0, stop=8, reason=Reason.ADAPTER, message="it broke",
        details="Traceback", attempts=3,
    )  # fmt: skip
    run = Run(house.folder, row.id)
    run.folder.mkdir(parents=True)
    (run.folder / "status.json").write_text("{}")
    (run.folder / "failures.jsonl").write_text(failure.model_dump_json() + "\n")
    place = ["--server", house.url, "--token", token]
    assert main(["failures", row.id, *place]) == 0
    table = capsys.readouterr().out
    assert "it broke" in table
    assert "Traceback" not in table
    assert main(["failures", row.id, *place, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["details"] == "Traceback"


def test_watching_goes_on_where_a_proxy_says_that_the_face_is_away(house: House, monkeypatch: pytest.MonkeyPatch):
    client = house.client("patient")
    row, _ = house.queue.submit("patient", "s", "t")
    honest, refused = client._session.get, [502, 504]

    def proxied(url: str, **more: object) -> requests.Response:
        if not refused:
            return honest(url, **more)  # type: ignore[arg-type]
        answer = requests.Response()
        answer.status_code, answer.raw = refused.pop(), None
        return answer

    monkeypatch.setattr(client._session, "get", proxied)
    monkeypatch.setattr("bench.client.time.sleep", lambda _: house.queue.cancel(row.id))
    seen: list[Event] = list(client.watch(row.id))
    assert refused == []
    assert house.queue.get(row.id).state == State.CANCELED
    assert [event.data["text"] for event in seen if event.kind == "state"] == ["queued", "canceled"]
    assert seen[-1].data["ended"] is not None


def test_a_line_too_slow_for_large_pieces_gets_smaller_ones(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    client = house.client("slow-line")
    content = bytes(range(256)) * 6000
    (tmp_path / "w.pt").write_bytes(content)
    honest, sizes = client._session.request, []

    def slow(method: str, url: str, **more: object) -> requests.Response:
        if method != "PUT":
            return honest(method, url, **more)  # type: ignore[arg-type]
        sizes.append(len(more["data"]))  # type: ignore[arg-type]
        if sizes[-1] <= 1 << 20:
            return honest(method, url, **more)  # type: ignore[arg-type]
        answer = requests.Response()
        answer.status_code, answer._content = 408, b'{"error": "the body did not come within 30 s"}'
        return answer

    monkeypatch.setattr(client._session, "request", slow)
    with pytest.raises(ServiceError, match="neither safetensors"):  # every byte has come, and they are no model
        client.upload(tmp_path / "w.pt")
    assert sizes == [len(content), 1 << 20, len(content) - (1 << 20)]


def test_a_token_that_was_revoked_ends_a_watch_with_the_reason(house: House):
    token = house.token("watcher-out", Role.SUBMITTER)
    client = Client(house.url, token)
    row, _ = house.queue.submit("watcher-out", "s", "t")
    house.access.revoke(token.split("_")[1])
    with pytest.raises(ServiceError, match="unknown, expired or revoked") as refused:
        list(client.watch(row.id))
    assert refused.value.status == 401


def test_a_service_that_went_away_ends_a_watch_after_a_while(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bench.client.ATTEMPTS", 1)
    with pytest.raises(OperatorError, match="does not answer"):
        list(Client("http://127.0.0.1:1", TOKEN).watch("x"))


def test_too_many_requests_are_waited_out_and_told_as_such_in_the_end(monkeypatch: pytest.MonkeyPatch):
    client, asked = Client("http://127.0.0.1:1", TOKEN), []

    def full(method: str, url: str, **_: object) -> requests.Response:
        asked.append(method)
        answer = requests.Response()
        answer.status_code, answer._content = 429, b'{"error": "too many requests", "hint": "again in 1.0 s"}'
        return answer

    monkeypatch.setattr(client._session, "request", full)
    monkeypatch.setattr("bench.client.time.sleep", lambda _: None)
    calls = {
        "GET": client.submissions,
        "POST": lambda: client.submit(b"name: s"),  # a quota: waiting for half a minute does not help
        "POST ": lambda: client.register("0" * 32, "m", "small_cnn"),  # somebody else's turn
    }
    for call in calls.values():
        with pytest.raises(ServiceError, match="too many requests") as refused:
            call()
        assert refused.value.status == 429
    assert asked == ["GET"] * 6 + ["POST"] + ["POST"] * 6


def test_mistakes_of_a_suite_bear_the_name_of_the_file_that_was_handed_in(
    house: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    suite = tmp_path / "mine.yaml"
    suite.write_text(
        "name: mine\nmodels:\n  - {name: a, adapter: torch, args: {factory: 'my:Net', weights: a.safetensors}}\n"
    )
    assert main(["submit", str(suite), "--server", house.url, "--token", house.token("ann")]) == 2
    told = capsys.readouterr().err
    assert f"{suite}:3:24: models[0].adapter: 'torch' works on files" in told
    assert "`registered: NAME`" in told
    assert "factory" not in told, "what is refused as a whole is told once"
    assert main(["submit", str(tmp_path / "mein.yaml"), "--server", house.url, "--token", house.token("ann")]) == 2
    assert "no such file - did you mean 'mine.yaml'?" in capsys.readouterr().err


def test_a_watch_that_ends_badly_says_why(house: House, capsys: pytest.CaptureFixture[str]):
    token = house.token("luckless")
    row, _ = house.queue.submit("luckless", "s", "t")
    house.work.renew()
    assert house.work.claim({}, lambda owners: [one for one in owners if one == "luckless"]) is not None
    house.work.end(row.id, State.FAILED, "models[0].args.input_shape: does not fit")
    assert main(["watch", row.id, "--server", house.url, "--token", token]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "models[0].args.input_shape: does not fit"
