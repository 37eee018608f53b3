"""Operations become rows and events: one function for each kind of operation, and the payload of each event.

Every function writes in the transaction that `journal.py:commit` has opened and whose lease it has checked.
"""

from __future__ import annotations

import json
from functools import singledispatch
from typing import Any

from ..base.records import ErrorInfo, Status
from . import events, instances, signals
from .ops import (
    Began,
    ChildStarted,
    Emitted,
    Ended,
    Logged,
    MetadataSet,
    OutputSkipped,
    Progress,
    SignalTaken,
    StepBegun,
    StepCompleted,
    StepCounted,
    StepFailed,
    StepRetrying,
    StepWaiting,
    Suspended,
)
from .transaction import Transaction

__all__ = ["TAKE", "apply"]

TAKE = "UPDATE paddock_leases SET pid = ?, pid_start = ?, boot_id = ? WHERE instance = ?"
_BEGAN = """
UPDATE paddock_instances SET executions = executions + 1, started_at = coalesce(started_at, ?1), version = coalesce(version, ?2),
    deadline_at = CASE WHEN CAST(?3 AS DOUBLE PRECISION) IS NULL THEN deadline_at ELSE coalesce(deadline_at, coalesce(started_at, ?1) + ?3) END
WHERE seq = ?4 RETURNING executions
"""
_STEP_BEGUN = """
INSERT INTO paddock_steps (instance, key, name, kind, status, attempts, input, started_at, deadline_at)
VALUES (?1, ?2, ?3, ?4, 'running', ?5, ?6, ?7, ?8)
ON CONFLICT (instance, key) DO UPDATE SET name = ?3, kind = ?4, status = 'running', attempts = ?5, wake_at = NULL, deadline_at = ?8
"""
_STEP_WAITING = """
INSERT INTO paddock_steps (instance, key, name, kind, status, attempts, started_at, wake_at, event_name, schema, child_id)
VALUES (?1, ?2, ?3, ?4, 'waiting', 1, ?5, ?6, ?7, ?8, ?9)
ON CONFLICT (instance, key) DO UPDATE SET name = ?3, kind = ?4, status = 'waiting', wake_at = ?6, event_name = ?7, schema = ?8, child_id = ?9
"""
_STEP_COUNTED = """
INSERT INTO paddock_steps (instance, key, name, kind, status, attempts, started_at, wake_at, poll_count, loop_count)
VALUES (?1, ?2, ?3, ?4, 'waiting', 1, ?5, ?6, ?7, ?8)
ON CONFLICT (instance, key) DO UPDATE SET status = 'waiting', wake_at = ?6, poll_count = ?7, loop_count = ?8, deadline_at = NULL
"""
_STEP_RETRYING = """
UPDATE paddock_steps SET status = 'retrying', failures = ?, error = ?, wake_at = ?, deadline_at = NULL WHERE instance = ? AND key = ?
"""
_STEP_COMPLETED = """
UPDATE paddock_steps SET status = 'completed', output = ?, error = NULL, completed_at = ?, wake_at = NULL, deadline_at = NULL
WHERE instance = ? AND key = ? RETURNING seq
"""
_STEP_AT_ONCE = """
INSERT INTO paddock_steps (instance, key, name, kind, status, attempts, output, started_at, completed_at)
VALUES (?1, ?2, ?3, ?4, 'completed', 1, ?5, ?6, ?6)
ON CONFLICT (instance, key) DO UPDATE SET name = ?3, kind = ?4, status = 'completed', output = ?5, completed_at = ?6, wake_at = NULL, deadline_at = NULL
RETURNING seq
"""
_STEP_FAILED = """
UPDATE paddock_steps SET status = 'failed', failures = ?1, attempts = CASE WHEN attempts < ?2 THEN ?2 ELSE attempts END, error = ?3, completed_at = ?4,
    wake_at = NULL, deadline_at = NULL
WHERE instance = ?5 AND key = ?6 RETURNING attempts
"""
_CALLER = """
SELECT p.seq, s.key FROM paddock_instances i JOIN paddock_instances p ON p.id = i.parent_id
JOIN paddock_steps s ON s.instance = p.seq AND s.key = i.parent_key
WHERE i.seq = ? AND s.kind IN ('action', 'task') AND s.status = 'waiting' AND p.completed_at IS NULL
"""
_LAST_CHUNK = "SELECT data FROM paddock_events WHERE instance = ? AND name = 'workflow.stream' ORDER BY id DESC LIMIT 1"
_POSITION = {
    "stdout": "UPDATE paddock_leases SET out_position = ? WHERE instance = ?",
    "stderr": "UPDATE paddock_leases SET err_position = ? WHERE instance = ?",
}


