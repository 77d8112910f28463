"""What nobody expected: bugs, and disks that take no more."""

import json
import logging
import re
from pathlib import Path

import pytest
import requests

from bench import plugins
from bench.service import shapes
from bench.service.access import Access, Role
from bench.service.database import Audit, Database
from bench.service.face import face
from bench.service.server import Lines
from tests.service.house import PATIENCE, House, announced, house, serving

__all__ = ["house"]  # a fixture


def test_a_bug_is_told_like_everything_else_counted_and_logged(house: House, caplog: pytest.LogCaptureFixture):
    app = face(house.database, house.folder)

    @app.get("/bug/{text}")
    def bug(text: str) -> None:
        raise ZeroDivisionError("a secret of the inside")

    token = house.token("finder", Role.READER)
    with serving(app) as url, caplog.at_level(logging.ERROR):
        answer = requests.get(f"{url}/bug/a%0A%22b", timeout=PATIENCE)
        problem = shapes.Problem.model_validate_json(answer.content)
        assert (answer.status_code, problem.error) == (500, "a bug of the service")
        assert "secret" not in answer.text
        assert answer.headers["x-content-type-options"] == "nosniff"
        figures = requests.get(f"{url}/metrics", headers={"Authorization": f"Bearer {token}"}, timeout=PATIENCE).text
    assert 'gauntlet_requests_total{method="GET",route="/bug/{text}",status="500"} 1.0' in figures
    lines = [Lines().format(record) for record in caplog.records if "a request met a bug" in record.message]
    assert len(lines) == 1
    assert len(lines[0].splitlines()) == 1, "a path adds no line to the log"
    line = json.loads(lines[0])
    assert (line["method"], line["path"]) == ("GET", '/bug/a\n"b')
    assert "ZeroDivisionError" in line["traceback"]


def test_a_disk_that_is_full_gives_503_and_nothing_is_lost(house: House):
    token = house.token("filler")
    content = b"x" * 100_000
    made = house.call("POST", "/v1/uploads", token, json=announced(content)).json()["id"]
    place = house.folder / "uploads" / made
    place.parent.mkdir(exist_ok=True)
    place.symlink_to("/dev/full")
    answer = house.call("PUT", f"/v1/uploads/{made}?offset=0", token, data=content)
    assert (answer.status_code, answer.json()["error"]) == (503, "the service's disk takes no more")
    place.unlink(missing_ok=True)
    assert house.call("PUT", f"/v1/uploads/{made}?offset=0", token, data=content).json()["received"] == len(content)
    house.call("DELETE", f"/v1/uploads/{made}", token)


def test_what_cannot_be_written_to_the_audit_log_stands_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    plugins.load_built_in()
    database = Database(f"sqlite:///{tmp_path}/service.db")
    database.upgrade()
    token = Access(database).create("ann", Role.SUBMITTER)
    with database.writing() as session:
        Audit.__table__.drop(session.connection())  # type: ignore[attr-defined]
    with serving(face(database, tmp_path)) as url, caplog.at_level(logging.ERROR):
        answer = requests.post(
            f"{url}/v1/uploads", json=announced(b"x"), headers={"Authorization": f"Bearer {token}"}, timeout=PATIENCE
        )
    assert answer.status_code == 201
    (record,) = [record for record in caplog.records if "audit log cannot be written" in record.message]
    entry = (record.owner, record.verb, record.object, record.status)  # type: ignore[attr-defined]
    assert entry == ("ann", "upload", answer.json()["id"], 201)
    database.close()


def test_the_figures_that_the_docs_tell_of_are_those_that_prometheus_gets(house: House):
    token = house.token("prometheus-too", Role.READER)
    text = house.call("GET", "/metrics", token).text
    exported = {name for name in re.findall(r"^# HELP (\w+)", text, re.MULTILINE) if not name.endswith("_created")}
    told = set(re.findall(r"`(gauntlet_\w+)", (plugins.ROOT / "docs" / "operations.md").read_text()))
    assert told == exported
    users = {"prometheus-too", "filler", "finder"}
    assert not any(user in text for user in users), "who uses the service is nobody's business"
