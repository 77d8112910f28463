"""The face over real HTTP: who may do what, what is refused, and what is told."""

import http.client
import json
import re
import socket
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import jsonschema
import psutil
import pytest
import requests
import yaml

from bench import plugins
from bench.client import Client, ServiceError
from bench.errors import OperatorError, SuiteError
from bench.service import shapes
from bench.service.access import Access, Role
from bench.service.database import Database, State
from bench.service.face import face
from bench.service.queue import Refused
from tests.ports import listening
from tests.service.house import PATIENCE, House, announced, house, serving
from tests.service.test_intake import HOSTILE, RAW, SUITE

TEXT = yaml.safe_dump(SUITE).encode()
__all__ = ["house"]  # a fixture

# --- who may do what

NOBODY, STRANGER = 401, 404
CALLS = {  # verb -> (method, path, body)
    "list": ("GET", "/v1/submissions", None),
    "me": ("GET", "/v1/me", None),
    "metrics": ("GET", "/metrics", None),
    "audit": ("GET", "/v1/audit", None),
    "submit": ("POST", "/v1/submissions", TEXT),
    "show": ("GET", "/v1/submissions/{id}", None),
    "suite": ("GET", "/v1/submissions/{id}/suite", None),
    "events": ("GET", "/v1/submissions/{id}/events", None),
    "failures": ("GET", "/v1/submissions/{id}/failures", None),
    "leaderboard": ("GET", "/v1/submissions/{id}/leaderboard", None),
    "records": ("GET", "/v1/submissions/{id}/records", None),
    "pause": ("POST", "/v1/submissions/{id}/pause", None),
    "resume": ("POST", "/v1/submissions/{id}/resume", None),
    "priority": ("PUT", "/v1/submissions/{id}/priority", b'{"priority": 3}'),
    "cancel": ("POST", "/v1/submissions/{id}/cancel", None),
    "retry": ("POST", "/v1/submissions/{id}/retry", None),
    "link": ("POST", "/v1/submissions/{id}/link", None),
    "uploads": ("GET", "/v1/uploads", None),
    "upload": ("POST", "/v1/uploads", json.dumps(announced(b"xy")).encode()),
    "show upload": ("GET", "/v1/uploads/{upload}", None),
    "piece": ("PUT", "/v1/uploads/{upload}?offset=0", b"x"),
    "finish": ("POST", "/v1/uploads/{upload}/finish", None),
    "discard": ("DELETE", "/v1/uploads/{upload}", None),
    "models": ("GET", "/v1/models", None),
    "register": ("POST", "/v1/models", b'{"name": "m", "adapter": "small_cnn", "upload": "UPLOAD"}'),
    "retire": ("DELETE", "/v1/models/m/1", None),
    "adapters": ("GET", "/v1/adapters", None),
    "register adapters": ("POST", "/v1/adapters", b'{"module": "lab_nowhere.nets"}'),
    "retire adapters": ("DELETE", "/v1/adapters/lab_nowhere.nets", None),
}
READS = ("show", "suite", "events", "failures", "leaderboard", "records", "link")
OF_UPLOADS = {"show upload": 200, "piece": 200, "finish": 409, "discard": 204}  # of a file that has not come
CHANGES = ("pause", "resume", "priority", "cancel", "retry")
UNRUN = {"failures": 404, "leaderboard": 409, "records": 409}  # what the owner is told of what has not been run


