"""The spans of a submission, and that they reach a collector over HTTP."""

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from bench.errors import OperatorError
from bench.service.traces import ENDPOINT, SILENT, Told, traces


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
    told = traces("gauntlet-dispatcher")
    assert isinstance(told, Told)
    told.span(("s-1", "submit"), 1, 2)
    told.flush()
    [(path, taken)] = collector.taken
    assert path == "/v1/traces"
    [span] = taken.resource_spans[0].scope_spans[0].spans
    assert (span.name, span.start_time_unix_nano, span.end_time_unix_nano) == ("submit", 10**9, 2 * 10**9)
