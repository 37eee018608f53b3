"""Signals: kept from the moment they are accepted until a wait takes them, in the order in which they came."""

from __future__ import annotations

from dataclasses import dataclass

from ..base.errors import InvalidSignal
from ..base.records import TERMINAL, Status
from . import instances
from .ops import Lease
from .transaction import Transaction

__all__ = [
    "Awaited",
    "ChildOutcome",
    "Kept",
    "awaited",
    "has_come",
    "next_kept",
    "outcome_of",
    "put",
    "started_as",
    "take",
]

_PUT = "INSERT INTO paddock_signals (instance, name, payload, created_at) VALUES (?, ?, ?, ?)"
_NEXT = (
    "SELECT id, payload FROM paddock_signals WHERE instance = ? AND name = ? AND taken_by IS NULL ORDER BY id LIMIT 1"
)
_TAKE = "UPDATE paddock_signals SET taken_by = ? WHERE id = ? AND taken_by IS NULL"
_AWAITED = """
SELECT key, schema FROM paddock_steps WHERE instance = ? AND event_name = ? AND status = 'waiting' ORDER BY seq
"""
_COME = """
SELECT 1 FROM paddock_steps s WHERE s.instance = ?1 AND s.status = 'waiting' AND (
    EXISTS (SELECT 1 FROM paddock_signals g WHERE g.instance = ?1 AND g.name = s.event_name AND g.taken_by IS NULL)
    OR EXISTS (SELECT 1 FROM paddock_instances c WHERE c.id = s.child_id AND c.completed_at IS NOT NULL)
) LIMIT 1
"""
_OUTCOME = """
SELECT i.status, i.error, i.workflow_name, (SELECT value FROM paddock_payloads p WHERE p.instance = i.seq AND p.kind = 'output'),
    CASE i.status WHEN 'failed' THEN (SELECT max(attempts) FROM paddock_steps s WHERE s.instance = i.seq) END
FROM paddock_instances i WHERE i.id = ?
"""
_STARTED_AS = """
SELECT i.workflow_name, p.value FROM paddock_instances i JOIN paddock_payloads p ON p.instance = i.seq AND p.kind = 'input' WHERE i.id = ?
"""
_LEASE = "SELECT epoch FROM paddock_leases WHERE instance = ?"


@dataclass(frozen=True, slots=True)
class Awaited:
    """A wait that is open: its step's key and the description of what it accepts (see `engine.waits`)."""

    key: str
    schema: str | None


@dataclass(frozen=True, slots=True)
class Kept:
    """A signal that nobody has taken: its number and its payload as JSON text."""

    id: int
    payload: str


@dataclass(frozen=True, slots=True)
class ChildOutcome:
    """How a started instance stands; output and error are JSON texts, `attempts` the most that a step of it took."""

    status: Status
    workflow_name: str
    output: str | None
    error: str | None
    attempts: int = 1


def awaited(tx: Transaction, instance_id: str, name: str) -> list[Awaited]:
    """Return the open waits for a signal of this name.

    Raises:
        InstanceNotFound: there is no such instance.
        InvalidSignal: it has ended.
    """
    seq, status = instances.find(tx, instance_id)
    _refuse_ended(instance_id, status)
    return [Awaited(*row) for row in tx.execute(_AWAITED, (seq, name))]


def _refuse_ended(instance_id: str, status: Status) -> None:
    if status in TERMINAL:
        raise InvalidSignal(f"instance {instance_id} has ended as {status.value}; nobody will take a signal any more")


def put(tx: Transaction, instance_id: str, name: str, payload: str, now: float) -> Lease | None:
    """Keep a signal and queue the instance that waits for it; return the lease of its executor where one runs.

    Raises:
        InstanceNotFound: there is no such instance.
        InvalidSignal: it has ended.
    """
    seq, status = instances.find(tx, instance_id)
    _refuse_ended(instance_id, status)
    tx.execute(_PUT, (seq, name, payload, now))
    if status in (Status.WAITING, Status.SLEEPING) and tx.execute(_AWAITED, (seq, name)).fetchone() is not None:
        instances.move(tx, seq, status, Status.PENDING, now)
    row = tx.execute(_LEASE, (seq,)).fetchone()
    return Lease(seq, row[0]) if row else None


def next_kept(tx: Transaction, instance: int, name: str) -> Kept | None:
    """Return the oldest signal of a name that nobody has taken."""
    row = tx.execute(_NEXT, (instance, name)).fetchone()
    return Kept(*row) if row else None


def take(tx: Transaction, number: int, key: str) -> None:
    """Note which step has taken a signal."""
    tx.execute(_TAKE, (key, number))


def has_come(tx: Transaction, instance: int) -> bool:
    """Tell whether something that an open wait of this instance waits for is there."""
    return tx.execute(_COME, (instance,)).fetchone() is not None


def started_as(tx: Transaction, instance_id: str) -> tuple[str, str] | None:
    """Return an instance's workflow and input, None for an unknown one."""
    row = tx.execute(_STARTED_AS, (instance_id,)).fetchone()
    return (row[0], row[1]) if row else None


def outcome_of(tx: Transaction, instance_id: str) -> ChildOutcome | None:
    """Return how an instance stands, None for an unknown one."""
    row = tx.execute(_OUTCOME, (instance_id,)).fetchone()
    return ChildOutcome(Status(row[0]), row[2], row[3], row[1], row[4] or 1) if row else None