@singledispatch
def apply(op: Any, tx: Transaction, instance: int, now: float) -> None:
    """Write one operation of a running instance.

    Raises:
        TypeError: `op` is no operation.
    """
    raise TypeError(f"no operation: {op!r}")


@apply.register
def _began(op: Began, tx: Transaction, instance: int, now: float) -> None:
    tx.execute(TAKE, (op.pid, op.pid_start, op.boot_id, instance))
    executions = tx.execute(_BEGAN, (now, op.version, op.timeout, instance)).fetchone()[0]
    if executions == 1:
        events.append(tx, instance, "workflow.started", now, {"pid": op.pid}, payload=events.INPUT)
    else:
        events.append(tx, instance, "workflow.resumed", now, {"pid": op.pid, "executions": executions})


def _step_data(op: Any, **more: Any) -> dict[str, Any]:
    return {"step": op.key, "step_name": op.name, "step_type": op.kind, **more}


@apply.register
def _step_begun(op: StepBegun, tx: Transaction, instance: int, now: float) -> None:
    tx.execute(_STEP_BEGUN, (instance, op.key, op.name, op.kind, op.attempt, op.input, now, op.deadline))
    if not op.quiet:
        events.append(tx, instance, "workflow.step.started", now, _step_data(op, attempt=op.attempt))


@apply.register
def _step_retrying(op: StepRetrying, tx: Transaction, instance: int, now: float) -> None:
    tx.execute(_STEP_RETRYING, (op.failures, _error_text(op.error), op.wake_at, instance, op.key))
    data = _step_data(
        op, attempt=op.attempt, max_attempts=op.max_attempts, delay=op.delay, error=json.loads(_error_text(op.error))
    )
    events.append(tx, instance, "workflow.step.retry", now, data)


@apply.register
def _step_waiting(op: StepWaiting, tx: Transaction, instance: int, now: float) -> None:
    values = (instance, op.key, op.name, op.kind, now, op.wake_at, op.event_name, op.schema, op.child_id)
    tx.execute(_STEP_WAITING, values)
    events.append(tx, instance, "workflow.step.started", now, _step_data(op, attempt=1, wake_at=op.wake_at))


@apply.register
def _step_counted(op: StepCounted, tx: Transaction, instance: int, now: float) -> None:
    values = (instance, op.key, op.name, op.kind, now, op.wake_at, op.poll_count, op.loop_count)
    tx.execute(_STEP_COUNTED, values)
    name = "workflow.step.loop" if op.loop_count else "workflow.step.poll"
    counts = {"loop_count": op.loop_count} if op.loop_count else {"poll_count": op.poll_count}
    events.append(tx, instance, name, now, _step_data(op, **counts, **op.data))


@apply.register
def _step_completed(op: StepCompleted, tx: Transaction, instance: int, now: float) -> None:
    if op.begin:
        row = tx.execute(_STEP_AT_ONCE, (instance, op.key, op.name, op.kind, op.output, now)).fetchone()
        if not op.quiet:
            events.append(tx, instance, "workflow.step.started", now, _step_data(op, attempt=1))
    else:
        row = tx.execute(_STEP_COMPLETED, (op.output, now, instance, op.key)).fetchone()
    if not op.quiet:
        events.append(tx, instance, "workflow.step.completed", now, _step_data(op), payload=row[0])
    if op.progress is not None:
        _progressed(op.progress, tx, instance, now)


def _progressed(progress: Progress, tx: Transaction, instance: int, now: float) -> None:
    data = {
        "progress": progress.percent,
        "current_step": progress.current_step,
        "completed_steps": progress.completed_steps,
        "total_steps": progress.total_steps,
    }
    events.append(tx, instance, "workflow.progress", now, data)


