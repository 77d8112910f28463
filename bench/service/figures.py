"""Figures for Prometheus, of this process's requests and of the queue. The one file that knows prometheus_client."""

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import func, select

from bench.service.database import Database, Lease, Outbox, State, Submission, Usage
from bench.service.queue import day


class Figures(Collector):
    """Counts requests; what the database says is read when Prometheus asks."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._registry = CollectorRegistry()
        labels = ("method", "route")
        self._requests = Counter("gauntlet_requests", "requests", (*labels, "status"), registry=self._registry)
        self._seconds = Histogram(
            "gauntlet_request_seconds", "until the answer begins", labels, registry=self._registry
        )
        self._registry.register(self)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        known = method if method in ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH") else "other"
        self._requests.labels(known, route, status).inc()
        self._seconds.labels(known, route).observe(seconds)

    def text(self) -> bytes:
        return bytes(generate_latest(self._registry))

    def lease(self) -> float:
        """Seconds that the dispatcher's lease still lasts; negative where there is none at work."""
        with self._database.reading() as session:
            lease = session.get(Lease, "dispatcher")
            return lease.expires - time.time() if lease else -1.0

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing: registering must not ask the database."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        with self._database.reading() as session:
            counted = session.execute(select(Submission.state, func.count()).group_by(Submission.state))
            states = dict.fromkeys(map(str, State), 0) | {str(state): int(count) for state, count in counted}
            oldest = session.scalar(select(func.min(Submission.queued)).where(Submission.state == State.QUEUED))
            outbox = session.scalar(select(func.count()).select_from(Outbox)) or 0
            today = Usage.day == day(time.time())
            seconds, tasks = session.execute(select(func.sum(Usage.seconds), func.sum(Usage.tasks)).where(today)).one()
        submissions = GaugeMetricFamily("gauntlet_submissions", "submissions", labels=["state"])
        for state, count in states.items():
            submissions.add_metric([state], count)
        yield submissions
        for name, about, value in (
            (
                "gauntlet_oldest_queued_seconds",
                "how long the oldest one waits",
                time.time() - oldest if oldest else 0.0,
            ),
            ("gauntlet_outbox", "submissions that MLflow has not been told of", outbox),
            ("gauntlet_lease_seconds", "that the dispatcher's lease still lasts", self.lease()),
            ("gauntlet_worker_seconds_today", "that tasks have taken", seconds or 0.0),
            ("gauntlet_tasks_today", "tasks that have ended", tasks or 0),
        ):
            yield GaugeMetricFamily(name, about, value=float(value))
