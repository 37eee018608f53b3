"""What people do to instances from outside: run a failed one on, fork one, hold and release it."""

from __future__ import annotations

from ..base.errors import InstanceIdConflict, InvalidTransition
from ..base.records import TERMINAL, Status
from . import events, instances
from .ops import Lease
from .transaction import Transaction

__all__ = ["children_of", "fork", "pause", "reopen", "unpause"]

_LEASE_OF = "SELECT epoch FROM paddock_leases WHERE instance = ?"
_FAILED_AT = "SELECT json_extract(error, '$.step') FROM paddock_instances WHERE seq = ?"
_LATEST_FAILED = """
SELECT key FROM paddock_steps WHERE instance = ?1 AND status = 'failed'
    AND coalesce(json_extract(error, '$.type'), '') <> 'Stopped'
    AND NOT EXISTS (SELECT 1 FROM paddock_steps later WHERE later.instance = ?1 AND later.seq > paddock_steps.seq
                    AND later.kind NOT IN ('now', 'random', 'uuid4', 'rng', 'patched', 'update', 'emit', 'metadata')
                    AND coalesce(json_extract(later.error, '$.type'), '') <> 'Stopped')
"""
_FAILED_ROW = "SELECT seq, completed_at FROM paddock_steps WHERE instance = ? AND key = ?"
# The step itself (a wait for another instance is completed, with that one's failure in it), the steps that hold it, what a parallel
# that holds it has failed within, and what was stopped because of it. Failures that the code has caught stay: the way past them is
# in the journal.
_FAILED = """
instance = ?1 AND (
    key = ?2
    OR (status = 'failed' AND substr(?2, 1, length(key) + 1) = key || '/')
    OR (status = 'failed' AND json_extract(error, '$.type') = 'Stopped' AND completed_at >= ?3)
    OR (status = 'failed' AND EXISTS (
        SELECT 1 FROM paddock_steps holder WHERE holder.instance = ?1 AND holder.kind = 'parallel' AND holder.status = 'failed'
            AND substr(?2, 1, length(holder.key) + 1) = holder.key || '/'
            AND substr(paddock_steps.key, 1, length(holder.key) + 1) = holder.key || '/'))
)
"""
# A step that ran a handler keeps its row and the number of its tries, so that none of these numbers comes twice under one idempotency
# key; its retries are new. Whatever else is dropped begins afresh.
_RAN = "(kind IN ('task', 'step', 'action') AND child_id IS NULL)"
_RENEW_FAILED = f"""
UPDATE paddock_steps SET status = 'retrying', failures = 0, error = NULL, completed_at = NULL, wake_at = NULL, deadline_at = NULL
WHERE {_RAN} AND {_FAILED}
"""  # noqa: S608  made of constants only
_DROP_FAILED = f"DELETE FROM paddock_steps WHERE NOT {_RAN} AND {_FAILED}"  # noqa: S608
_WAITED_FOR = f"""
SELECT c.id FROM paddock_instances c JOIN paddock_instances p ON p.id = c.parent_id
WHERE p.seq = ?1 AND c.status = 'failed' AND c.id IN (SELECT child_id FROM paddock_steps WHERE kind = 'wait_for' AND {_FAILED})
"""  # noqa: S608  made of constants only
_REOPEN = """
UPDATE paddock_instances SET status = 'pending', error = NULL, completed_at = NULL, wake_at = NULL, crash_step = NULL, crash_count = 0,
    pause_wanted = 0, deadline_at = CASE WHEN deadline_at IS NULL THEN NULL ELSE ?2 + (deadline_at - started_at) END
WHERE seq = ?1
"""
_TAKE_UP = """
UPDATE paddock_steps SET completed_at = NULL, status = CASE
    WHEN event_name IS NOT NULL OR child_id IS NOT NULL OR kind IN ('sleep', 'poll', 'loop') THEN 'waiting'
    WHEN wake_at IS NOT NULL THEN 'retrying' ELSE 'running' END
WHERE instance = ? AND status = 'cancelled'
"""
_WANT_PAUSE = "UPDATE paddock_instances SET pause_wanted = ? WHERE seq = ?"
_FROM = "SELECT seq, key FROM paddock_steps WHERE instance = ? AND (key = ? OR name = ?) ORDER BY seq LIMIT 1"
_COPY_STEPS = """
INSERT INTO paddock_steps (instance, key, name, kind, status, attempts, failures, input, output, error, started_at, completed_at,
                           poll_count, loop_count, event_name, child_id)
SELECT ?1, key, name, kind, CASE WHEN status = 'cancelled' THEN 'waiting' ELSE status END, attempts, failures, input, output, error, started_at, completed_at, poll_count, loop_count,
       event_name, child_id
FROM paddock_steps
WHERE instance = ?2 AND seq < ?3 AND substr(?4, 1, length(key) + 1) <> key || '/' AND (
    status = 'completed' OR (kind = 'loop' AND loop_count > 0)
    OR (status = 'failed' AND NOT EXISTS (  -- a failure that the code has caught: something came after it, and no parallel holds it
        SELECT 1 FROM paddock_steps holder WHERE holder.instance = ?2 AND holder.kind = 'parallel'
            AND substr(paddock_steps.key, 1, length(holder.key) + 1) = holder.key || '/')
        AND key <> coalesce((SELECT json_extract(error, '$.step') FROM paddock_instances WHERE seq = ?2), ''))
)
ORDER BY seq
"""
_COPY_METADATA = "INSERT INTO paddock_metadata SELECT ?1, key, value FROM paddock_metadata WHERE instance = ?2"
_SOURCE = """
SELECT workflow_name, priority, limit_key, (SELECT value FROM paddock_payloads p WHERE p.instance = i.seq AND p.kind = 'input')
FROM paddock_instances i WHERE seq = ?
"""
_FORKED = "UPDATE paddock_instances SET forked_from = ? WHERE seq = ?"
_CHILDREN = "SELECT id FROM paddock_instances WHERE parent_id = ? AND completed_at IS NULL"