@apply.register
def _step_failed(op: StepFailed, tx: Transaction, instance: int, now: float) -> None:
    text = _error_text(op.error)
    row = tx.execute(_STEP_FAILED, (op.failures, op.attempts, text, now, instance, op.key)).fetchone()
    data = _step_data(op, error=json.loads(text), attempts=row[0] if row else 1)
    events.append(tx, instance, "workflow.step.failed", now, data)


@apply.register
def _emitted(op: Emitted, tx: Transaction, instance: int, now: float) -> None:
    if op.name != "workflow.stream":
        events.append(tx, instance, op.name, now, op.data, aliases=op.aliases)
        return
    _streamed(op.data, tx, instance, now)
    _pass_to_caller(op, tx, instance, now)


def _streamed(data: dict[str, Any], tx: Transaction, instance: int, now: float) -> None:
    """Add a chunk to a stream; it is numbered here, for several processes may send into one stream."""
    last = tx.execute(_LAST_CHUNK, (instance,)).fetchone()
    events.append(
        tx, instance, "workflow.stream", now, {"index": json.loads(last[0])["index"] + 1 if last else 0, **data}
    )


def _pass_to_caller(op: Emitted, tx: Transaction, instance: int, now: float) -> None:
    """Tell a chunk of an action that runs elsewhere in the stream of the workflow that waits for it, too."""
    caller = tx.execute(_CALLER, (instance,)).fetchone()
    if caller is not None:
        waiting, step = caller
        _streamed({"chunk": op.data["chunk"], "step": step}, tx, waiting, now)


@apply.register
def _logged(op: Logged, tx: Transaction, instance: int, now: float) -> None:
    data = {
        "level": op.level_name,
        "message": op.message,
        "data": op.data,
        "step_name": op.step_name,
        "attempt": op.attempt,
        "source": op.source,
    }
    instance_id = tx.execute("SELECT id FROM paddock_instances WHERE seq = ?", (instance,)).fetchone()[0]
    events.append(tx, instance, "log.workflow", op.at, data, level=op.level, aliases=(f"log.workflow.{instance_id}",))
    if op.position is not None:
        tx.execute(_POSITION[op.source], (op.position, instance))


@apply.register
def _output_skipped(op: OutputSkipped, tx: Transaction, instance: int, now: float) -> None:
    tx.execute(_POSITION[op.source], (op.position, instance))


@apply.register
def _metadata_set(op: MetadataSet, tx: Transaction, instance: int, now: float) -> None:
    instances.merge_metadata(tx, instance, [(op.key, op.value)])


@apply.register
def _signal_taken(op: SignalTaken, tx: Transaction, instance: int, now: float) -> None:
    signals.take(tx, op.id, op.key)


@apply.register
def _child_started(op: ChildStarted, tx: Transaction, instance: int, now: float) -> None:
    parent_id = tx.execute("SELECT id FROM paddock_instances WHERE seq = ?", (instance,)).fetchone()[0]
    new = instances.NewInstance(
        id=op.id,
        workflow_name=op.workflow_name,
        input=op.input,
        priority=op.priority,
        limit_key=op.limit_key,
        wake_at=op.wake_at,
        parent_id=parent_id,
        parent_key=op.parent_key,
        metadata=op.metadata,
    )
    instances.create(tx, new, now)


@apply.register
def _suspended(op: Suspended, tx: Transaction, instance: int, now: float) -> None:
    data = {"detail": op.reason} if op.reason else None
    instances.move(tx, instance, Status.RUNNING, op.status, now, error=op.error, wake_at=op.wake_at, data=data)
    if op.status in (Status.WAITING, Status.SLEEPING) and signals.has_come(tx, instance):
        # what it waits for came between its last look and this commit: the one who sent it saw it running
        instances.move(tx, instance, op.status, Status.PENDING, now)
        return
    if instances.take_pause(tx, instance):
        instances.move(tx, instance, op.status, Status.PAUSED, now)


@apply.register
def _ended(op: Ended, tx: Transaction, instance: int, now: float) -> None:
    if op.progress is not None:
        _progressed(op.progress, tx, instance, now)
    instances.move(tx, instance, Status.RUNNING, op.status, now, error=op.error, output=op.output)


def _error_text(error: ErrorInfo) -> str:
    return error.model_dump_json(exclude_none=True)
