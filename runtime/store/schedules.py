"""Schedules: when which workflow starts next. Firing one and moving it on are one transaction, so no tick is lost or doubled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..base.errors import ConfigError
from . import instances
from .transaction import Transaction

__all__ = ["ScheduleRow", "due", "fire", "listed", "put", "remove"]

_COLUMNS = "id, workflow_name, cron, every, tz, catch_up, input, created_at, next_at, last_at, last_instance_id"
_PUT = f"INSERT INTO paddock_schedules ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608  our own names
_LIST = f"SELECT {_COLUMNS} FROM paddock_schedules ORDER BY id"  # noqa: S608
_DUE = f"SELECT {_COLUMNS} FROM paddock_schedules WHERE next_at <= ? ORDER BY next_at LIMIT 100"  # noqa: S608
_NEXT = "SELECT min(next_at) FROM paddock_schedules"
_MOVE = "UPDATE paddock_schedules SET next_at = ?, last_at = ?, last_instance_id = coalesce(?, last_instance_id) WHERE id = ? AND next_at = ?"


@dataclass(frozen=True, slots=True)
class ScheduleRow:
    """One schedule; times are seconds since the epoch, `input` JSON text."""

    id: str
    workflow_name: str
    cron: str | None
    every: float | None
    tz: str
    catch_up: str
    input: str
    created_at: float
    next_at: float
    last_at: float | None = None
    last_instance_id: str | None = None


def put(tx: Transaction, row: ScheduleRow) -> None:
    """Insert a schedule.

    Raises:
        ConfigError: there is one of this id.
    """
    if tx.execute("SELECT 1 FROM paddock_schedules WHERE id = ?", (row.id,)).fetchone():
        raise ConfigError(f"a schedule {row.id!r} is there already; unschedule it first, or give this one another id")
    values = (
        row.id,
        row.workflow_name,
        row.cron,
        row.every,
        row.tz,
        row.catch_up,
        row.input,
        row.created_at,
        row.next_at,
    )
    tx.execute(_PUT, (*values, row.last_at, row.last_instance_id))


def remove(tx: Transaction, schedule_id: str) -> bool:
    """Delete a schedule; tell whether it was there."""
    return tx.execute("DELETE FROM paddock_schedules WHERE id = ?", (schedule_id,)).rowcount > 0


def listed(tx: Transaction) -> list[ScheduleRow]:
    """Return all schedules."""
    return [ScheduleRow(*row) for row in tx.execute(_LIST)]


def due(tx: Transaction, now: float) -> tuple[list[ScheduleRow], float | None]:
    """Return the schedules that are due, and when the next is."""
    return [ScheduleRow(*row) for row in tx.execute(_DUE, (now,))], tx.execute(_NEXT).fetchone()[0]


def fire(
    tx: Transaction, row: ScheduleRow, starts: Sequence[instances.NewInstance], next_at: float, now: float
) -> bool:
    """Start a schedule's instances and move it on; False where somebody else has."""
    last = starts[-1].id if starts else None
    if tx.execute(_MOVE, (next_at, now if starts else row.last_at, last, row.id, row.next_at)).rowcount == 0:
        return False
    for start in starts:
        instances.create(tx, start, now)
    return True