def reopen(tx: Transaction, instance_id: str, now: float) -> None:
    """Queue a failed or blocked instance again; its failed steps have new tries, its completed ones stay.

    An instance that it has started, and whose failure was its own, is queued again with it: it would only wait for the same failure.

    Raises:
        InstanceNotFound: there is no such instance.
        InvalidTransition: it has not failed, and is not blocked; or its process is not gone yet.
    """
    seq, status = instances.find(tx, instance_id)
    if status is Status.BLOCKED:
        instances.move(tx, seq, status, Status.PENDING, now)
        return
    if status is not Status.FAILED:
        raise InvalidTransition(
            f"instance {instance_id} is {status.value}; only a failed or a blocked one can be retried"
            + (". Fork it to run it again." if status in TERMINAL else "")
        )
    _drop_failed(tx, seq, now)
    tx.execute(_TAKE_UP, (seq,))
    tx.execute(_REOPEN, (seq, now))
    events.append(tx, seq, "workflow.retried", now)


def _drop_failed(tx: Transaction, seq: int, now: float) -> None:
    """Forget the failure that ended an instance: that of its error's step, or the last one where the error names none."""
    key = tx.execute(_FAILED_AT, (seq,)).fetchone()[0]
    row = tx.execute(_FAILED_ROW, (seq, key)).fetchone()
    if row is None:
        latest = tx.execute(_LATEST_FAILED, (seq,)).fetchone()
        if latest is None:
            return
        key = latest[0]
        row = tx.execute(_FAILED_ROW, (seq, key)).fetchone()
    for (child_id,) in tx.execute(_WAITED_FOR, (seq, key, row[1])).fetchall():
        reopen(tx, child_id, now)
    for statement in (_RENEW_FAILED, _DROP_FAILED):
        tx.execute(statement, (seq, key, row[1]))


def fork(
    tx: Transaction, instance_id: str, new_id: str, from_step: str | None, new_input: str | None, now: float
) -> str:
    """Make an instance that shares another's journal before a step; return its workflow's name.

    Raises:
        InstanceNotFound: there is no such instance.
        InvalidTransition: the step never ran.
        InstanceIdConflict: there is an instance of the new id.
    """
    seq, _ = instances.find(tx, instance_id)
    name, priority, limit_key, text = tx.execute(_SOURCE, (seq,)).fetchone()
    before = None
    if from_step is not None:
        before = tx.execute(_FROM, (seq, from_step, from_step)).fetchone()
        if before is None:
            raise InvalidTransition(
                f"instance {instance_id} never came to a step {from_step!r}; fork from one that it ran"
            )
    if new_input is not None:
        text, limit_key = new_input, None  # the dispatcher asks for the key of the new input
    new = instances.NewInstance(new_id, name, text, priority, limit_key)
    if not instances.create(tx, new, now):
        raise InstanceIdConflict(f"instance {new_id} exists already; give the fork another id")
    made, _ = instances.find(tx, new_id)
    tx.execute(_FORKED, (seq, made))
    if before is not None:
        tx.execute(_COPY_STEPS, (made, seq, before[0], before[1]))
        tx.execute(_COPY_METADATA, (made, seq))
    return str(name)


def pause(tx: Transaction, instance_id: str, now: float) -> Lease | None:
    """Hold an instance: at once where it does not run, else at its next step's boundary; return its executor's lease then.

    Raises:
        InstanceNotFound: there is no such instance.
        InvalidTransition: it has ended.
    """
    seq, status = instances.find(tx, instance_id)
    if status in TERMINAL:
        raise InvalidTransition(f"instance {instance_id} has ended as {status.value}; there is nothing to pause")
    if status is Status.PAUSED:
        return None
    if status is Status.RUNNING:
        tx.execute(_WANT_PAUSE, (1, seq))
        row = tx.execute(_LEASE_OF, (seq,)).fetchone()
        return Lease(seq, row[0]) if row else None
    delayed = tx.execute("SELECT wake_at FROM paddock_instances WHERE seq = ? AND executions = 0", (seq,)).fetchone()
    instances.move(tx, seq, status, Status.PAUSED, now, wake_at=delayed[0] if delayed else None)
    return None


def unpause(tx: Transaction, instance_id: str, now: float) -> None:
    """Release an instance that is held, or is about to be.

    Raises:
        InstanceNotFound: there is no such instance.
        InvalidTransition: it is not paused.
    """
    seq, status = instances.find(tx, instance_id)
    wanted = tx.execute("SELECT pause_wanted FROM paddock_instances WHERE seq = ?", (seq,)).fetchone()[0]
    if status is not Status.PAUSED and not wanted:
        raise InvalidTransition(f"instance {instance_id} is {status.value}, not paused")
    tx.execute(_WANT_PAUSE, (0, seq))
    if status is Status.PAUSED:
        wake_at = tx.execute("SELECT wake_at FROM paddock_instances WHERE seq = ?", (seq,)).fetchone()[0]
        instances.move(tx, seq, Status.PAUSED, Status.PENDING, now, wake_at=wake_at)


def children_of(tx: Transaction, instance_id: str) -> list[str]:
    """Return the ids of the unfinished instances that this one has started."""
    return [row[0] for row in tx.execute(_CHILDREN, (instance_id,))]
