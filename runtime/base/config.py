"""Configuration: frozen, validated where it is made, every duration in seconds once it is held."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from .duration import Duration
from .errors import ConfigError
from .values import describe_validation

__all__ = ["SqlitePragmas", "WatchdogConfig", "WorkflowsConfig"]

_SIZE_UNITS = {"": 1, "b": 1, "kb": 2**10, "mb": 2**20, "gb": 2**30}
_MIN_INTERVALS = 3


def _size(value: object) -> object:
    """Turn "4MB" into bytes; leave the rest to pydantic."""
    if isinstance(value, str):
        digits = value.strip().lower().rstrip("bgkm ")
        unit = value.strip().lower()[len(digits) :].strip()
        if digits.isdigit() and unit in _SIZE_UNITS:
            return int(digits) * _SIZE_UNITS[unit]
    return value


Size = Annotated[int, BeforeValidator(_size), Field(gt=0)]


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(f"{type(self).__name__}: {describe_validation(error)}") from None


class SqlitePragmas(_Config):
    """How every process opens the database.

    `synchronous="FULL"` (the default) makes acknowledged commits outlive a power cut, `"NORMAL"` the death of every process.
    Locks held by strangers are waited for in turns of `busy_timeout`.
    """

    if TYPE_CHECKING:  # a checker would hold callers to the fields' types, and refuse "5s"

        def __init__(self, **values: Any) -> None: ...

    busy_timeout: Duration = 5.0
    journal_mode: Literal["WAL"] = "WAL"
    synchronous: Literal["FULL", "NORMAL", "EXTRA"] = "FULL"


class WorkflowsConfig(_Config):
    """How workflows are admitted, run and resumed. Limits of 0 mean unlimited."""

    if TYPE_CHECKING:  # a checker would hold callers to the fields' types, and refuse "5s"

        def __init__(self, **values: Any) -> None: ...

    concurrent_workflows: int = Field(default=0, ge=0)
    concurrent_workflows_by_name: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    max_processes: int | None = Field(default=None, gt=0)
    launcher: Literal["fork", "spawn", "inline"] = "fork"
    transport: Literal["unix", "tcp"] = "unix"
    resume: Literal["background", "blocking", "skip"] = "background"
    max_resumes: int = Field(default=3, ge=0)
    ready_timeout: Duration = 10.0
    kill_grace: Duration = 5.0
    orphan_grace: Duration = 30.0
    max_payload: Size = 4 * 2**20
    max_output: Size = 4 * 2**20
    suspend_after: Duration = 1.0
    cleanup_days: float = Field(default=30, ge=0)
    cleanup_interval: Duration = 3600.0
    sqlite_pragmas: SqlitePragmas = Field(default_factory=SqlitePragmas)

    @property
    def process_limit(self) -> int:
        """Return how many children may live at once: `max_processes`, else four per processor, at least 4."""
        return self.max_processes or max(4, 4 * (os.cpu_count() or 1))

    def limit_for(self, name: str, registered: int | None) -> int:
        """Return the concurrency limit of a workflow: by registration, else by name, else the default (0 = unlimited)."""
        if registered is not None:
            return registered
        return self.concurrent_workflows_by_name.get(name, self.concurrent_workflows)


class WatchdogConfig(_Config):
    """How children are watched.

    `heartbeat_timeout` bounds the silence of a process that uses no CPU; `stall_timeout` (off by default) that of an event loop.
    Both must be at least three intervals, or one late look would kill a healthy child.
    """

    if TYPE_CHECKING:  # a checker would hold callers to the fields' types, and refuse "5s"

        def __init__(self, **values: Any) -> None: ...

    enabled: bool = True
    interval: Duration = 1.0
    heartbeat_timeout: Duration = 30.0
    stall_timeout: Duration | None = None
    kill_grace: Duration = 5.0

    @model_validator(mode="after")
    def _thresholds(self) -> Self:
        if self.interval <= 0:
            raise ValueError("interval: it must be more than 0 seconds")
        for name in ("heartbeat_timeout", "stall_timeout"):
            value = getattr(self, name)
            if value is not None and value < _MIN_INTERVALS * self.interval:
                raise ValueError(
                    f"{name}: {value:g}s is under three intervals of {self.interval:g}s; raise it or lower the interval"
                )
        return self
