"""What an executor writes: a closed set of operations, applied together in one transaction under its lease.

The engine says what happened; the store turns it into rows and events. All payloads are JSON texts already.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ..base.records import ErrorInfo, LogSource, Status

__all__ = [
    "Began",
    "ChildStarted",
    "Emitted",
    "Ended",
    "Lease",
    "Logged",
    "MetadataSet",
    "Op",
    "OutputSkipped",
    "Progress",
    "SignalTaken",
    "StepBegun",
    "StepCompleted",
    "StepCounted",
    "StepFailed",
    "StepRetrying",
    "StepWaiting",
    "Suspended",
]


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write one instance: its row and the epoch of the claim. A write with an older epoch is refused."""

    instance: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an instance is: `percent` runs from 0 to 100."""

    percent: float
    completed_steps: int
    total_steps: int | None
    current_step: str | None = None


@dataclass(frozen=True, slots=True)
class Began:
    """The executor has set up its plugins and goes to work. `timeout` is the workflow's, in seconds."""

    pid: int
    pid_start: int
    boot_id: str
    version: str | None
    timeout: float | None


@dataclass(frozen=True, slots=True)
class StepBegun:
    """One try of a step begins. `deadline` is wall-clock seconds since the epoch.

    `boundary` says that nothing of it is done yet: where a pause is wanted it does not begin (`PauseWanted`).
    """

    key: str
    name: str
    kind: str
    attempt: int
    input: str | None = None
    deadline: float | None = None
    quiet: bool = False
    boundary: bool = False


@dataclass(frozen=True, slots=True)
class StepRetrying:
    """One try failed; the next begins at `wake_at`."""

    key: str
    name: str
    kind: str
    attempt: int
    failures: int
    max_attempts: int
    error: ErrorInfo
    delay: float
    wake_at: float


@dataclass(frozen=True, slots=True)
class StepWaiting:
    """A step waits for a time, a signal or a child's end. Written when the wait begins, so its deadline is durable."""

    key: str
    name: str
    kind: str
    wake_at: float | None
    event_name: str | None = None
    schema: str | None = None
    child_id: str | None = None


@dataclass(frozen=True, slots=True)
class StepCounted:
    """A poll checked once more, or a loop jumped back once more."""

    key: str
    name: str
    kind: str
    poll_count: int = 0
    loop_count: int = 0
    wake_at: float | None = None
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StepCompleted:
    """A step's end is acknowledged by the commit of this. `begin` inserts a step that never had a row of its own."""

    key: str
    name: str
    kind: str
    output: str
    progress: Progress | None = None
    begin: bool = False
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class StepFailed:
    """A step's tries are spent. `attempts` counts those that ran in another instance; else the row knows them."""

    key: str
    name: str
    kind: str
    error: ErrorInfo
    failures: int
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Emitted:
    """An event of a handler (`ctx.emit`), a chunk of a stream (`apply` numbers it), or progress within a step."""

    name: str
    data: dict[str, Any]
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Logged:
    """One log record. `position` is how far the stream's file has been read, in bytes, for what the child printed."""

    level: int
    level_name: str
    message: str
    data: dict[str, Any]
    step_name: str | None
    attempt: int | None
    source: LogSource
    at: float
    position: int | None = None


@dataclass(frozen=True, slots=True)
class OutputSkipped:
    """What a stream's file holds up to a position was printed by a replay: nobody keeps it."""

    source: Literal["stdout", "stderr"]
    position: int


@dataclass(frozen=True, slots=True)
class SignalTaken:
    """A kept signal was used by a step (its key), or dropped because it did not fit."""

    id: int
    key: str


@dataclass(frozen=True, slots=True)
class ChildStarted:
    """The instance starts another one, in the commit that journals it; `priority` and the rest as for `start`."""

    id: str
    workflow_name: str
    input: str
    parent_key: str
    priority: int = 0
    wake_at: float | None = None
    limit_key: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class MetadataSet:
    """One key of the instance's metadata."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Suspended:
    """The executor gives its process back until `wake_at`, a signal, or a person."""

    status: Status
    wake_at: float | None = None
    reason: str = ""
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """The instance has reached its end."""

    status: Status
    output: str | None = None
    error: ErrorInfo | None = None
    progress: Progress | None = None


Op = (
    Began
    | StepBegun
    | StepRetrying
    | StepWaiting
    | StepCounted
    | StepCompleted
    | StepFailed
    | Emitted
    | Logged
    | MetadataSet
    | OutputSkipped
    | SignalTaken
    | ChildStarted
    | Suspended
    | Ended
)
