"""The records that users read: instances, step results, events, log records. Frozen; timestamps are timezone-aware UTC."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "ACTIVE",
    "LEVELS",
    "TERMINAL",
    "ErrorInfo",
    "Event",
    "Instance",
    "LogRecord",
    "LogSource",
    "Status",
    "StepResult",
    "StepStatus",
]


class Status(StrEnum):
    """What an instance is doing. `store/lifecycle.py` holds the table of who moves it where."""

    PENDING = "pending"  # waits for a slot or for `wake_at`; the dispatcher moves it on
    RUNNING = "running"  # holds a lease; its executor moves it on, or the supervisor once that is dead
    SLEEPING = "sleeping"  # no process until `wake_at`; the timers move it on
    WAITING = "waiting"  # no process until a signal or a child's end; the inbox moves it on
    PAUSED = "paused"  # held by a person, who also releases it
    BLOCKED = "blocked"  # cannot go on with this code; a server start or `retry` tries it again
    COMPLETED = "completed"  # the end: it has an output
    FAILED = "failed"  # the end: it has an error; only `retry` opens it again
    CANCELLED = "cancelled"  # the end, by a person's wish
    TIMED_OUT = "timed_out"  # the end, by the workflow's own deadline


TERMINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.TIMED_OUT})
ACTIVE = frozenset(Status) - TERMINAL


class StepStatus(StrEnum):
    """What a step is doing."""

    RUNNING = "running"  # begun; its end is not acknowledged
    RETRYING = "retrying"  # its last try failed; the next begins at `wake_at`
    WAITING = "waiting"  # a sleep, a wait or a poll between two checks
    COMPLETED = "completed"  # acknowledged; it never begins again
    FAILED = "failed"  # its tries are spent
    CANCELLED = "cancelled"  # it was under way when its instance ended


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ErrorInfo(_Record):
    """Why something failed.

    For a process's death also: `cause`, a word for why it died (the table in docs/supervision.md); `signal` (name) or `exit_code`;
    `attempt`, the try of `step` that was open; `stack`, all threads' Python stacks; `output` and `error_output`, the last 64 KB of
    stdout and stderr; `max_rss` in bytes, `user_seconds`, `system_seconds` and their sum `cpu_seconds`, as the kernel counted them;
    `peak_memory`, bytes, the most that the watchdog saw it hold with all that it had started, where it has a `memory_limit`.
    """

    type: str
    message: str
    step: str | None = None
    attempt: int | None = None
    cause: str | None = None
    traceback: str | None = None
    signal: str | None = None
    exit_code: int | None = None
    stack: str | None = None
    output: str | None = None
    error_output: str | None = None
    max_rss: int | None = None
    peak_memory: int | None = None
    cpu_seconds: float | None = None
    user_seconds: float | None = None
    system_seconds: float | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """Return what is set of the fields that a process's death has."""
        return self.model_dump(exclude={"type", "message", "step", "traceback"}, exclude_none=True)


class StepResult(_Record):
    """One step of one instance, as its journal holds it."""

    key: str
    step_name: str
    kind: str
    status: StepStatus
    input: Any = None
    output: Any = None
    error: ErrorInfo | None = None
    attempts: int = 0
    started_at: datetime | None = None
    completed_at: datetime | None = None
    poll_count: int = 0
    loop_count: int = 0


class Instance(_Record):
    """One run of a workflow."""

    id: str
    workflow_name: str
    status: Status
    current_step: str | None = None  # the key of the step that is open; of a waiting instance, the wait's name
    input: Any = None
    output: Any = None
    error: ErrorInfo | None = None
    step_results: dict[str, StepResult] = Field(default_factory=dict)
    metadata: dict[str, Any] = Field(default_factory=dict)
    created_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None
    wake_at: datetime | None = None
    executions: int = 0
    parent_id: str | None = None
    priority: int = 0
    version: str | None = None
    pid: int | None = None


class Event(_Record):
    """One thing that happened. `id` rises strictly in commit order and is never used again: it is the cursor."""

    id: int
    name: str
    instance_id: str
    workflow_name: str
    created_at: datetime
    data: dict[str, Any] = Field(default_factory=dict)


LogSource = Literal["handler", "stdout", "stderr", "runtime"]

#: Names of levels and their numbers, lowest first.
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


class LogRecord(_Record):
    """One line that a handler logged, that the child printed, or that the runtime noted about the instance."""

    id: int
    created_at: datetime
    level: str
    message: str
    data: dict[str, Any] = Field(default_factory=dict)
    instance_id: str
    workflow_name: str
    step_name: str | None = None
    attempt: int | None = None
    source: LogSource = "handler"
