"""Prometheus metrics at `/metrics`.

What can be counted from rows is counted when it is asked for, by queries over indexes; durations and the like are gathered from the
events that pass by. Counters so begin at 0 with the server, as Prometheus expects.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from ..base.records import Event
from ..store import browse
from .problems import answer, problem_of
from .served import Served

__all__ = ["Metrics"]

_OPEN_STEPS = 20_000
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 86400)
_FAST = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_LAGS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_ENDS = {
    "workflow.step.completed": "completed",
    "workflow.step.failed": "failed",
    "workflow.step.retry": "retry",
}
_INSTANCE_ENDS = {
    "workflow.completed": "completed",
    "workflow.failed": "failed",
    "workflow.cancelled": "cancelled",
    "workflow.timed_out": "timed_out",
}


class Metrics:
    """The metrics of one server."""

    def __init__(self, served: Served) -> None:
        """Begin to listen to events."""
        self._served = served
        self._registry = CollectorRegistry(auto_describe=False)
        self._gauges = _Gauges()
        self._registry.register(self._gauges)
        self._began: OrderedDict[tuple[str, str], datetime] = OrderedDict()
        made: dict[str, Any] = {"registry": self._registry}
        self.steps = Histogram(
            "paddock_step_duration_seconds",
            "How long tries of steps took",
            ("workflow", "kind", "outcome"),
            buckets=_BUCKETS,
            **made,
        )
        self.ended = Counter("paddock_instances_ended", "Instances that ended", ("workflow", "status"), **made)
        self.started = Counter("paddock_instances_started", "Instances that began to run", ("workflow",), **made)
        self.resumed = Counter("paddock_resumes", "Executions that went on with an instance", ("workflow",), **made)
        self.crashed = Counter("paddock_crashes", "Processes that died without being asked to", ("workflow",), **made)
        self.stale = Counter("paddock_watchdog_stale", "Processes found stale", ("workflow",), **made)
        self.killed = Counter("paddock_watchdog_kills", "Processes ended by the watchdog", ("workflow",), **made)
        self.lag = Histogram(
            "paddock_event_lag_seconds", "From an event's commit to its publication here", buckets=_LAGS, **made
        )
        self.commits = Histogram(
            "paddock_commit_duration_seconds", "How long the server's own commits took", buckets=_FAST, **made
        )
        served.events.on("workflow.*", self._take)

    # --- events ---

    def _take(self, event: Event) -> None:
        name, workflow = event.name, event.workflow_name
        self.lag.observe(max(0.0, time.time() - event.created_at.timestamp()))
        if name.startswith("workflow.step."):
            self._take_step(event)
        elif (status := _INSTANCE_ENDS.get(name)) is not None:
            self.ended.labels(workflow, status).inc()
        elif name == "workflow.started":
            self.started.labels(workflow).inc()
        elif name == "workflow.resumed":
            self.resumed.labels(workflow).inc()
        elif name == "workflow.crashed":
            self.crashed.labels(workflow).inc()
        elif name == "workflow.watchdog.stale":
            self.stale.labels(workflow).inc()
        elif name == "workflow.watchdog.killed":
            self.killed.labels(workflow).inc()

    def _take_step(self, event: Event) -> None:
        key = (event.instance_id, str(event.data.get("step")))
        if event.name == "workflow.step.started":
            self._began[key] = event.created_at
            while len(self._began) > _OPEN_STEPS:
                self._began.popitem(last=False)
        elif (outcome := _ENDS.get(event.name)) is not None and (began := self._began.pop(key, None)) is not None:
            seconds = max(0.0, (event.created_at - began).total_seconds())
            self.steps.labels(event.workflow_name, str(event.data.get("step_type")), outcome).observe(seconds)

    # --- scraping ---

    async def respond(self, request: Request) -> Response:
        """Answer a scrape."""
        try:
            self._served.store().observe_commits(self.commits.observe)
            await self._gauges.refresh(self._served)
            text = await asyncio.to_thread(generate_latest, self._registry)
        except Exception as error:  # noqa: BLE001  the caller gets an answer
            return answer(problem_of(error))
        return Response(text, media_type=CONTENT_TYPE_LATEST)


class _Gauges(Collector):
    """What is read from rows, as of the last scrape."""

    def __init__(self) -> None:
        self._families: list[Metric] = []

    def collect(self) -> Iterable[Metric]:
        return self._families

    async def refresh(self, served: Served) -> None:
        store = served.store()
        counts = await store.view(browse.counts)
        queued, running = await store.view(browse.queues)
        size = await store.view(browse.database_size)
        families = [_instances(counts), *_queues(queued, running), *_files(store.path, size)]
        families += list(_processes(await served.processes(), served.settings.process_limit))
        health = await served.health()
        families.append(_single("paddock_problems", "Parts that are not well", len(health["problems"])))
        self._families = families


def _single(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _instances(counts: list[browse.Row]) -> Metric:
    family = GaugeMetricFamily("paddock_instances", "Instances there are", labels=("workflow", "status"))
    for row in counts:
        family.add_metric((row["workflow_name"], row["status"]), row["count"])
    return family


def _queues(queued: list[browse.Row], running: list[browse.Row]) -> Iterator[Metric]:
    for name, text, rows, column in (
        ("paddock_queue_depth", "Instances that wait for a slot", queued, "pending"),
        ("paddock_queue_delayed", "Instances that wait for their time in the queue", queued, "delayed"),
        ("paddock_running", "Instances that hold a slot", running, "running"),
    ):
        totals: dict[str, int] = {}
        for row in rows:
            totals[row["workflow_name"]] = totals.get(row["workflow_name"], 0) + row[column]
        family = GaugeMetricFamily(name, text, labels=("workflow",))
        for workflow, total in totals.items():
            family.add_metric((workflow,), total)
        yield family


def _files(path: str, size: int) -> Iterator[Metric]:
    wal = 0
    with contextlib.suppress(OSError):
        wal = os.stat(f"{path}-wal").st_size
    yield _single("paddock_database_bytes", "Size of the database", size)
    yield _single("paddock_wal_bytes", "Size of the write-ahead log", wal)


def _processes(rows: list[dict[str, Any]], limit: int) -> Iterator[Metric]:
    family = GaugeMetricFamily("paddock_processes", "Processes that run for this server", labels=("role",))
    memory = GaugeMetricFamily("paddock_memory_bytes", "Resident memory of them", labels=("role",))
    for role in sorted({row["role"] for row in rows}):
        mine = [row for row in rows if row["role"] == role]
        family.add_metric((role,), len(mine))
        memory.add_metric((role,), sum(row["rss"] or 0 for row in mine))
    yield family
    yield memory
    yield _single("paddock_processes_limit", "Children that may run at once", limit)
