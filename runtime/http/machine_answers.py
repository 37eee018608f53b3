"""What the API answers of the machine: processes, queues, schedules, health."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ..server.scheduler import Schedule
from .answers import Answer, Rate

__all__ = ["Health", "Overview", "Process", "Processes", "Queue", "Queues", "Schedules", "Session"]


class Process(Answer):
    """One process that runs for this server; `rss` in bytes, `cpu` in seconds used, `last_beat` in seconds since."""

    role: str
    pid: int
    instance_id: str | None
    workflow_name: str | None
    step: str | None
    rss: int | None
    cpu: float | None
    last_beat: float | None
    started_at: datetime | None


class Processes(Answer):
    """What runs, and how many children may."""

    processes: list[Process]
    limit: int


class Queue(Answer):
    """What is queued and runs of one workflow, or of one limit key of it."""

    workflow_name: str
    key: str | None
    pending: int
    delayed: int
    running: int
    limit: int
    rate: Rate | None
    oldest_at: datetime | None


class Queues(Answer):
    """All queues that are not empty."""

    max_processes: int
    processes: int
    queues: list[Queue]


class Schedules(Answer):
    """All schedules."""

    schedules: list[Schedule]


class Health(Answer):
    """Whether all is well, and what is not, by part."""

    ok: bool
    problems: dict[str, Any]


class Overview(Answer):
    """The server at a glance."""

    version: str
    started_at: datetime | None
    pid: int
    database: str
    counts: dict[str, int]
    processes: dict[str, int]
    ok: bool
    problems: dict[str, Any]
    workflows: int
    schedules: int
    last_event_id: int


class Session(Answer):
    """Whether a token is needed, and whether this caller has shown it."""

    required: bool
    authenticated: bool
