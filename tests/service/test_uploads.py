"""Weights over HTTP: sent in pieces, held against their digest, scanned, registered, retired."""

import dataclasses
import hashlib
import json
import os
import subprocess
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests
import torch
import yaml
from sqlalchemy import select

from adapters.reference import SmallCnn
from adapters.torch_classifier import state_to_bytes
from bench import models
from bench.__main__ import main
from bench.client import ServiceError
from bench.contracts import adapters
from bench.errors import SuiteError
from bench.service import intake
from bench.service import uploads as module
from bench.service.access import Role
from bench.service.apart import apart
from bench.service.database import Database, Upload
from bench.service.queue import Quotas, Refused
from bench.service.uploads import Uploads
from tests.service.house import QUOTAS, House, announced, house
from tests.service.test_intake import SUITE
from tests.service.test_scan import GOOD, HOSTILE

__all__ = ["house"]  # a fixture
DATA = GOOD["safetensors"]


def begun(house: House, token: str, content: bytes, **other: object) -> str:
    answer = house.call("POST", "/v1/uploads", token, json=announced(content, **other))
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def sent(house: House, token: str, content: bytes, **other: object) -> requests.Response:
    made = begun(house, token, content, **other)
    assert house.call("PUT", f"/v1/uploads/{made}?offset=0", token, data=content).status_code == 200
    return house.call("POST", f"/v1/uploads/{made}/finish", token)


def left(house: House) -> tuple[set[str], set[str]]:
    """Files in the folder, and rows of the table."""
    with house.database.reading() as session:
        rows = set(session.scalars(select(Upload.id)))
    folder = house.folder / "uploads"
    return {path.name for path in folder.iterdir()} if folder.exists() else set(), rows


def test_a_file_comes_in_pieces_and_goes_on_where_it_was_cut_off(house: House):
    token = house.token("sender")
    made = begun(house, token, DATA)
    part = house.call("PUT", f"/v1/uploads/{made}?offset=0", token, data=DATA[:10])
    assert (part.json()["received"], part.json()["state"]) == (10, "open")
    again = house.call("PUT", f"/v1/uploads/{made}?offset=0", token, data=DATA[:10])
    assert (again.status_code, "the next byte is 10" in again.json()["error"]) == (409, True)
    early = house.call("POST", f"/v1/uploads/{made}/finish", token)
    assert (early.status_code, "bytes are missing" in early.json()["error"]) == (409, True)
    beyond = house.call("PUT", f"/v1/uploads/{made}?offset=10", token, data=DATA[10:] + b"x")
    assert beyond.status_code == 413
    assert house.call("GET", f"/v1/uploads/{made}", token).json()["received"] == 10
    assert house.call("PUT", f"/v1/uploads/{made}?offset=10", token, data=DATA[10:]).status_code == 200
    for _ in range(2):  # twice is once
        ready = house.call("POST", f"/v1/uploads/{made}/finish", token).json()
        assert (ready["state"], ready["kind"], ready["received"]) == ("ready", "safetensors", len(DATA))
    assert (house.folder / "uploads" / made).read_bytes() == DATA
    assert house.call("PUT", f"/v1/uploads/{made}?offset=0", token, data=b"x").status_code == 409
    assert house.call("DELETE", f"/v1/uploads/{made}", token).status_code == 204
    assert made not in left(house)[0] | left(house)[1]


