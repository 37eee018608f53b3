"""What the API answers, as models: the OpenAPI description and the answers themselves are made of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..base.records import ErrorInfo, Event, LogRecord, Status

__all__ = [
    "Answer",
    "Bulk",
    "BulkFailure",
    "Cancelled",
    "Child",
    "Current",
    "Detail",
    "EventsPage",
    "Facts",
    "Forked",
    "InstancesPage",
    "Kill",
    "KillsPage",
    "Limits",
    "LogsPage",
    "Metadata",
    "Outcome",
    "Rate",
    "Run",
    "Short",
    "Signal",
    "Signalled",
    "Stacks",
    "Started",
    "Steered",
    "Step",
    "Summary",
    "Try",
    "Wait",
    "WorkflowInfo",
    "Workflows",
]


class Answer(BaseModel):
    """Base of all."""

    model_config = ConfigDict(frozen=True)


class Rate(Answer):
    """So many starts within so many seconds."""

    count: int
    seconds: float


class Limits(Answer):
    """What bounds a workflow; 0 is unlimited."""

    max_concurrent: int
    on_limit: str
    rate: Rate | None
    keyed: bool


class WorkflowInfo(Answer):
    """One workflow."""

    name: str
    registered: bool
    style: Literal["graph", "flow", "machine", "action"] | None
    description: str | None
    tags: list[str]
    isolated: bool | None
    timeout: float | None
    version: str | None
    total_steps: int | None
    limits: Limits | None
    counts: dict[str, int]
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    signals: list[dict[str, Any]]
    graph: dict[str, Any] | None


class Workflows(Answer):
    """All workflows."""

    workflows: list[WorkflowInfo]
    last_event_id: int


class Short(Answer):
    """An error in two words."""

    type: str
    message: str
    step: str | None = None


class Facts(Answer):
    """What lists and details of instances have in common."""

    id: str
    workflow_name: str
    status: Status
    current_step: str | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    wake_at: datetime | None
    deadline_at: datetime | None
    executions: int
    priority: int
    parent_id: str | None
    limit_key: str | None
    version: str | None
    pid: int | None
    completed_steps: int
    total_steps: int | None


class Summary(Facts):
    """One instance in a list. `retrying` is the error after which a sleeping one tries its step again."""

    error: Short | None
    retrying: Short | None


class InstancesPage(Answer):
    """Instances, the newest first; `older` goes into `before`, `newer` into `after`."""

    instances: list[Summary]
    older: str | None
    newer: str | None
    last_event_id: int


class Current(Answer):
    """What is looked at first; `again` waits for a slot or for its next try, `broken` has failed or timed out in the last day, and was not forked since."""

    running: list[Summary]
    again: list[Summary]
    broken: list[Summary]


class Try(Answer):
    """One attempt of a step."""

    attempt: int
    started_at: datetime
    ended_at: datetime | None
    outcome: Literal["running", "completed", "retry", "failed", "crashed", "interrupted"]
    error: Short | None
    delay: float | None


class Step(Answer):
    """One step of an instance."""

    key: str
    step_name: str
    kind: str
    status: str
    input: Any
    output: Any
    error: ErrorInfo | None
    attempts: int
    started_at: datetime | None
    completed_at: datetime | None
    poll_count: int
    loop_count: int
    wake_at: datetime | None
    deadline_at: datetime | None
    event_name: str | None
    schema_: dict[str, Any] | None = Field(alias="schema")
    child_id: str | None
    tries: list[Try]


class Wait(Answer):
    """Something that an instance waits for."""

    kind: Literal["signal", "time", "instance", "slot", "person", "code"]
    step: str | None = None
    name: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    until: datetime | None = None
    instance_id: str | None = None
    reason: str | None = None
    ahead: int | None = None


class Child(Answer):
    """Another instance, by name."""

    id: str
    workflow_name: str
    status: Status
    step: str | None = None


class Signal(Answer):
    """A signal that was accepted; `taken_by` is the step that took it."""

    id: int
    name: str
    payload: Any
    created_at: datetime
    taken_by: str | None


class Run(Answer):
    """One execution: a process, from its beginning to its end."""

    event: str
    at: datetime
    pid: int | None
    ended_at: datetime | None
    why: str | None


class Kill(Answer):
    """What the watchdog has ended, and why."""

    id: int
    created_at: datetime
    instance_id: str
    workflow_name: str
    pid: int | None
    reason: str | None
    timeout: float | None
    silent_for: float | None
    stack: str | None


class KillsPage(Answer):
    """Kills, the newest first; `older` goes into `before`."""

    kills: list[Kill]
    older: int | None


class Detail(Facts):
    """One instance with all that belongs to it."""

    error: ErrorInfo | None
    input: Any
    output: Any
    metadata: dict[str, Any]
    steps: list[Step]
    waits_for: list[Wait]
    children: list[Child]
    parent: Child | None
    signals: list[Signal]
    runs: list[Run]
    kills: list[Kill]
    can: dict[str, bool]
    style: str | None
    state: Any
    state_schema: dict[str, Any] | None
    history_truncated: bool
    last_event_id: int


class Started(Answer):
    """An instance that was started, now or by an earlier call with this id."""

    id: str
    workflow_name: str
    status: Status
    created: bool


class Outcome(Answer):
    """How an instance stands; `output` is null until it has completed."""

    id: str
    workflow_name: str
    status: Status
    output: Any


class Cancelled(Answer):
    """Whether this call cancelled the instance."""

    id: str
    cancelled: bool
    status: Status


class Steered(Answer):
    """An instance and its status after the call."""

    id: str
    status: Status


class Forked(Answer):
    """A new instance that shares another's journal."""

    id: str
    forked_from: str
    status: Status


class Signalled(Answer):
    """A signal that was accepted."""

    id: str
    name: str
    status: Status


class Metadata(Answer):
    """An instance's metadata after the call."""

    id: str
    metadata: dict[str, Any]


class BulkFailure(Answer):
    """One instance that a bulk call left as it was."""

    id: str
    code: str
    detail: str


class Bulk(Answer):
    """How many instances a bulk call changed, and which of the named ones it did not."""

    action: str
    count: int
    failed: list[BulkFailure]


class EventsPage(Answer):
    """Events, oldest first unless `order` is `desc`; `next` goes into `after`, `before` (where pages go back) into `before`; null where there are no more."""

    events: list[Event]
    next: int | None
    before: int | None


class LogsPage(Answer):
    """Log records; `next` and `before` as for events."""

    logs: list[LogRecord]
    next: int | None
    before: int | None


class Stacks(Answer):
    """The Python stacks of all threads of a running child."""

    id: str
    pid: int
    taken_at: datetime
    stacks: str
