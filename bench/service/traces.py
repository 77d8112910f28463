"""OpenTelemetry traces of what becomes of a submission and of each of its tasks.

Off unless OTEL_EXPORTER_OTLP_ENDPOINT names a collector; nothing of OpenTelemetry is imported then. A submission is a
trace, and the ids of its spans follow from their places in it: so the face and each dispatcher write into the same
trace without telling each other anything, and a span is sent when it has ended.

submission ─┬ submit            handed in: checked and stored
            ├ queued            until a dispatcher took it up
            ├ attempt ── task ─┬ worker   from when the task was handed to a worker
            │                  │  └ measure   what it took there
            │                  └ store    its records
            └ publish           from the outbox to MLflow
"""

import atexit
import hashlib
import os
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from bench import __version__
from bench.errors import OperatorError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"  # and whatever else OpenTelemetry reads: headers, certificates, timeouts

Figures = Mapping[str, str | int | float | bool]


class Traces(Protocol):
    """Where spans go."""

    def span(
        self, path: Sequence[str], began: float, ended: float, figures: Figures | None = None, problem: str = ""
    ) -> None:
        """Something that has ended. path: the submission, then what it is within; a word before `:` is its name.

        began, ended: seconds since 1970 in UTC. problem: why it failed.
        """


class Silent:
    """Tells nobody."""

    def span(
        self, path: Sequence[str], began: float, ended: float, figures: Figures | None = None, problem: str = ""
    ) -> None:
        """Nothing."""


SILENT = Silent()


def traces(service: str) -> Traces:
    """To the collector that the environment names, over HTTP. service: who tells. Raises OperatorError."""
    if not os.environ.get(ENDPOINT):
        return SILENT
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        hint = "install gauntlet-bench[traces], or unset it"
        raise OperatorError(f"{ENDPOINT} is set, and OpenTelemetry's exporter is not installed", hint) from None
    return Told(service, OTLPSpanExporter())


class Told:
    """Sends spans in batches, in a thread of its own. A collector that is away costs spans and nothing else."""

    def __init__(self, service: str, exporter: "SpanExporter") -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.id_generator import IdGenerator

        class Ids(IdGenerator):
            """Those that were set last."""

            trace, span = 0, 0

            def generate_trace_id(self) -> int:
                return self.trace

            def generate_span_id(self) -> int:
                return self.span

        self._ids, self._lock = Ids(), threading.Lock()
        about = Resource.create({"service.name": service, "service.version": __version__})
        self._provider = TracerProvider(resource=about, id_generator=self._ids, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("gauntlet", __version__)
        atexit.register(self._provider.shutdown)

    def span(
        self, path: Sequence[str], began: float, ended: float, figures: Figures | None = None, problem: str = ""
    ) -> None:
        from opentelemetry.context import Context
        from opentelemetry.trace import (
            NonRecordingSpan,
            SpanContext,
            Status,
            StatusCode,
            TraceFlags,
            set_span_in_context,
        )

        trace, context = _number(path[:1], 16), Context()
        if len(path) > 1:
            parent = SpanContext(trace, _number(path[:-1], 8), is_remote=True, trace_flags=TraceFlags(1))
            context = set_span_in_context(NonRecordingSpan(parent), context)
        name = path[-1].partition(":")[0] if len(path) > 1 else "submission"
        about = {"gauntlet.submission": path[0], **(figures or {})}
        with self._lock:
            self._ids.trace, self._ids.span = trace, _number(path, 8)
            span = self._tracer.start_span(name, context, attributes=about, start_time=_nanoseconds(began))
        if problem:
            span.set_status(Status(StatusCode.ERROR, problem))
        span.end(_nanoseconds(ended))

    def flush(self) -> None:
        """Send what waits."""
        self._provider.force_flush()


def _number(path: Sequence[str], size: int) -> int:
    """An id of so many bytes. Ids of submissions hold 64 random bits, so nobody can write into another's trace."""
    return int.from_bytes(hashlib.blake2b("/".join(path).encode(), digest_size=size).digest())


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
