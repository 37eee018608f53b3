"""What a person asks of a whole database: what there is of each status, whose id is meant, what was killed, what was said last."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

from ..base.records import Event, Status
from . import events, instances
from .transaction import Transaction
from .window import Window

__all__ = [
    "Standing",
    "counts",
    "cursor_before",
    "ids_like",
    "is_id",
    "kills",
    "log_cursor_before",
    "open_waits",
    "standing",
    "workflow_names",
]

_COUNTS = "SELECT workflow_name, status, count(*) FROM paddock_instances GROUP BY workflow_name, status ORDER BY 1"
_NAMES = (
    "SELECT DISTINCT workflow_name FROM paddock_instances UNION SELECT workflow_name FROM paddock_schedules ORDER BY 1"
)
_LIKE = "SELECT id FROM paddock_instances WHERE id >= ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3"
_IS_ID = "SELECT 1 FROM paddock_instances WHERE id = ?"
_NEWEST = "SELECT id FROM paddock_instances ORDER BY seq DESC LIMIT ?"
_BACK = "SELECT id, name FROM paddock_events WHERE id < ?{where} ORDER BY id DESC LIMIT ?"
_KILLS = "SELECT id FROM paddock_events WHERE id > ? AND name = 'workflow.watchdog.killed' ORDER BY id DESC LIMIT ?"
_WAITS = """
SELECT s.event_name FROM paddock_steps s JOIN paddock_instances i ON i.seq = s.instance
WHERE i.id = ? AND s.status = 'waiting' AND s.event_name IS NOT NULL
GROUP BY s.event_name ORDER BY min(s.seq)
"""
_LEASED = "SELECT 1 FROM paddock_leases WHERE instance = ?"
_AFTER_ALL = "\U0010ffff"
_PAGE = 1000
_RECENT = 20_000


@dataclass(frozen=True, slots=True)
class Standing:
    """How an instance stands: its status, and whether a process of it may still write."""

    status: Status
    leased: bool


def standing(tx: Transaction, instance_id: str) -> Standing:
    """Return how an instance stands; raises InstanceNotFound."""
    seq, status = instances.find(tx, instance_id)
    return Standing(status, tx.execute(_LEASED, (seq,)).fetchone() is not None)


def counts(tx: Transaction) -> dict[str, dict[str, int]]:
    """Return how many instances of each workflow have each status."""
    found: dict[str, dict[str, int]] = {}
    for name, status, count in tx.execute(_COUNTS):
        found.setdefault(name, {})[status] = count
    return found


def open_waits(tx: Transaction, instance_id: str) -> list[str]:
    """Return the names of the signals that an instance waits for."""
    return [row[0] for row in tx.execute(_WAITS, (instance_id,))]


def workflow_names(tx: Transaction) -> list[str]:
    """Return the names of the workflows that have an instance or a schedule."""
    return [row[0] for row in tx.execute(_NAMES)]


def ids_like(tx: Transaction, prefix: str, limit: int) -> list[str]:
    """Return ids that begin with a text, the last first; with an empty one, those of the newest instances."""
    if not prefix:
        return [row[0] for row in tx.execute(_NEWEST, (limit,))]
    return [row[0] for row in tx.execute(_LIKE, (prefix, prefix + _AFTER_ALL, limit))]


def is_id(tx: Transaction, text: str) -> bool:
    """Tell whether a text is an instance's id."""
    return tx.execute(_IS_ID, (text,)).fetchone() is not None


def cursor_before(tx: Transaction, count: int, *, pattern: str | None, instance_id: str | None) -> int:
    """Return the cursor after which the last `count` events that match come, those under a second name left out where all are wanted; raises InstanceNotFound."""
    where = ""
    values: list[int | str] = []
    if instance_id is not None:
        where, values = " AND instance = ?", [instances.find(tx, instance_id)[0]]
    if (name := events.like(pattern)) is not None:
        where, values = f"{where} AND name {name[0]}", [*values, name[1]]
    elif pattern in (None, "*"):
        where += " AND ref IS NULL"
    before, found = 2**63 - 1, 0
    while rows := tx.execute(_BACK.format(where=where), (before, *values, _PAGE)).fetchall():
        for ident, name in rows:
            before = ident
            if pattern is None or fnmatch.fnmatchcase(name, pattern):
                found += 1
                if found == count:
                    return int(before) - 1
    return 0


def log_cursor_before(tx: Transaction, count: int, *, level: str, instance_id: str | None) -> int:
    """Return the cursor after which the last `count` log records of at least a level come; raises InstanceNotFound."""
    instance = instances.find(tx, instance_id)[0] if instance_id is not None else None
    found = events.log_ids(tx, Window(0, count, backwards=True), level=level, instance=instance)
    return found[-1] - 1 if len(found) == count else 0


def kills(tx: Transaction, limit: int) -> list[Event]:
    """Return the watchdog's last kills among the newest events, the last first."""
    newest = events.last_event_id(tx)
    numbers = [row[0] for row in tx.execute(_KILLS, (newest - _RECENT, limit))]
    return [event for number in numbers for event in events.read_events(tx, Window(number - 1, 1))]