def expected(role: str, verb: str, whose: str) -> int:
    """The rules, in words of their own. whose: own, private (another's), shared (another's)."""
    if role == "nobody":
        return 401
    if verb in ("list", "me", "metrics", "models", "adapters"):
        return 200
    if verb in ("register adapters", "retire adapters"):
        return {"register adapters": 400, "retire adapters": 404}[verb] if role == "admin" else 403
    if verb == "audit":
        return 200 if role == "admin" else 403
    if verb == "submit":
        return 403 if role == "reader" else 202
    trusted = role in ("maintainer", "admin")
    if verb in ("register", "retire"):
        return {"register": 409, "retire": 404}[verb] if trusted else 403
    if verb in ("upload", "uploads"):
        return 403 if role == "reader" else {"upload": 201, "uploads": 200}[verb]
    if verb in OF_UPLOADS:
        return 403 if role == "reader" else OF_UPLOADS[verb] if whose == "own" or trusted else 404
    if verb in READS:
        return UNRUN.get(verb, 200) if whose != "private" or trusted else 404
    if role == "reader":
        return 403
    if whose == "own" or trusted:
        return 200
    return 403 if whose == "shared" else 404


@pytest.mark.parametrize("role", ["nobody", *Role])
def test_every_role_with_every_verb_on_ones_own_and_on_what_is_anothers(house: House, role: str):
    user = f"me-{role}"
    token = None if role == "nobody" else house.token(user, Role(role))
    house.token("another")
    if token is None:
        house.token(user)
    wrong = []
    for whose in ("own", "private", "shared"):
        owner = user if whose == "own" else "another"
        for verb, (method, path, body) in CALLS.items():
            row, _ = house.queue.submit(owner, "s", "name: s\n", shared=whose == "shared")
            if verb == "resume":
                house.queue.pause(row.id)
            if verb == "retry" or verb == "events":
                house.queue.cancel(row.id)  # a stream ends when the submission has ended
            before = house.queue.get(row.id)
            upload = house.uploads.begin(owner, "w", 2, "0" * 64)
            content = body and body.replace(b"UPLOAD", upload.id.encode())
            json_ = body is not None and body.startswith(b"{")
            headers = {"Content-Type": "application/json"} if json_ else {}
            answer = house.call(method, path.format(id=row.id, upload=upload.id), token, data=content, headers=headers)
            if answer.status_code != expected(role, verb, whose):
                wrong.append((whose, verb, answer.status_code, expected(role, verb, whose)))
            if answer.status_code >= 400:
                shapes.Problem.model_validate_json(answer.content, strict=True)
                after = house.queue.get(row.id)
                assert (after.state, after.priority, after.wish) == (before.state, before.priority, before.wish)
                assert house.uploads.received(house.uploads.get(upload.id)) == 0
            house.queue.cancel(row.id)
            for left in house.uploads.page(None, 100):
                house.uploads.remove(left)
    assert wrong == []


def test_a_list_holds_ones_own_and_what_is_shared(house: House):
    house.token("owner-1")
    private, _ = house.queue.submit("owner-1", "s", "t")
    shared, _ = house.queue.submit("owner-1", "s", "t", shared=True)
    seen = {row["id"] for row in house.client("looker", Role.READER).submissions()}
    assert shared.id in seen
    assert private.id not in seen
    assert {private.id, shared.id} <= {row["id"] for row in house.client("chief", Role.MAINTAINER).submissions()}


def test_a_link_opens_one_page_for_a_minute_and_nothing_else(house: House):
    mine, other = house.token("linker"), house.token("other-linker")
    rows = [house.queue.submit("linker", "s", "t")[0] for _ in range(2)]
    path = f"/v1/submissions/{rows[0].id}/leaderboard"
    url = house.call("POST", f"/v1/submissions/{rows[0].id}/link", mine).json()["url"]
    assert url.startswith(f"{path}?key=")
    assert house.call("GET", url).status_code == 409, "let in, and told that it has not ended"
    key = url.partition("=")[2]
    token, ends, sign = key.split(".")
    forged = (
        key[:-1] + ("0" if key[-1] != "0" else "1"),
        f"{token}.{int(ends) + 1}.{sign}",
        "x",
        f"{'0' * 12}.{ends}.{sign}",
    )
    for wrong in forged:
        assert house.call("GET", f"{path}?key={wrong}").status_code == 401
    assert house.call("GET", f"/v1/submissions/{rows[1].id}/leaderboard?key={key}").status_code == 401
    assert house.call("GET", f"/v1/submissions/{rows[0].id}/records?key={key}").status_code == 401
    assert house.call("POST", f"/v1/submissions/{rows[0].id}/link", other).status_code == 404
    late = Access(house.database, clock=lambda: time.time() + 61)
    with pytest.raises(Refused, match="not good any more"):
        late.follow(key, path)
    house.access.revoke(mine.split("_")[1])
    assert house.call("GET", url).status_code == 401


