"""Who it is, how often they may ask, and what is written down of them."""

import json
import os
import time
from functools import partial
from pathlib import Path

import pytest
import requests
import yaml

from bench import plugins
from bench.__main__ import main
from bench.client import Client
from bench.service import door, shapes
from bench.service.access import Access, RateLimit, Role, Verb
from bench.service.database import Database, Token
from bench.service.face import face
from bench.service.queue import Refused
from tests.service.house import PATIENCE, House, announced, house, serving
from tests.service.test_intake import SUITE

TEXT = yaml.safe_dump(SUITE).encode()
__all__ = ["house"]  # a fixture


def test_so_many_at_once_and_then_so_many_a_second_for_each_name():
    now = [0.0]
    limit = RateLimit(2.0, 3.0, lambda: now[0])
    for _ in range(3):
        limit.take("ann")
    with pytest.raises(Refused, match="too many requests") as refused:
        limit.take("ann")
    assert (refused.value.status, refused.value.hint) == (429, "again in 0.5 s")
    limit.take("bob")
    now[0] += 0.49
    with pytest.raises(Refused):
        limit.take("ann")
    now[0] += 0.02
    limit.take("ann")
    now[0] += 1000.0
    for _ in range(3):
        limit.take("ann")
    with pytest.raises(Refused):
        limit.take("ann")


def test_who_asks_too_often_or_guesses_is_told_so_and_nobody_else_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(door, "RateLimit", partial(RateLimit, clock=lambda: 0.0))  # all within one moment
    plugins.load_built_in()
    database = Database(f"sqlite:///{tmp_path}/service.db")
    database.upgrade()
    access = Access(database)
    ann, again, bob = (access.create(user, Role.READER) for user in ("ann", "ann", "bob"))
    with serving(face(database, tmp_path, rate=1.0)) as url:

        def ask(token: str) -> int:
            answer = requests.get(
                f"{url}/v1/submissions", headers={"Authorization": f"Bearer {token}"}, timeout=PATIENCE
            )
            if answer.status_code >= 400:
                shapes.Problem.model_validate_json(answer.content)
            return answer.status_code

        told = [ask(ann) for _ in range(5)]
        more = [ask(again) for _ in range(10)]
        assert told == [200] * 5
        assert more == [429] * 10, "another token of the same user is the same user"
        assert ask(bob) == 200
        guesses = [ask("gauntlet_000000000000_" + "x" * 43) for _ in range(30)]
        assert guesses == [401] * 20 + [429] * 10
        assert ask(bob) == 200, "whoever has a token is let in from the same address"
    refused = [entry for entry in access.audited(1000) if entry.status == 401]
    assert len(refused) == 20, "guesses do not fill the audit log"
    database.close()


def test_a_token_is_made_before_the_first_start_and_changes_no_schema_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    place = ["--output", str(tmp_path / "out")]
    assert main(["tokens", "list", *place]) == 4
    assert "no service keeps its database in" in capsys.readouterr().err
    assert list(tmp_path.glob("out/*")) == [], "looking makes nothing"
    assert main(["tokens", "create", "ann", "--role", "reader", *place]) == 0
    token, told = map(str.strip, capsys.readouterr())
    assert f"`gauntlet up --output {tmp_path / 'out'}` starts it" in told, "another folder would be another service"
    assert main(["tokens", "list", *place, "--format", "json"]) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed)[0]["id"] == token.split("_")[1]
    assert token.split("_", 2)[2] not in printed
    database = Database(f"sqlite:///{tmp_path}/out/service.db")
    database.downgrade("0001")
    assert main(["tokens", "create", "bob", "--role", "reader", *place]) == 4
    assert "gauntlet database upgrade" in capsys.readouterr().err
    assert database.revision() == "0001"
    database.close()


