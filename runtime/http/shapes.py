"""From rows to answers: times become dates, JSON texts values, long values their heads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..base.clock import as_datetime
from ..base.records import ErrorInfo, Event, LogRecord
from ..base.values import plain_json
from ..store.browse import Row
from .answers import Child, Kill, Short, Summary

__all__ = [
    "LONG",
    "child",
    "error_info",
    "kill",
    "log_of_event",
    "short_error",
    "shorten_event",
    "summary",
    "summary_fields",
    "value",
]

LONG = 4096
_HEAD = 1000
_MESSAGE = 300


def value(text: str | None, *, short: bool = False) -> Any:
    """Return the value of a JSON text; with `short` only the head of a long one."""
    if text is None:
        return None
    if short and len(text) > LONG:
        return {"$truncated": True, "size": len(text.encode()), "head": text[:_HEAD]}
    return plain_json(text)


def shorten_event(event: Event) -> Event:
    """Return an event without the long values in its data."""
    data = {}
    for key, item in event.data.items():
        text = json.dumps(item, ensure_ascii=False) if isinstance(item, str | list | dict) else ""
        data[key] = value(text, short=True) if len(text) > LONG else item
    return Event.model_construct(**{**dict(event), "data": data})


def error_info(text: str | None) -> ErrorInfo | None:
    """Return a stored error."""
    return ErrorInfo.model_validate_json(text) if text else None


def short_error(error: ErrorInfo | Mapping[str, Any] | None) -> Short | None:
    """Return an error without its stacks."""
    if error is None:
        return None
    found = error if isinstance(error, ErrorInfo) else ErrorInfo.model_validate(error)
    message = found.message if len(found.message) <= _MESSAGE else found.message[: _MESSAGE - 1] + "…"
    return Short(type=found.type, message=message, step=found.step)


def summary_fields(row: Row, total_steps: int | None) -> dict[str, Any]:
    """Return what a list and a detail have in common, the error left out."""
    error = error_info(row["error"])
    ended = row["completed_at"] is not None
    current = row["current_step"] if not ended and row["current_step"] else (error.step if error else None)
    return {
        "id": row["id"],
        "workflow_name": row["workflow_name"],
        "status": row["status"],
        "current_step": current,
        **{
            name: as_datetime(row[name])
            for name in ("created_at", "started_at", "completed_at", "wake_at", "deadline_at")
        },
        "executions": row["executions"],
        "priority": row["priority"],
        "parent_id": row["parent_id"],
        "limit_key": row["limit_key"],
        "version": row["version"],
        "pid": row["pid"] if row["status"] == "running" else None,
        "completed_steps": row["completed_steps"],
        "total_steps": total_steps,
    }


def summary(row: Row, total_steps: int | None) -> Summary:
    """Return an instance as lists show it."""
    error, retrying = (short_error(error_info(row[name])) for name in ("error", "retrying"))
    return Summary(**summary_fields(row, total_steps), error=error, retrying=retrying)


def child(row: Row) -> Child:
    """Return another instance by name."""
    return Child(id=row["id"], workflow_name=row["workflow_name"], status=row["status"], step=row.get("step"))


def kill(row: Row) -> Kill:
    """Return what the watchdog has ended."""
    data = plain_json(row["data"] or "{}")
    wanted = {name: data.get(name) for name in ("pid", "reason", "timeout", "silent_for", "stack")}
    return Kill(
        id=row["id"],
        created_at=as_datetime(row["created_at"]),
        instance_id=row["instance_id"],
        workflow_name=row["workflow_name"],
        **wanted,
    )


def log_of_event(event: Event) -> LogRecord:
    """Return the log record that an event `log.workflow` tells of."""
    data = {key: item for key, item in event.data.items() if key not in ("instance_id", "workflow_name")}
    return LogRecord(
        id=event.id,
        created_at=event.created_at,
        instance_id=event.instance_id,
        workflow_name=event.workflow_name,
        **data,
    )
