"""The spans of a submission, and that they reach a collector over HTTP."""

import json
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from bench import plugins
from bench.client import Client
from bench.errors import OperatorError
from bench.records import Reason
from bench.service.access import Access, Role
from bench.service.database import Database
from bench.service.face import face
from bench.service.fair import FairQueue
from bench.service.server import Lines
from bench.service.submission import AtWork
from bench.service.traces import ENDPOINT, SILENT, Told, traces
from bench.suite import Resources
from bench.worker import Failed, Measured
from tests.service.house import serving
from tests.service.test_fair import Job
from tests.service.test_intake import SUITE


@pytest.fixture
def spans() -> tuple[Told, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    return Told("test", exporter), exporter


def test_two_processes_write_into_one_trace_without_telling_each_other():
    face, dispatcher = InMemorySpanExporter(), InMemorySpanExporter()
    for exporter, path in ((face, ("s-1", "submit")), (dispatcher, ("s-1",)), (dispatcher, ("s-2",))):
        told = Told("test", exporter)
        told.span(path, 1.0, 2.0)
        told.flush()
    [submit], [root, other] = face.get_finished_spans(), dispatcher.get_finished_spans()
    assert submit.context.trace_id == root.context.trace_id != other.context.trace_id
    assert submit.parent is not None
    assert submit.parent.span_id == root.context.span_id
    assert (root.name, root.parent) == ("submission", None)


def test_a_span_has_its_times_its_figures_and_its_problem(spans: tuple[Told, InMemorySpanExporter]):
    told, exporter = spans
    told.span(("s-1", "attempt:3", "task:abc"), 1.25, 2.5, {"gauntlet.attempts": 2}, "out of memory")
    told.flush()
    [found] = exporter.get_finished_spans()
    assert (found.name, found.start_time, found.end_time) == ("task", 1_250_000_000, 2_500_000_000)
    assert dict(found.attributes or {}) == {"gauntlet.submission": "s-1", "gauntlet.attempts": 2}
    assert (found.status.is_ok, found.status.description) == (False, "out of memory")
    assert found.resource.attributes["service.name"] == "test"


def test_spans_at_the_same_time_keep_their_ids(spans: tuple[Told, InMemorySpanExporter]):
    told, exporter = spans

    def many(name: str) -> None:
        for index in range(50):
            told.span((name, f"task:{index}"), 0, 1)

    threads = [threading.Thread(target=many, args=(f"s-{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told.flush()
    found = exporter.get_finished_spans()
    assert len({span.context.span_id for span in found}) == 200
    by_submission = {(span.attributes or {})["gauntlet.submission"]: span.context.trace_id for span in found}
    assert len(set(by_submission.values())) == 4
    assert all(span.context.trace_id == by_submission[span.attributes["gauntlet.submission"]] for span in found)


def test_off_unless_asked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(ENDPOINT, raising=False)
    assert traces("test") is SILENT


def test_without_the_exporter_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(OperatorError, match=r"gauntlet-bench\[traces\]"):
        traces("test")


class Collector(HTTPServer):
    """Takes OTLP over HTTP."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, ExportTraceServiceRequest]] = []
        super().__init__(("127.0.0.1", 0), _Post)


class _Post(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.taken.append((self.path, ExportTraceServiceRequest.FromString(body)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def test_spans_reach_a_collector_over_http(monkeypatch: pytest.MonkeyPatch, collector: Collector):
    monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{collector.server_port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")  # seconds; whoever waits less sends it twice
    told = traces("gauntlet-dispatcher")
    assert isinstance(told, Told)
    told.span(("s-1", "submit"), 1, 2)
    told.flush()
    [(path, taken)] = collector.taken
    assert path == "/v1/traces"
    [span] = taken.resource_spans[0].scope_spans[0].spans
    assert (span.name, span.start_time_unix_nano, span.end_time_unix_nano) == ("submit", 10**9, 2 * 10**9)


def test_the_face_tells_when_a_suite_was_handed_in(spans: tuple[Told, InMemorySpanExporter], tmp_path: Path):
    plugins.load_built_in()
    told, exporter = spans
    database = Database(f"sqlite:///{tmp_path}/service.db")
    database.upgrade()
    token = Access(database).create("ann", Role.SUBMITTER)
    with serving(face(database, tmp_path, traces=told)) as url:
        made = Client(url, token).submit(yaml.safe_dump(SUITE).encode())["id"]
    database.close()
    told.flush()
    [found] = exporter.get_finished_spans()
    assert found.name == "submit"
    assert dict(found.attributes or {}) == {"gauntlet.submission": made, "gauntlet.owner": "ann"}


@dataclass
class Foreman:
    traces: Told
    queue: FairQueue = field(default_factory=lambda: FairQueue(lambda job: 1.0))
    handed: dict[str, float] = field(default_factory=dict)

    def carry_out(self, each: AtWork) -> None:
        """Nothing."""

    def note(self, job: object, outcome: object) -> None:
        """Nothing."""


def test_what_becomes_of_a_task_is_told_and_a_failure_is_logged_with_both_ids(
    spans: tuple[Told, InMemorySpanExporter], caplog: pytest.LogCaptureFixture
):
    told, exporter = spans
    foreman, kept = Foreman(told), []
    each = AtWork(SimpleNamespace(id="s-1", owner="ann", started=5.0), foreman)  # type: ignore[arg-type]
    more = {"resources": Resources(), "progress": print, "canceled": lambda: False, "alone": False, "sources": ()}
    jobs = iter([Job("good"), Job("bad")])
    thread = threading.Thread(target=lambda: each.dispatch(jobs, lambda *told: kept.append(told), **more))
    thread.start()
    outcomes = {"good": Measured(b"", 0.25), "bad": Failed(Reason.MEMORY, "too large")}
    while len(kept) < 2:
        assert thread.is_alive()
        ticket = next(foreman.queue, None)
        if ticket is not None:
            foreman.handed[ticket.key] = time.time() - 1.0
            foreman.queue.sink(ticket, outcomes[ticket.key], 2)
        else:
            time.sleep(0.001)  # whoever asks without a pause keeps the queue's lock from the submission's thread
    assert next(foreman.queue, None) is None
    thread.join(60)
    assert not thread.is_alive()
    told.flush()
    found = {(span.name, span.parent.span_id if span.parent else None): span for span in exporter.get_finished_spans()}
    tasks = [span for span in exporter.get_finished_spans() if span.name == "task"]
    assert {(span.attributes or {})["gauntlet.task"]: span.status.description for span in tasks} == {
        "good": None, "bad": "too large",
    }  # fmt: skip
    for task in tasks:
        worker, store = found["worker", task.context.span_id], found["store", task.context.span_id]
        assert task.start_time == worker.start_time < worker.end_time == store.start_time
        assert store.end_time == task.end_time
    [measured] = [span for (name, _), span in found.items() if name == "measure"]
    assert measured.end_time - measured.start_time == pytest.approx(0.25e9, rel=1e-3)
    [line] = [record for record in caplog.records if record.message == "a task failed"]
    line._ray_timestamp_ns = 1  # as Ray does, unasked
    shown = json.loads(Lines().format(line))
    assert not any(name.startswith("_") for name in shown)
    assert (shown["submission"], shown["task"], shown["attempts"], shown["why"]) == ("s-1", "bad", 2, "too large")