def test_a_token_is_good_for_its_scopes_only_and_not_for_long(house: House):
    token = house.token("narrow", Role.SUBMITTER, Verb.READ)
    assert house.call("GET", "/v1/submissions", token).status_code == 200
    refused = house.call("POST", "/v1/submissions", token, data=TEXT)
    assert (refused.status_code, "not good for 'submit'" in refused.json()["error"]) == (403, True)
    name = token.split("_")[1]
    house.access.revoke(name)
    assert house.call("GET", "/v1/me", token).status_code == 401
    late = Access(house.database, clock=lambda: time.time() - 91 * 86400).create("narrow", Role.READER)
    assert house.call("GET", "/v1/me", late).status_code == 401
    good = house.token("narrow", Role.READER)
    for forged in (good[:-1] + ("A" if good[-1] != "A" else "B"), good.replace("gauntlet_", ""), "", "x" * 5000):
        assert house.call("GET", "/v1/me", forged).status_code == 401
    with house.database.reading() as session:
        kept = session.get(Token, good.split("_")[1])
        assert kept is not None
        assert good[22:] not in json.dumps(kept.digest), "the secret is not kept"


def test_what_was_changed_or_refused_is_in_the_audit_log(house: House):
    admin, token = house.token("root", Role.ADMIN), house.token("careful")
    row = Client(house.url, token).submit(TEXT)
    stranger = house.token("stranger")
    house.call("POST", f"/v1/submissions/{row['id']}/cancel", stranger)
    upload = house.uploads.begin("careful", "w", 2, "0" * 64).id
    suite = TEXT.replace(b"pgd", b"pdg")
    for method, path, more in (
        ("POST", "/v1/submissions", {"data": suite}),
        ("GET", f"/v1/submissions/{row['id']}", {}),
        ("PUT", f"/v1/submissions/{row['id']}/priority", {"json": {"priority": "high"}}),
        ("POST", f"/v1/submissions/{row['id']}/link", {}),
        ("PUT", f"/v1/uploads/{upload}?offset=0", {"data": b"xy"}),
        ("DELETE", f"/v1/uploads/{upload}", {}),
        ("POST", "/v1/uploads", {"json": announced(b"x", size=2**40)}),
        ("POST", "/v1/models", {"json": {"name": "m", "adapter": "small_cnn", "upload": upload}}),
        ("DELETE", "/v1/models/m/1", {}),
        ("GET", "/v1/audit", {}),
        ("GET", "/v1/submissions", {}),  # looking at what is one's own is not written down
    ):
        house.call(method, path, stranger, **more)
    house.call("PUT", f"/v1/uploads/{upload}?offset=0", token, data=b"x")  # nor is every piece
    house.call("DELETE", f"/v1/uploads/{upload}", token)
    house.access.revoke(stranger.split("_")[1])
    log = house.call("GET", "/v1/audit", admin).json()["entries"]
    told = [(e["owner"], e["verb"], e["object"], e["status"]) for e in reversed(log)]
    assert told[told.index(("careful", "submit", row["id"], 202)) :] == [
        ("careful", "submit", row["id"], 202),
        (None, "create token", f"{stranger.split('_')[1]} of stranger, submitter", 201),
        ("stranger", "cancel", row["id"], 404),
        ("stranger", "submit", "", 400),
        ("stranger", "show", row["id"], 404),
        ("stranger", "priority", row["id"], 422),
        ("stranger", "link", row["id"], 404),
        ("stranger", "piece", upload, 404),
        ("stranger", "discard", upload, 404),
        ("stranger", "upload", "", 413),
        ("stranger", "register", f"m of {upload}", 403),
        ("stranger", "retire", "m/1", 403),
        ("stranger", "audit", "", 403),
        ("careful", "discard", upload, 204),
        (None, "revoke token", f"{stranger.split('_')[1]} of stranger", 204),
    ]
    assert {e["address"] for e in log} == {"127.0.0.1", f"uid {os.getuid()}"}
    assert all(secret.split("_", 2)[2] not in json.dumps(log) for secret in (admin, token, stranger))
