"""The journal of one instance: loaded whole when an executor begins, written by operations under its lease."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..base.errors import LeaseLost
from ..base.records import TERMINAL, Status
from ..base.values import plain_json
from . import events
from .apply import TAKE, apply
from .ops import Lease, Op, StepBegun, StepCompleted, StepFailed
from .transaction import Transaction

__all__ = ["Journal", "PauseWanted", "StepRow", "commit", "load", "read"]

_LEASE = """
SELECT l.epoch, i.status, i.pause_wanted FROM paddock_leases l JOIN paddock_instances i ON i.seq = l.instance WHERE l.instance = ?
"""
_LOAD = """
SELECT i.id, i.workflow_name, i.status, i.priority, i.created_at, i.started_at, i.deadline_at, i.executions, i.parent_id, i.version,
       l.epoch, l.out_position, l.err_position
FROM paddock_instances i JOIN paddock_leases l ON l.instance = i.seq WHERE i.seq = ?
"""
_READ = """
SELECT id, workflow_name, status, priority, created_at, started_at, deadline_at, executions, parent_id, version, epoch
FROM paddock_instances WHERE seq = ?
"""
_LOAD_STEPS = """
SELECT key, name, kind, status, attempts, failures, output, error, started_at, wake_at, deadline_at, poll_count, loop_count,
       event_name, child_id, input, completed_at
FROM paddock_steps WHERE instance = ? ORDER BY seq
"""
_ENDED_BEFORE = """
UPDATE paddock_steps SET completed_at = CASE WHEN coalesce(started_at, 0) < ?1 THEN ?1 ELSE started_at END
WHERE instance = ?2 AND key = ?3 AND completed_at IS NOT NULL
"""
_TICK = 1e-6
_LOAD_METADATA = "SELECT key, value FROM paddock_metadata WHERE instance = ?"


class PauseWanted(Exception):
    """Somebody has paused the instance before a step of this commit began; nothing was written."""


@dataclass(slots=True)
class StepRow:
    """One step as the journal holds it; payloads are JSON texts, times seconds since the epoch."""

    key: str
    name: str
    kind: str
    status: str
    attempts: int = 0
    failures: int = 0
    output: str | None = None
    error: str | None = None
    started_at: float | None = None
    wake_at: float | None = None
    deadline_at: float | None = None
    poll_count: int = 0
    loop_count: int = 0
    event_name: str | None = None
    child_id: str | None = None
    input: str | None = None
    completed_at: float | None = None


@dataclass(slots=True)
class Journal:
    """All that an executor needs of its instance."""

    lease: Lease
    id: str
    workflow_name: str
    priority: int
    created_at: float
    started_at: float | None
    deadline_at: float | None
    executions: int
    parent_id: str | None
    version: str | None
    input: str
    steps: dict[str, StepRow] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)


def load(tx: Transaction, lease: Lease, holder: tuple[int, int, str] | None = None) -> Journal:
    """Return the journal of a leased instance, and note its executor (pid, start time, boot) in the lease, where one is named.

    From then on nobody can think that the process was never born, and give the instance to another.

    Raises:
        LeaseLost: the instance is not ours, or not running any more.
    """
    row = tx.execute(_LOAD, (lease.instance,)).fetchone()
    if row is None or row[10] != lease.epoch or row[2] != Status.RUNNING:
        raise LeaseLost(f"epoch {lease.epoch} does not hold this instance any more")
    if holder is not None:
        tx.execute(TAKE, (*holder, lease.instance))
    return _journal(tx, lease, row)


def read(tx: Transaction, instance: int) -> Journal | None:
    """Return an instance's journal for a look: there is no right to write it. None where the instance is gone."""
    row = tx.execute(_READ, (instance,)).fetchone()
    return None if row is None else _journal(tx, Lease(instance, row[10]), row)


def _journal(tx: Transaction, lease: Lease, row: tuple[Any, ...]) -> Journal:
    held = tx.execute(
        "SELECT value FROM paddock_payloads WHERE instance = ? AND kind = 'input'", (lease.instance,)
    ).fetchone()
    steps = [StepRow(*step) for step in tx.execute(_LOAD_STEPS, (lease.instance,))]
    metadata = {key: plain_json(value) for key, value in tx.execute(_LOAD_METADATA, (lease.instance,))}
    return Journal(
        lease=lease,
        id=row[0],
        workflow_name=row[1],
        priority=row[3],
        created_at=row[4],
        started_at=row[5],
        deadline_at=row[6],
        executions=row[7],
        parent_id=row[8],
        version=row[9],
        input=held[0],
        steps={step.key: step for step in steps},
        metadata=metadata,
    )


def commit(tx: Transaction, lease: Lease, ops: Sequence[Op], now: float) -> int:
    """Apply operations under a lease, in the open transaction; return the id of the newest event.

    The lease is checked here, in the same transaction: an executor that was replaced, or whose instance has ended, writes nothing.

    Raises:
        LeaseLost: the epoch is not the lease's, or the instance does not run.
        PauseWanted: a step would begin (`boundary`) that a pause comes before.
    """
    row = tx.execute(_LEASE, (lease.instance,)).fetchone()
    if row is None or row[0] != lease.epoch:
        raise LeaseLost(f"epoch {lease.epoch} does not hold this instance any more")
    if row[1] != Status.RUNNING:
        state = "has ended" if row[1] in TERMINAL else "is " + row[1]
        raise LeaseLost(f"the instance {state}")
    if row[2] and any(isinstance(op, StepBegun) and op.boundary for op in ops):
        raise PauseWanted
    for op in ops:
        apply(op, tx, lease.instance, now)
    _keep_order(tx, lease.instance, ops, now)
    return events.last_event_id(tx)


def _keep_order(tx: Transaction, instance: int, ops: Sequence[Op], now: float) -> None:
    """Keep known which of several steps in one commit ended first: a replay lets them come back in that order."""
    ended = [op.key for op in ops if isinstance(op, StepFailed) or (isinstance(op, StepCompleted) and not op.begin)]
    for ticks, key in enumerate(reversed(ended)):
        if ticks:
            tx.execute(_ENDED_BEFORE, (now - ticks * _TICK, instance, key))
