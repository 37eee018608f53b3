"""What the bodies of requests hold, as models. Strict, and nothing unknown."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, RootModel, Tag

from .requests import KEY, DurationText, InstanceId, Key, integral

__all__ = [
    "BulkBody",
    "BulkCancel",
    "BulkNamed",
    "BulkRetry",
    "ForkBody",
    "RunBody",
    "ScheduleBody",
    "SessionBody",
    "SignalBody",
    "StartBody",
]


class Body(BaseModel):
    """Base of the bodies: nothing unknown, nothing converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class StartBody(Body):
    """What to start."""

    input: Any = None
    id: InstanceId | None = None
    delay: DurationText | None = None
    priority: Annotated[int, Field(ge=-(2**31), le=2**31), BeforeValidator(integral)] = 0
    # before 2.10 pydantic checks what a key must be, and does not describe it
    metadata: dict[Key, Any] = Field(default_factory=dict, json_schema_extra={"propertyNames": KEY})


class RunBody(StartBody):
    """What to run, and how long to wait for it."""

    timeout: DurationText | None = None


class ForkBody(Body):
    """From where, and with which input; without `input` the same."""

    from_step: str | None = None
    input: Any = None
    id: InstanceId | None = None


class SignalBody(Body):
    """The answer to a wait."""

    name: str = Field(min_length=1, max_length=1000)
    payload: Any = None


class BulkNamed(Body):
    """One thing to do to each of some instances."""

    action: Literal["cancel", "retry", "cleanup", "pause", "unpause"]
    ids: list[str] = Field(max_length=1000)
    workflow: None = None
    status: None = None
    older_than: None = None


class _BulkFound(Body):
    ids: None = None
    workflow: str | None = None


class BulkCancel(_BulkFound):
    """Cancel unfinished instances, of a workflow or a status."""

    action: Literal["cancel"]
    status: Literal["pending", "running", "sleeping", "waiting", "paused", "blocked"] | None = None
    older_than: None = None


class BulkRetry(_BulkFound):
    """Retry failed instances, of a workflow."""

    action: Literal["retry"]
    status: Literal["failed"] | None = None
    older_than: None = None


class BulkCleanup(_BulkFound):
    """Delete instances that have ended, of a workflow or a status, some time ago."""

    action: Literal["cleanup"]
    status: Literal["completed", "failed", "cancelled", "timed_out"] | None = None
    older_than: DurationText | None = None


def _bulk_kind(value: Any) -> str | None:
    if not isinstance(value, dict):
        return None
    if value.get("ids") is not None:
        return "(named)"
    return {"cancel": "(cancel)", "retry": "(retry)", "cleanup": "(cleanup)"}.get(str(value.get("action")))


class BulkBody(
    RootModel[
        Annotated[
            Annotated[BulkNamed, Tag("(named)")]
            | Annotated[BulkCancel, Tag("(cancel)")]
            | Annotated[BulkRetry, Tag("(retry)")]
            | Annotated[BulkCleanup, Tag("(cleanup)")],
            Discriminator(
                _bulk_kind,
                custom_error_type="bulk",
                custom_error_message="it needs an `action` (cancel, retry, cleanup) for what `workflow` and `status` find, or `ids` "
                "with one (these, pause, unpause)",
            ),
        ]
    ]
):
    """What to do with many instances: those that are named, or those of a workflow and a status."""


class _Scheduled(Body):
    workflow: str
    input: Any = None
    id: InstanceId | None = None
    tz: str = Field(default="UTC", max_length=100)
    catch_up: Literal["one", "all", "skip"] = "one"


class ScheduleCron(_Scheduled):
    """Start instances at the times of five fields: minute, hour, day, month, weekday."""

    cron: str = Field(max_length=200)
    every: None = None


class ScheduleEvery(_Scheduled):
    """Start instances with a pause between them."""

    every: DurationText
    cron: None = None


def _schedule_kind(value: Any) -> str | None:
    given = [key for key in ("cron", "every") if isinstance(value, dict) and value.get(key) is not None]
    return f"({given[0]})" if len(given) == 1 else None


class ScheduleBody(
    RootModel[
        Annotated[
            Annotated[ScheduleCron, Tag("(cron)")] | Annotated[ScheduleEvery, Tag("(every)")],
            Discriminator(
                _schedule_kind,
                custom_error_type="schedule",
                custom_error_message="it must be an object with exactly one of `cron` and `every`",
            ),
        ]
    ]
):
    """When to start what; exactly one of `cron` and `every`."""


class SessionBody(Body):
    """The token, to be exchanged for a cookie."""

    token: str = Field(max_length=10_000)