def test_a_proxy_may_ask_and_a_password_is_only_good_for_looking(house: House):
    chief = house.token("asked", Role.MAINTAINER)
    for need, status in (("read", 200), ("register", 200), ("audit", 403), ("nothing", 422)):
        assert house.call("GET", f"/v1/me?need={need}", chief).status_code == status
    password = requests.auth.HTTPBasicAuth("anybody", chief)
    for path, status in (("/v1/me", 200), ("/v1/me?need=read", 200), ("/v1/me?need=register", 403)):
        assert house.call("GET", path, auth=password).status_code == status
    assert house.call("GET", "/v1/submissions", auth=password).status_code == 401
    for header in ("Basic", "Basic !", "Basic /w==", "Basic Og=="):
        assert house.call("GET", "/v1/me", headers={"Authorization": header}).status_code in (401, 429)


# --- what is refused


@pytest.mark.parametrize("what", [*HOSTILE, *RAW])
def test_a_hostile_suite_gets_400_with_the_reason_and_nothing_else_happens(house: House, what: str):
    content = yaml.safe_dump(HOSTILE[what][0], sort_keys=False).encode() if what in HOSTILE else RAW[what][0]
    token = house.token("hostile")
    answer = house.call("POST", "/v1/submissions", token, data=content)
    assert answer.status_code == 400
    problem = shapes.Problem.model_validate_json(answer.content)
    assert re.search(HOSTILE[what][1] if what in HOSTILE else RAW[what][1], " ".join(problem.mistakes))
    assert [row for row in house.queue.page(["hostile"], limit=1000) if row.owner == "hostile"] == []


REQUESTS = {
    "a large body": ("POST", "/v1/submissions", {"data": b"x" * 300_000}, 413),
    "a wrong key": ("POST", "/v1/submissions", {"data": TEXT, "headers": {"Idempotency-Key": "a b"}}, 422),
    "a long key": ("POST", "/v1/submissions", {"data": TEXT, "headers": {"Idempotency-Key": "k" * 200}}, 422),
    "a wrong priority": ("POST", "/v1/submissions?priority=1000", {"data": TEXT}, 422),
    "a priority that is no number": ("PUT", "/v1/submissions/x/priority", {"data": b'{"priority": "1"}'}, 422),
    "more keys": ("PUT", "/v1/submissions/x/priority", {"data": b'{"priority": 1, "owner": "root"}'}, 422),
    "no JSON": ("PUT", "/v1/submissions/x/priority", {"data": b"{"}, 422),
    "a traversal": ("GET", "/v1/submissions/..%2f..%2fetc%2fpasswd", {}, 404),
    "a traversal below": ("GET", "/v1/submissions/..%2fx/records", {}, 404),
    "an id with a zero": ("GET", "/v1/submissions/a%00b", {}, 422),
    "another id": ("GET", "/v1/submissions/nothing-0000", {}, 404),
    "an endless time": ("GET", "/v1/submissions?before=inf", {}, 422),
    "no time": ("GET", "/v1/submissions?before=nan", {}, 422),
    "another state": ("GET", "/v1/submissions?state=' OR 1=1 --", {}, 422),
    "a wrong last event": ("GET", "/v1/submissions/x/events", {"headers": {"Last-Event-ID": "-1"}}, 422),
    "another method": ("DELETE", "/v1/submissions", {}, 405),
    "another place": ("GET", "/admin", {}, 404),
    "a slash more, and another host": ("GET", "/v1/submissions/", {"headers": {"Host": "evil.example"}}, 404),
}


