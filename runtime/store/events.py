"""Events and log records: one table, one sequence of ids in commit order.

An event that several names tell of is a row each; the later rows refer to the first and hold no data of their own. Outputs and
inputs stand in their own tables already: an event refers to them (`payload`) and they are put in where it is read. A log record is
an event with a level.
"""

from __future__ import annotations

import fnmatch
import heapq
import json
import re
from typing import Any

import pydantic_core

from ..base.clock import as_datetime
from ..base.records import LEVELS, Event, LogRecord
from .transaction import Transaction
from .window import Interest, Look, Window

__all__ = [
    "INPUT",
    "OUTPUT",
    "append",
    "last_event_id",
    "like",
    "log_ids",
    "read_events",
    "read_logs",
    "read_on",
    "streamed",
]

#: Values of `payload` other than a step's row: the instance's own output and input.
OUTPUT, INPUT = 0, -1

#: One encoder for all: `json.dumps` with options builds a new one at each call.
_encode_any = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode

_INSERT = (
    "INSERT INTO paddock_events (instance, name, created_at, data, ref, payload, level) VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_LAST = "SELECT seq FROM sqlite_sequence WHERE name = 'paddock_events'"
_READ = """
SELECT e.id, e.name, i.id, i.workflow_name, e.created_at, coalesce(e.data, r.data), e.payload, e.instance
FROM paddock_events e JOIN paddock_instances i ON i.seq = e.instance LEFT JOIN paddock_events r ON r.id = e.ref
WHERE e.id > ? AND e.id < ?{where} ORDER BY e.id {way} LIMIT ?
"""
_READ_ON = _READ.format(where="", way="ASC")
_STEP_OUTPUT = "SELECT output FROM paddock_steps WHERE seq = ?"
_PAYLOAD = "SELECT value FROM paddock_payloads WHERE instance = ? AND kind = ?"
_STREAMED = """
SELECT coalesce(json_extract(data, '$.step'), ''), count(*) FROM paddock_events
WHERE instance = ? AND name = 'workflow.stream' GROUP BY 1
"""
_LOG = """
SELECT e.id, e.created_at, e.data, i.id, i.workflow_name
FROM paddock_events e JOIN paddock_instances i ON i.seq = e.instance WHERE e.id = ?
"""
_LOGS_OF_INSTANCE = """
SELECT id FROM paddock_events WHERE instance = ? AND level IS NOT NULL AND level >= ? AND id > ? AND id < ? ORDER BY id {way} LIMIT ?
"""
_LOGS_OF_LEVEL = "SELECT id FROM paddock_events WHERE level = ? AND id > ? AND id < ? ORDER BY id {way} LIMIT ?"
_ENOUGH = 256 * 1024


def _encode(data: dict[str, Any]) -> str:
    """Return JSON text; in a third of the time that the standard library takes, where there is nothing that only that one can write."""
    try:
        raw = pydantic_core.to_json(data, inf_nan_mode="constants")
    except ValueError:  # half of a surrogate pair, for one
        return _encode_any(data)
    return _encode_any(data) if b"NaN" in raw or b"Infinity" in raw else raw.decode()


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


def like(pattern: str | None) -> tuple[str, str] | None:
    """Return a condition on a name and its value that let through at least what matches a glob; None where it is all."""
    if pattern is None or pattern == "*" or "[" in pattern:  # a set has no counterpart in SQL
        return None
    if not any(mark in pattern for mark in "*?"):
        return "= ?", pattern
    escaped = re.sub(r"[\\%_]", r"\\\g<0>", pattern)
    return "LIKE ? ESCAPE '\\'", escaped.replace("*", "%").replace("?", "_")


def _filter(pattern: str | None, instance: int | None) -> tuple[str, list[Any]]:
    where = ""
    values: list[Any] = []
    if instance is not None:
        where, values = " AND e.instance = ?", [instance]
    if (found := like(pattern)) is not None:
        where, values = f"{where} AND e.name {found[0]}", [*values, found[1]]
    return where, values


def read_events(
    tx: Transaction, window: Window, *, pattern: str | None = None, instance: int | None = None
) -> list[Event]:
    """Return the events of a window; `pattern` is a glob over the name."""
    where, values = _filter(pattern, instance)
    statement = _READ.format(where=where, way=window.way)
    (low, high), page = window.bounds, max(window.limit, 64)
    found: list[Event] = []
    while True:
        rows = tx.execute(statement, (low, high, *values, page)).fetchall()
        for row in rows:
            if pattern is None or pattern == "*" or fnmatch.fnmatchcase(row[1], pattern):
                found.append(_event(row, _held(tx, row)))
                if len(found) == window.limit:
                    return found
        if len(rows) < page:
            return found
        low, high = (low, rows[-1][0]) if window.backwards else (rows[-1][0], high)


def read_on(tx: Transaction, after: int, limit: int, up_to: int | None = None, wanted: Interest | None = None) -> Look:
    """Read on after a cursor, past up to `limit` events and no further than `up_to`, until what was found is some 256 KB of JSON."""
    found: list[Event] = []
    last, size = after, 0
    window = Window(after, limit, before=None if up_to is None else up_to + 1)
    waits = up_to is not None and last_event_id(tx) > up_to
    if up_to is not None and up_to <= after:
        return Look(found, last, more=False, waits=waits)
    rows = tx.execute(_READ_ON, (*window.bounds, limit)).fetchall()
    for row in rows:
        last = row[0]
        if wanted is not None and not wanted(row[1], row[2]):
            continue
        held = _held(tx, row)
        size += len(row[5] or "") + len(held or "")
        found.append(_event(row, held))
        if size >= _ENOUGH:
            return Look(found, last, more=True, waits=waits)
    return Look(found, last, more=len(rows) == limit, waits=waits)


def _held(tx: Transaction, row: tuple[Any, ...]) -> str | None:
    """Return the JSON text that an event refers to."""
    payload, instance = row[6], row[7]
    if payload is None:
        return None
    if payload > 0:
        found = tx.execute(_STEP_OUTPUT, (payload,)).fetchone()
    else:
        found = tx.execute(_PAYLOAD, (instance, "input" if payload == INPUT else "output")).fetchone()
    return found[0] if found else None


def _event(row: tuple[Any, ...], held: str | None) -> Event:
    ident, name, instance_id, workflow_name, created_at, text, payload, _ = row
    data = {"instance_id": instance_id, "workflow_name": workflow_name, **json.loads(text or "{}")}
    if payload is not None:
        data["input" if payload == INPUT else "output"] = json.loads(held) if held is not None else None
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
    tx: Transaction, window: Window, *, level: str | None = None, instance: int | None = None
) -> list[LogRecord]:
    """Return the log records of a window, of at least a level."""
    rows = (tx.execute(_LOG, (ident,)).fetchone() for ident in log_ids(tx, window, level=level, instance=instance))
    return [
        LogRecord(
            id=row[0], created_at=as_datetime(row[1]), instance_id=row[3], workflow_name=row[4], **json.loads(row[2])
        )
        for row in rows
    ]


def log_ids(tx: Transaction, window: Window, *, level: str | None = None, instance: int | None = None) -> list[int]:
    """Return the ids of what `read_logs` returns."""
    lowest, bounds = LEVELS[level] if level else 0, (*window.bounds, window.limit)
    if instance is not None:
        statement = _LOGS_OF_INSTANCE.format(way=window.way)
        return [row[0] for row in tx.execute(statement, (instance, lowest, *bounds))]
    statement = _LOGS_OF_LEVEL.format(way=window.way)
    by_level = [  # each from its own end of the index, for the next one of a rare level may lie far away
        [row[0] for row in tx.execute(statement, (number, *bounds))] for number in LEVELS.values() if number >= lowest
    ]
    return list(heapq.merge(*by_level, reverse=window.backwards))[: window.limit]