def test_the_client_finds_what_it_began_before_and_sends_the_rest(house: House, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("bench.client.PIECE", 16)
    (tmp_path / "w.safetensors").write_bytes(DATA)
    client = house.client("resumer")

    class Cut(Exception):
        pass

    def cut(done: int, size: int) -> None:
        if done >= 48:
            raise Cut

    with pytest.raises(Cut):
        client.upload(tmp_path / "w.safetensors", told=cut)
    (row,) = client.uploads()
    assert (row["received"], row["state"]) == (48, "open")
    seen: list[int] = []
    made = client.upload(tmp_path / "w.safetensors", told=lambda done, size: seen.append(done))
    assert (made["id"], made["state"], seen[0]) == (row["id"], "ready", 48)
    assert client.upload(tmp_path / "w.safetensors")["id"] == row["id"], "it is there already"
    client.discard(row["id"])


def test_a_piece_whose_answer_was_lost_is_not_sent_twice(house: House, tmp_path: Path, monkeypatch):
    client = house.client("unlucky")
    (tmp_path / "w.safetensors").write_bytes(DATA)
    honest = client._session.request
    lost: list[str] = []

    def losing(method: str, url: str, **more: object) -> requests.Response:
        answer = honest(method, url, **more)
        if method == "PUT" and not lost:
            lost.append(url)
            raise requests.ConnectionError("the answer is lost")
        return answer

    monkeypatch.setattr(client._session, "request", losing)
    assert client.upload(tmp_path / "w.safetensors")["state"] == "ready"
    assert lost


@pytest.mark.parametrize("what", ["a pickle that runs code", "a zip bomb", "a header of 2^64", "a link", "a script"])
def test_hostile_weights_get_400_with_the_reason_and_leave_nothing(house: House, what: str):
    token = house.token("hostile")
    before = left(house)
    answer = sent(house, token, HOSTILE[what][0])
    assert (answer.status_code, HOSTILE[what][1] in answer.json()["error"]) == (400, True), answer.text
    assert left(house) == before


def test_a_forged_digest_gets_400_and_leaves_nothing(house: House):
    before = left(house)
    answer = sent(house, house.token("forger"), DATA, digest=hashlib.sha256(b"something else").hexdigest())
    assert (answer.status_code, "SHA-256" in answer.json()["error"]) == (400, True)
    assert left(house) == before


ANNOUNCED = {
    "a traversal": ({"file": "../../etc/cron.d/x"}, 422),
    "an absolute name": ({"file": "/etc/passwd"}, 422),
    "a hidden name": ({"file": ".ssh"}, 422),
    "a header in the name": ({"file": "a\r\nSet-Cookie: x"}, 422),
    "markup in the name": ({"file": "<img src=x onerror=alert(1)>"}, 422),
    "a name with a zero": ({"file": "a\x00.pt"}, 422),
    "a long name": ({"file": "a" * 101}, 422),
    "no size": ({"size": 0}, 422),
    "a negative size": ({"size": -1}, 422),
    "a size that is text": ({"size": "12"}, 422),
    "a size beyond every file": ({"size": 2**53 + 1}, 422),
    "a digest of another length": ({"digest": "00"}, 422),
    "a digest that is a path": ({"digest": "../" * 21 + "x"}, 422),
    "an owner": ({"owner": "root"}, 422),
    "a file that is too large": ({"size": QUOTAS.upload + 1}, 413),
}


@pytest.mark.parametrize("what", ANNOUNCED)
def test_a_wrong_announcement_is_refused_and_nothing_begins(house: House, what: str):
    change, status = ANNOUNCED[what]
    before = left(house)
    answer = house.call("POST", "/v1/uploads", house.token("clumsy"), json=announced(DATA, **change))
    assert (answer.status_code, bool(answer.json()["error"])) == (status, True)
    assert left(house) == before


def test_a_piece_larger_than_four_mebibytes_or_at_no_place_is_refused(house: House):
    token = house.token("large")
    made = begun(house, token, DATA)
    large = house.call("PUT", f"/v1/uploads/{made}?offset=0", token, data=b"x" * (module.PIECE + 1))
    assert large.status_code == 413
    for offset in ("-1", "x", "", "1e3", str(2**60)):
        assert house.call("PUT", f"/v1/uploads/{made}?offset={offset}", token, data=b"x").status_code == 422
    assert house.call("PUT", f"/v1/uploads/{made}", token, data=b"x").status_code == 422
    assert house.call("GET", f"/v1/uploads/{made}", token).json()["received"] == 0
    for strange in ("..%2f..%2fetc%2fpasswd", "a" * 32 + "%00", "A" * 32, "0" * 31):
        assert house.call("GET", f"/v1/uploads/{strange}", token).status_code in (404, 422)


def test_the_commands_upload_list_and_discard(house: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "w.safetensors").write_bytes(DATA)
    place = ["--server", house.url, "--token", house.token("typist")]
    assert main(["models", "upload", str(tmp_path / "w.safetensors"), *place]) == 0
    made = capsys.readouterr().out.strip()
    assert main(["models", "uploads", *place, "--format", "json"]) == 0
    (line,) = json.loads(capsys.readouterr().out)
    assert (line["id"], line["state"], line["kind"]) == (made, "ready", "safetensors")
    assert main(["models", "accept", made, "--name", "m", "--adapter", "small_cnn", *place]) == 1
    assert "a submitter may not register" in capsys.readouterr().err
    assert main(["models", "upload", str(tmp_path / "w.safetensors"), "--name", "m", *place]) == 2
    assert main(["models", "upload", str(tmp_path / "none"), *place]) == 2
    assert main(["models", "retire", "m", *place]) == 2
    assert "name the version, too" in capsys.readouterr().err
    assert main(["models", "discard", made, *place]) == 0
    assert made not in left(house)[0] | left(house)[1]


# --- quotas


@pytest.fixture
def small(tmp_path: Path) -> Uploads:
    database = Database(f"sqlite:///{tmp_path}/service.db")
    database.upgrade()
    from bench.service.access import Access

    for user in ("ann", "bob"):
        Access(database).create(user, Role.SUBMITTER)
    quotas = dataclasses.replace(Quotas(), bytes=100, upload=80, uploads=3)
    return Uploads(database, tmp_path / "uploads", quotas, lambda path: "safetensors")


def test_bytes_are_counted_for_each_user_until_they_are_gone(small: Uploads):
    first = small.begin("ann", "a", 60, "0" * 64)
    with pytest.raises(Refused, match="holds 60 of 100 bytes"):
        small.begin("ann", "b", 41, "0" * 64)
    small.begin("bob", "b", 80, "0" * 64)
    small.append(first, 0, b"x" * 60)
    small.registered(first, "mine/1")
    assert not small.path(first).exists()
    with pytest.raises(Refused, match="holds 60 of 100 bytes"):
        small.begin("ann", "b", 41, "0" * 64)
    with pytest.raises(Refused, match="retire that model"):
        small.remove(small.get(first.id))
    small.retired("mine/1")
    small.begin("ann", "b", 80, "0" * 64)
    with pytest.raises(Refused, match="more than the 80"):
        small.begin("ann", "b", 81, "0" * 64)


def test_uploads_are_counted_and_what_nobody_goes_on_with_is_given_up(small: Uploads):
    now = [time.time()]
    small._clock = lambda: now[0]
    rows = [small.begin("ann", "a", 1, "0" * 64) for _ in range(3)]
    with pytest.raises(Refused, match="3 uploads"):
        small.begin("ann", "a", 1, "0" * 64)
    small.append(rows[0], 0, b"x")
    stray = small._folder / ("f" * 32)
    stray.write_bytes(b"left by a kill")
    os.utime(stray, (0, 0))
    now[0] += module.STALE + 1
    small.append(rows[1], 0, b"x")
    small.begin("ann", "a", 1, "0" * 64)
    assert {path.name for path in small._folder.iterdir()} == {rows[1].id}
    with pytest.raises(Refused, match="no upload"):
        small.get(rows[0].id)


def test_two_senders_of_one_file_never_mix(small: Uploads):
    row = small.begin("ann", "a", 8, "0" * 64)
    small.append(row, 0, b"abcd")
    for offset in (0, 3, 5):
        with pytest.raises(Refused, match="next byte is 4"):
            small.append(row, offset, b"zz")
    small.append(row, 4, b"efgh")
    assert small.path(row).read_bytes() == b"abcdefgh"


def test_of_pieces_that_come_together_one_is_written(small: Uploads):
    row = small.begin("ann", "a", 80, "0" * 64)
    told: list[str] = []

    def send(letter: bytes) -> None:
        try:
            small.append(row, 0, letter * 40)
            told.append("written")
        except Refused as refused:
            told.append(str(refused.status))

    threads = [threading.Thread(target=send, args=(bytes([65 + number]),)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told) == ["409"] * 11 + ["written"]
    content = small.path(row).read_bytes()
    assert (len(content), len(set(content))) == (40, 1)


def test_what_is_being_checked_can_neither_be_thrown_away_nor_added_to(small: Uploads):
    row = small.begin("ann", "a", 4, hashlib.sha256(b"abcd").hexdigest())
    small.append(row, 0, b"abcd")
    seen: list[str] = []

    def scan(path: Path) -> str:
        for act in (small.remove, small.finish, lambda row: small.append(row, 4, b"e")):
            with pytest.raises(Refused, match="is being worked on") as refused:
                act(row)
            seen.append(str(refused.value.status))
        return "torch"

    small._scan = scan
    assert small.finish(row).state == "ready"
    assert seen == ["409"] * 3
    small.remove(row)
    for act in (small.remove, small.finish, lambda row: small.append(row, 0, b"x")):
        with pytest.raises(Refused, match="no upload"):
            act(row)
    assert list(small._folder.iterdir()) == [], "a piece that comes too late leaves no file"


def test_an_upload_is_registered_once_however_often_it_is_asked_for(house: House, monkeypatch: pytest.MonkeyPatch):
    tokens = [house.token(f"chief-{number}", Role.MAINTAINER) for number in range(3)]
    ready = sent(house, tokens[0], DATA).json()
    began, done = threading.Event(), threading.Event()

    def slow(job: str, given: object) -> dict[str, int]:
        assert not began.is_set(), "a second time"
        began.set()
        assert done.wait(60)
        return {"version": 1}

    entry = models.Entry("twice", 1, "small_cnn", datetime.now(UTC), "nowhere", "chief-0")
    monkeypatch.setattr("bench.service.face_models.apart", slow)
    monkeypatch.setattr("bench.service.face_models.models.list_models", lambda uri: [entry])
    wanted = {"name": "twice", "adapter": "small_cnn", "upload": ready["id"]}
    answers: list[int] = []

    def register(token: str) -> None:
        answers.append(house.call("POST", "/v1/models", token, json=wanted).status_code)

    first = threading.Thread(target=register, args=(tokens[0],))
    first.start()
    assert began.wait(60)
    for token in (*tokens, tokens[1]):
        register(token)
    assert answers == [429, 409, 409, 409], "one at a time of each user, and one of all"
    done.set()
    first.join()
    register(tokens[1])
    assert answers[4:] == [201, 409]
    house.uploads.retired("twice/1")


# --- a process apart


def test_a_file_that_breaks_its_reader_is_refused(tmp_path: Path):
    (tmp_path / "w").write_bytes(GOOD["torch"])
    assert apart("scan", {"path": str(tmp_path / "w")})["kind"] == "torch"
    with pytest.raises(Refused, match=r"more than 0\.05 s") as late:
        apart("scan", {"path": str(tmp_path / "w")}, seconds=0.05)
    with pytest.raises(Refused, match=r"broke the process|more memory") as large:
        apart("scan", {"path": str(tmp_path / "w")}, memory=40 << 20)
    assert (late.value.status, large.value.status) == (400, 400)


def test_the_process_apart_gets_none_of_the_service_s_secrets(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GAUNTLET_DATABASE", "postgresql://me:secret@host/x")
    seen: list[dict[str, str]] = []

    def run(command: list[str], *, env: dict[str, str], **_: object) -> subprocess.CompletedProcess[str]:
        seen.append(env)
        return subprocess.CompletedProcess(command, 0, "{}", "")

    monkeypatch.setattr(subprocess, "run", run)
    apart("scan", {})
    assert "PATH" in seen[0]
    assert "secret" not in str(seen)


# --- models


def weights() -> bytes:
    torch.manual_seed(0)
    return state_to_bytes(SmallCnn().net().state_dict())


@pytest.mark.slow
def test_a_model_is_registered_by_a_maintainer_found_by_a_suite_and_retired(house: House, tmp_path: Path):
    (tmp_path / "cnn.safetensors").write_bytes(weights())
    sender, chief = house.client("modeller"), house.client("chief", Role.MAINTAINER)
    made = sender.upload(tmp_path / "cnn.safetensors")
    with pytest.raises(ServiceError, match="a submitter may not register"):
        sender.register(made["id"], "cnn", "small_cnn")
    wrong = {"small_cnn": {"weights": "/etc/passwd"}, "torch": {"factory": "os:system"}, "small_cn": {}}
    for adapter, args in wrong.items():
        with pytest.raises(SuiteError, match=r"place|modules or addresses|did you mean"):
            chief.register(made["id"], "cnn", adapter, args)
    with pytest.raises(SuiteError, match="not over the network"):
        chief.register(made["id"], "cnn", "torchscript", {"trusted": True, "input_shape": [1, 8, 8], "classes": 10})
    with pytest.raises(ServiceError, match=r"[Mm]issing|fit|unexpected") as unfit:
        chief.register(made["id"], "cnn", "odin_cnn")
    assert unfit.value.status == 400
    assert sender.uploads()[0]["state"] == "ready", "another adapter may fit"

    entry = chief.register(made["id"], "cnn", "small_cnn")
    assert (entry["name"], entry["version"], entry["owner"]) == ("cnn", 1, "modeller")
    assert [(one["name"], one["version"]) for one in sender.models()] == [("cnn", 1)]
    uri = f"sqlite:///{house.folder}/mlflow.db"
    spec, back = models.fetch("cnn/1", uri)
    assert (back, spec.adapter) == (weights(), "small_cnn")
    assert sender.uploads()[0]["model"] == "cnn/1"
    with pytest.raises(ServiceError, match="registered once"):
        chief.register(made["id"], "other", "small_cnn")

    suite = intake.accept(yaml.safe_dump({**SUITE, "models": [{"name": "m", "registered": "cnn/1"}]}).encode())
    named = adapters.build(suite.models[0].plugin, {**suite.models[0].arguments, "tracking_uri": uri})
    x = torch.rand((3, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    assert torch.equal(named.build(named.artefact()).logits(x), SmallCnn().build(weights()).logits(x))

    with pytest.raises(ServiceError, match="may not register"):
        sender.retire("cnn", 1)
    with pytest.raises(ServiceError, match="no registered model 'cnn/2'"):
        chief.retire("cnn", 2)
    chief.retire("cnn", 1)
    assert sender.models() == []
    assert sender.uploads() == []