@pytest.mark.parametrize("what", REQUESTS)
def test_a_wrong_request_gets_a_problem_and_never_5xx(house: House, what: str):
    method, path, more, status = REQUESTS[what]
    answer = house.call(method, path, house.token("clumsy"), **more)
    assert answer.status_code == status
    assert shapes.Problem.model_validate_json(answer.content).error


def test_headers_that_are_too_large_or_broken_are_refused(house: House):
    place = urlsplit(house.url)
    large = b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 30_000
    for raw in (large, b"GET /health\x00 HTTP/9\r\n\r\n"):
        with socket.create_connection((place.hostname, place.port), timeout=PATIENCE) as connection:
            connection.sendall(raw)
            assert connection.recv(100).startswith(b"HTTP/1.1 400")
    answer = house.call("GET", "/health")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "server" not in answer.headers


def test_a_body_of_unknown_length_is_cut_off_where_it_gets_too_large(house: House):
    place = urlsplit(house.url)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=PATIENCE)
    headers = {"Authorization": f"Bearer {house.token('endless')}"}
    connection.request("POST", "/v1/submissions", iter([b"x" * 65536] * 6), headers, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


# --- what is told


def test_the_same_key_is_one_submission_and_its_suite_comes_back(house: House):
    client = house.client("careful-2")
    first = client.submit(TEXT, idempotency_key="k", priority=2)
    assert client.submit(TEXT, idempotency_key="k")["id"] == first["id"]
    with pytest.raises(ServiceError, match="another suite"):
        client.submit(TEXT + b"# more\n", idempotency_key="k")
    assert (first["state"], first["priority"], first["owner"]) == ("queued", 2, "careful-2")
    token = house.token("careful-2")
    assert house.call("GET", f"/v1/submissions/{first['id']}/suite", token).content == TEXT
    with pytest.raises(SuiteError, match="did you mean 'pgd'"):
        client.submit(TEXT.replace(b"pgd", b"pdg"))


def test_events_come_as_they_happen_and_go_on_where_a_client_was(house: House):
    client = house.client("watcher")
    row = client.submit(TEXT)
    seen: list[tuple[str, str]] = []

    def follow() -> None:
        for event in client.watch(row["id"]):
            seen.append((event.kind, str(event.data.get("text", event.data.get("done")))))

    watching = threading.Thread(target=follow)
    watching.start()
    while (claimed := house.work.claim({}, lambda names: ["watcher"])) is not None:
        if claimed.id == row["id"]:
            break
    house.work.note(row["id"], "<b>starting</b>")
    house.work.progress(row["id"], 3, 1, 10, 2.5)
    deadline = time.monotonic() + 60
    while ("progress", "3") not in seen:  # as it happens: it has not ended
        assert time.monotonic() < deadline
        time.sleep(0.05)
    house.work.end(row["id"], State.INCOMPLETE, "one failed")
    watching.join(PATIENCE)
    assert not watching.is_alive()
    told = [text for kind, text in seen if kind != "progress"]
    assert told == ["queued", "running", "<b>starting</b>", "incomplete"]
    events = house.queue.events(row["id"])
    headers = {"Last-Event-ID": str(events[1].id)}
    again = house.call("GET", f"/v1/submissions/{row['id']}/events", house.token("watcher"), headers=headers)
    assert again.headers["content-type"].startswith("text/event-stream")
    assert "starting" in again.text
    assert '"queued"' not in again.text


def test_health_readiness_and_figures(house: House):
    house.work.renew()
    assert house.call("GET", "/health").json()["status"] == "ok"
    assert house.call("GET", "/ready").json() == {"status": "ok", "dispatcher": "at work"}
    token = house.token("prometheus", Role.READER)
    house.call("GET", "/v1/submissions/nothing-here", token)
    house.call("GET", "/etc/passwd", token)
    text = house.call("GET", "/metrics", token).text
    assert re.search(r'gauntlet_submissions\{state="queued"\} \d', text)
    assert re.search(r'gauntlet_requests_total\{method="GET",route="/v1/submissions/\{id\}",status="404"\}', text)
    assert float(re.search(r"gauntlet_lease_seconds ([-\d.e+]+)", text)[1]) > -1e9  # type: ignore[index]
    assert "passwd" not in text, "no user's text becomes a label"


def test_answers_keep_to_the_openapi(house: House):
    document = house.call("GET", "/openapi.json").json()
    client, token = house.client("schema"), house.token("schema")
    row = client.submit(TEXT)
    for path, call in (("/v1/submissions", ""), ("/v1/submissions/{id}", f"/{row['id']}")):
        said = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        answer = house.call("GET", f"/v1/submissions{call}", token).json()
        jsonschema.validate(answer, {**said, "components": document["components"]})
    verbs = {f"{method} {path}" for path, item in document["paths"].items() for method in item}
    asked = {f"{method.lower()} {re.sub(r'[?].*', '', path)}" for method, path, _ in CALLS.values()}
    known = {
        re.sub("/m/1$", "/{name}/{version}", re.sub("lab_nowhere.*", "{module}", one)).replace("{upload}", "{id}")
        for one in asked
    }
    assert known | {"get /health", "get /ready"} == verbs, "every request is in the table of roles"
    assert all("401" in item["responses"] for paths in document["paths"].values() for item in paths.values())


def test_a_client_can_be_generated_from_the_openapi(house: House):
    document = house.call("GET", "/openapi.json").json()
    operations = {
        f"{method} {path}": item for path, verbs in document["paths"].items() for method, item in verbs.items()
    }
    names = [item["operationId"] for item in operations.values()]
    assert len(set(names)) == len(names)
    assert all(name.isidentifier() and len(name) < 20 for name in names), "they become the names of functions"
    for place, item in operations.items():
        good = [answer for status, answer in item["responses"].items() if status.startswith("2")]
        assert good, place
        for answer in good:
            for kind, content in answer.get("content", {}).items():
                assert "schema" in content, (place, kind)
        for kind, content in item.get("requestBody", {}).get("content", {}).items():
            assert "schema" in content, (place, kind)
        assert "summary" in item, place
        assert item["description"], place


def test_it_listens_on_loopback_only(house: House):
    port = urlsplit(house.url).port
    assert [ip for ip, taken in listening(psutil.Process()) if taken == port] == ["127.0.0.1"]


def test_a_service_that_is_away_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bench.client.ATTEMPTS", 1)
    with pytest.raises(OperatorError, match="gauntlet up"):
        Client("http://127.0.0.1:1", "x").submissions()


def test_a_database_that_is_away_gives_503(tmp_path: Path):
    plugins.load_built_in()
    database = Database(f"sqlite:///{tmp_path}/service.db")
    database.upgrade()
    token = Access(database).create("ann", Role.READER)
    database.downgrade("base")
    with serving(face(database, tmp_path)) as url:
        answer = requests.get(f"{url}/v1/me", headers={"Authorization": f"Bearer {token}"}, timeout=PATIENCE)
        assert answer.status_code == 503
        assert answer.json()["hint"]
        assert requests.get(f"{url}/ready", timeout=PATIENCE).status_code == 503
        assert requests.get(f"{url}/health", timeout=PATIENCE).status_code == 200
    database.close()


def test_an_mlflow_that_is_away_gives_503_and_everything_else_goes_on(house: House):
    away = face(house.database, house.folder, tracking_uri="http://127.0.0.1:1")
    with serving(away) as url:
        headers = {"Authorization": f"Bearer {house.token('patient')}"}
        answer = requests.get(f"{url}/v1/models", headers=headers, timeout=PATIENCE)
        assert (answer.status_code, answer.json()["error"]) == (503, "MLflow is away")
        assert requests.get(f"{url}/v1/uploads", headers=headers, timeout=PATIENCE).json() == {"uploads": []}
