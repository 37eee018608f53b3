"""What is done to instances from outside their executors; each function is one transaction, or a part of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..base.errors import InvalidTransition
from ..base.records import TERMINAL, ErrorInfo, Status
from . import events, instances, steering
from .ops import Lease
from .transaction import Transaction

__all__ = [
    "block_unknown",
    "end",
    "merge_metadata",
    "of_instance",
    "overdue",
    "record",
    "remove",
    "remove_older",
    "unblock",
]

_OVERDUE = """
SELECT id FROM paddock_instances WHERE deadline_at <= ? AND completed_at IS NULL ORDER BY deadline_at LIMIT 100
"""
_NEXT_DEADLINE = "SELECT min(deadline_at) FROM paddock_instances WHERE deadline_at IS NOT NULL AND completed_at IS NULL"
_BLOCKED = (
    "SELECT seq FROM paddock_instances WHERE status = 'blocked' AND (CAST(?1 AS TEXT) IS NULL OR workflow_name = ?1)"
)
_WAITING_NAMES = "SELECT DISTINCT workflow_name FROM paddock_instances WHERE status = 'pending'"
_PENDING_OF = "SELECT seq FROM paddock_instances WHERE status = 'pending' AND workflow_name = ?"
_LEASE_OF = "SELECT epoch FROM paddock_leases WHERE instance = ?"
_OLD = """
SELECT seq FROM paddock_instances i WHERE completed_at < ? AND NOT EXISTS (SELECT 1 FROM paddock_leases WHERE instance = i.seq)
ORDER BY completed_at LIMIT ?
"""


def record(tx: Transaction, lease: Lease, name: str, data: dict[str, Any], now: float) -> None:
    """Add an event about a leased instance; nothing where the lease is another's."""
    row = tx.execute(_LEASE_OF, (lease.instance,)).fetchone()
    if row is not None and row[0] == lease.epoch:
        events.append(tx, lease.instance, name, now, data)


def end(
    tx: Transaction, instance_id: str, status: Status, now: float, error: ErrorInfo | None
) -> tuple[bool, list[Lease]]:
    """End an instance, and with it, as cancelled, what it has started; return whether this did, and whose executors have to end."""
    seq, current = instances.find(tx, instance_id)
    if current in TERMINAL:
        return False, []
    row = tx.execute(_LEASE_OF, (seq,)).fetchone()
    leases = [Lease(seq, row[0])] if row else []
    instances.move(tx, seq, current, status, now, error=error)
    # in one transaction: a server that died in between would leave them to work on for nobody
    for child in steering.children_of(tx, instance_id):
        leases += end(tx, child, Status.CANCELLED, now, None)[1]
    return True, leases


def overdue(tx: Transaction, now: float) -> tuple[list[str], float | None]:
    """Return whose workflow deadline has passed, and when the next passes."""
    ids = [row[0] for row in tx.execute(_OVERDUE, (now,))]
    return ids, tx.execute(_NEXT_DEADLINE).fetchone()[0]


def unblock(tx: Transaction, now: float, instance_id: str | None, workflow_name: str | None) -> int:
    """Put blocked instances back into the queue, one, those of a workflow, or all; return how many."""
    if instance_id is not None:
        seq, status = instances.find(tx, instance_id)
        numbers = [seq] if status is Status.BLOCKED else []
    else:
        numbers = [row[0] for row in tx.execute(_BLOCKED, (workflow_name,))]
    for seq in numbers:
        instances.move(tx, seq, Status.BLOCKED, Status.PENDING, now)
    return len(numbers)


def block_unknown(tx: Transaction, names: frozenset[str], now: float) -> int:
    """Park queued instances whose workflow is not among `names`; return how many."""
    count = 0
    for (name,) in tx.execute(_WAITING_NAMES).fetchall():
        if name in names:
            continue
        error = ErrorInfo(
            type="WorkflowNotFound",
            message=f"no workflow {name!r} is registered; register it",
        )
        for (seq,) in tx.execute(_PENDING_OF, (name,)).fetchall():
            instances.move(tx, seq, Status.PENDING, Status.BLOCKED, now, error=error)
            count += 1
    return count


def merge_metadata(tx: Transaction, instance_id: str, values: Sequence[tuple[str, str]]) -> None:
    """Set metadata keys; raises InstanceNotFound."""
    seq, _ = instances.find(tx, instance_id)
    instances.merge_metadata(tx, seq, values)


def remove(tx: Transaction, instance_id: str) -> Lease | None:
    """Delete an ended instance, unless its last process lives: return its lease then."""
    seq, status = instances.find(tx, instance_id)
    if status not in TERMINAL:
        raise InvalidTransition(
            f"instance {instance_id} is {status.value}; only one that has ended can be cleaned up. Cancel it first."
        )
    row = tx.execute(_LEASE_OF, (seq,)).fetchone()
    if row is not None:  # a slot that went with its row would let the limit be passed
        return Lease(seq, row[0])
    instances.remove(tx, seq)
    return None


def remove_older(tx: Transaction, before: float, limit: int) -> int:
    """Delete instances that ended before a time; return how many."""
    numbers = [row[0] for row in tx.execute(_OLD, (before, limit))]
    for seq in numbers:
        instances.remove(tx, seq)
    return len(numbers)


def of_instance(
    tx: Transaction, read: Callable[..., list[Any]], instance_id: str | None, *values: Any, **named: Any
) -> list[Any]:
    """Call a reading function with the row of an instance instead of its id."""
    instance = instances.find(tx, instance_id)[0] if instance_id is not None else None
    return read(tx, *values, instance=instance, **named)
