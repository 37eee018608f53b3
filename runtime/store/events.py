"""Events and log records: one table, one sequence of ids in commit order.

An event that several names tell of is a row each; the later rows refer to the first and hold no data of their own. Outputs and
inputs stand in their own tables already: an event refers to them (`payload`) and they are put in where it is read. A log record is
an event with a level.
"""

from __future__ import annotations

import fnmatch
import json
from typing import Any

from ..base.clock import as_datetime
from ..base.records import LEVELS, Event, LogRecord
from .transaction import Transaction

__all__ = ["INPUT", "OUTPUT", "append", "last_event_id", "read_events", "read_logs", "streamed"]

#: Values of `payload` other than a step's row: the instance's own output and input.
OUTPUT, INPUT = 0, -1

#: One encoder for all: `json.dumps` with options builds a new one at each call.
_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode

_INSERT = (
    "INSERT INTO paddock_events (instance, name, created_at, data, ref, payload, level) VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_LAST = "SELECT seq FROM sqlite_sequence WHERE name = 'paddock_events'"
_READ = """
SELECT e.id, e.name, i.id, i.workflow_name, e.created_at, coalesce(e.data, r.data), e.payload, e.instance
FROM paddock_events e JOIN paddock_instances i ON i.seq = e.instance LEFT JOIN paddock_events r ON r.id = e.ref
WHERE e.id > ?{where} ORDER BY e.id LIMIT ?
"""
_STEP_OUTPUT = "SELECT output FROM paddock_steps WHERE seq = ?"
_PAYLOAD = "SELECT value FROM paddock_payloads WHERE instance = ? AND kind = ?"
_STREAMED = """
SELECT coalesce(json_extract(data, '$.step'), ''), count(*) FROM paddock_events
WHERE instance = ? AND name = 'workflow.stream' GROUP BY 1
"""
_LOGS = """
SELECT e.id, e.created_at, e.data, i.id, i.workflow_name
FROM paddock_events e JOIN paddock_instances i ON i.seq = e.instance
WHERE e.level IS NOT NULL AND e.level >= ? AND e.id > ?{where} ORDER BY e.id LIMIT ?
"""


def append(
    tx: Transaction,
    instance: int,
    name: str,
    now: float,
    data: dict[str, Any] | None = None,
    *,
    payload: int | None = None,
    level: int | None = None,
    aliases: tuple[str, ...] = (),
) -> int:
    """Add an event in the open transaction, and one more row for each further name; return the last id."""
    text = _encode(data) if data else "{}"
    last = tx.execute(_INSERT, (instance, name, now, text, None, payload, level)).lastrowid
    first = last
    for alias in aliases:
        last = tx.execute(_INSERT, (instance, alias, now, None, first, payload, None)).lastrowid
    return int(last or 0)


def last_event_id(tx: Transaction) -> int:
    """Return the newest event's id, 0 before the first."""
    row = tx.execute(_LAST).fetchone()
    return int(row[0]) if row else 0


def _filter(pattern: str | None, instance: int | None) -> tuple[str, list[Any]]:
    where = ""
    values: list[Any] = []
    if instance is not None:
        where, values = " AND e.instance = ?", [instance]
    if pattern and not any(mark in pattern for mark in "*?["):
        where, values = where + " AND e.name = ?", [*values, pattern]
    return where, values


def read_events(
    tx: Transaction, after: int, limit: int, *, pattern: str | None = None, instance: int | None = None
) -> list[Event]:
    """Return events whose id is above `after`, in their order; `pattern` is a glob over the name."""
    where, values = _filter(pattern, instance)
    found: list[Event] = []
    while len(found) < limit:
        rows = tx.execute(_READ.format(where=where), (after, *values, max(limit, 64))).fetchall()
        for row in rows:
            after = row[0]
            if pattern is None or pattern == "*" or fnmatch.fnmatchcase(row[1], pattern):
                found.append(_event(tx, row))
                if len(found) == limit:
                    break
        if len(rows) < max(limit, 64):
            break
    return found


def _event(tx: Transaction, row: tuple[Any, ...]) -> Event:
    ident, name, instance_id, workflow_name, created_at, text, payload, instance = row
    data = {"instance_id": instance_id, "workflow_name": workflow_name, **json.loads(text or "{}")}
    if payload is not None:
        if payload > 0:
            held = tx.execute(_STEP_OUTPUT, (payload,)).fetchone()
        else:
            held = tx.execute(_PAYLOAD, (instance, "input" if payload == INPUT else "output")).fetchone()
        data["input" if payload == INPUT else "output"] = json.loads(held[0]) if held and held[0] is not None else None
    return Event.model_construct(
        id=ident,
        name=name,
        instance_id=instance_id,
        workflow_name=workflow_name,
        created_at=as_datetime(created_at),
        data=data,
    )


def streamed(tx: Transaction, instance: int) -> dict[str, int]:
    """Return how many chunks each step (by key; empty for the flow itself) has streamed."""
    return dict(tx.execute(_STREAMED, (instance,)).fetchall())


def read_logs(
    tx: Transaction, after: int, limit: int, *, level: str | None = None, instance: int | None = None
) -> list[LogRecord]:
    """Return log records of at least `level` whose id is above `after`, in their order."""
    where, values = (" AND e.instance = ?", [instance]) if instance is not None else ("", [])
    rows = tx.execute(_LOGS.format(where=where), (LEVELS[level] if level else 0, after, *values, limit)).fetchall()
    return [
        LogRecord(
            id=row[0], created_at=as_datetime(row[1]), instance_id=row[3], workflow_name=row[4], **json.loads(row[2])
        )
        for row in rows
    ]
