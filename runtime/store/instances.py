"""Instances: made, moved from status to status, read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..base.clock import as_datetime
from ..base.errors import ConcurrencyLimitReached, InstanceIdConflict, InstanceNotFound, InvalidInput
from ..base.records import LEVELS, TERMINAL, ErrorInfo, Instance, Status, StepResult
from ..base.values import plain_json
from . import events
from .lifecycle import ENDING_EVENT, check_move
from .transaction import Transaction

__all__ = [
    "NewInstance",
    "create",
    "find",
    "load_instances",
    "merge_metadata",
    "move",
    "put_payload",
    "remove",
    "take_pause",
]

_INSERT = """
INSERT INTO paddock_instances (id, workflow_name, status, priority, limit_key, created_at, wake_at, parent_id, parent_key, version)
VALUES (?, ?, 'pending', ?, ?, ?, ?, ?, ?, ?)
"""
_FIND = "SELECT seq, status, workflow_name FROM paddock_instances WHERE id = ?"
# What has ended or sleeps is none of it, though its process may take a moment more: who comes now queues for that moment.
_LOAD_OF = """
SELECT count(*) FROM paddock_instances WHERE workflow_name = ?1 AND limit_key IS ?2 AND status IN ('running', 'pending')
"""
_PUT = "INSERT INTO paddock_payloads VALUES (?, ?, ?) ON CONFLICT (instance, kind) DO UPDATE SET value = excluded.value"
_GET = "SELECT value FROM paddock_payloads WHERE instance = ? AND kind = ?"
_META = "INSERT INTO paddock_metadata VALUES (?, ?, ?) ON CONFLICT (instance, key) DO UPDATE SET value = excluded.value"
_MOVE = """
UPDATE paddock_instances SET status = ?1, error = CASE WHEN ?1 = 'running' THEN error ELSE ?2 END, wake_at = ?3, completed_at = ?4
WHERE seq = ?5
"""
_KEYLESS = """
SELECT i.seq, p.value FROM paddock_instances i JOIN paddock_payloads p ON p.instance = i.seq AND p.kind = 'input'
WHERE i.status = 'pending' AND i.wake_at IS NULL AND i.workflow_name = ? AND i.limit_key IS NULL LIMIT 500
"""
_IDS = """
SELECT id FROM paddock_instances WHERE status = ?1 AND (CAST(?2 AS TEXT) IS NULL OR workflow_name = ?2) AND id > ?3 ORDER BY id LIMIT ?4
"""
_REMOVE_MATCHING = """
DELETE FROM paddock_instances WHERE status = ?1 AND (CAST(?2 AS TEXT) IS NULL OR workflow_name = ?2) AND completed_at < ?3
AND NOT EXISTS (SELECT 1 FROM paddock_leases WHERE instance = seq)
"""
# What is under way when an instance ends is over with it. What can tell how to go on with it (`wake_at`) stays, for `retry`.
_FAIL_STEP = """
UPDATE paddock_steps SET status = 'failed', error = ?, completed_at = ?, deadline_at = NULL
WHERE instance = ? AND key = ? AND status IN ('running', 'retrying', 'waiting')
"""
_CUT_STEPS = """
UPDATE paddock_steps SET status = 'cancelled', completed_at = ?, deadline_at = NULL
WHERE instance = ? AND status IN ('running', 'retrying', 'waiting')
"""
_TAKE_PAUSE = "UPDATE paddock_instances SET pause_wanted = 0 WHERE seq = ? AND pause_wanted = 1"
_PARENTS = """
SELECT DISTINCT p.seq, p.status FROM paddock_instances c JOIN paddock_steps s ON s.child_id = c.id AND s.status = 'waiting'
JOIN paddock_instances p ON p.seq = s.instance WHERE c.seq = ?
"""
_SELECT = """
SELECT i.seq, i.id, i.workflow_name, i.status, i.error, i.created_at, i.started_at, i.completed_at, i.wake_at, i.executions,
       i.parent_id, i.priority, i.version, l.pid,
       (SELECT value FROM paddock_payloads p WHERE p.instance = i.seq AND p.kind = 'input'),
       (SELECT value FROM paddock_payloads p WHERE p.instance = i.seq AND p.kind = 'output')
FROM paddock_instances i LEFT JOIN paddock_leases l ON l.instance = i.seq
"""
_STEPS = """
SELECT instance, key, name, kind, status, input, output, error, attempts, started_at, completed_at, poll_count, loop_count
FROM paddock_steps WHERE instance IN ({marks}) ORDER BY seq
"""
_METADATA = "SELECT instance, key, value FROM paddock_metadata WHERE instance IN ({marks})"


@dataclass(frozen=True, slots=True)
class NewInstance:
    """What `start` asks for. `input` is JSON text; `wake_at` seconds since the epoch; metadata values JSON texts."""

    id: str
    workflow_name: str
    input: str
    priority: int = 0
    limit_key: str | None = None
    wake_at: float | None = None
    parent_id: str | None = None
    parent_key: str | None = None
    version: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    reject_at: int | None = None


def create(tx: Transaction, new: NewInstance, now: float) -> bool:
    """Insert an instance; False where its id, workflow and input are there already.

    Raises:
        InstanceIdConflict: the id belongs to another workflow or input.
        ConcurrencyLimitReached: `reject_at` instances of the workflow (and of its key) run or queue already.
    """
    found = tx.execute(_FIND, (new.id,)).fetchone()
    if found is not None:
        held = tx.execute(_GET, (found[0], "input")).fetchone()
        if found[2] != new.workflow_name or (held and plain_json(held[0]) != plain_json(new.input)):
            raise InstanceIdConflict(
                f"instance {new.id} exists already, with another {'workflow' if found[2] != new.workflow_name else 'input'}; "
                "use another id, or the same workflow and input"
            )
        return False
    if (
        new.reject_at is not None
        and tx.execute(_LOAD_OF, (new.workflow_name, new.limit_key)).fetchone()[0] >= new.reject_at
    ):
        raise ConcurrencyLimitReached(
            f'workflow {new.workflow_name!r} is at its limit of {new.reject_at}, and was registered with on_limit="reject"; '
            'start it later, or register it with on_limit="queue"'
        )
    values = (
        new.id,
        new.workflow_name,
        new.priority,
        new.limit_key,
        now,
        new.wake_at,
        new.parent_id,
        new.parent_key,
        new.version,
    )
    seq = int(tx.execute(_INSERT, values).lastrowid or 0)
    put_payload(tx, seq, "input", new.input)
    for key, value in new.metadata:
        tx.execute(_META, (seq, key, value))
    return True


def find(tx: Transaction, instance_id: str) -> tuple[int, Status]:
    """Return an instance's row number and status.

    Raises:
        InstanceNotFound: no instance has this id.
    """
    row = tx.execute(_FIND, (instance_id,)).fetchone()
    if row is None:
        raise InstanceNotFound(f"no instance has the id {instance_id!r:.150}")
    return int(row[0]), Status(row[1])


def put_payload(tx: Transaction, seq: int, kind: str, text: str) -> None:
    """Set an instance's payload (`input`, `output`, `state`)."""
    tx.execute(_PUT, (seq, kind, text))


def merge_metadata(tx: Transaction, seq: int, values: Iterable[tuple[str, str]]) -> None:
    """Set keys of the metadata; other keys stay. Keys are rows, so concurrent writers lose nothing."""
    tx.executemany(_META, ((seq, key, value) for key, value in values))


def move(
    tx: Transaction,
    seq: int,
    source: Status,
    target: Status,
    now: float,
    *,
    error: ErrorInfo | None = None,
    output: str | None = None,
    wake_at: float | None = None,
    data: dict[str, Any] | None = None,
) -> None:
    """Change an instance's status: the only place that does. The event of it commits with it.

    The caller has read `source` in the same transaction. A terminal event carries the error or the output; a suspension names the
    reason in `data`; the queue and the claim have no event of their own (`workflow.started` and `.resumed` come from the executor).
    The error of a crash stays readable while the next executor runs, and goes with the next change of status.

    Raises:
        InvalidTransition: the table of `lifecycle.py` does not allow it.
    """
    check_move(source, target)
    text = error.model_dump_json(exclude_none=True) if error is not None else None
    tx.execute(_MOVE, (target, text, wake_at, now if target in TERMINAL else None, seq))
    if target is Status.COMPLETED:
        put_payload(tx, seq, "output", output if output is not None else "null")
    if target in TERMINAL:
        detail = {"error": json.loads(text)} if text else {}
        payload = events.OUTPUT if target is Status.COMPLETED else None
        if target is Status.FAILED and error is not None and error.step is not None:
            tx.execute(_FAIL_STEP, (text, now, seq, error.step))
        tx.execute(_CUT_STEPS, (now, seq))
        _wake_parents(tx, seq, now)
        events.append(tx, seq, ENDING_EVENT[target], now, {**detail, **(data or {})}, payload=payload)
    elif target in (Status.SLEEPING, Status.WAITING, Status.PAUSED, Status.BLOCKED):
        detail = {
            "status": target.value,
            **({"error": json.loads(text)} if text else {}),
            **({"wake_at": wake_at} if wake_at else {}),
        }
        if target is Status.BLOCKED and error is not None:
            _tell_parents(tx, seq, error, now)
        events.append(tx, seq, "workflow.suspended", now, {"reason": target.value, **detail, **(data or {})})


def take_pause(tx: Transaction, seq: int) -> bool:
    """Tell whether somebody has asked to hold this instance at its next boundary, and take the wish as heard."""
    return tx.execute(_TAKE_PAUSE, (seq,)).rowcount > 0


def _wake_parents(tx: Transaction, seq: int, now: float) -> None:
    """Queue the instances that wait for this one's end; one that still runs looks for itself."""
    for parent, status in tx.execute(_PARENTS, (seq,)).fetchall():
        if status in (Status.WAITING, Status.SLEEPING):
            move(tx, parent, Status(status), Status.PENDING, now)


def _tell_parents(tx: Transaction, child: int, error: ErrorInfo, now: float) -> None:
    """Log with the instances that wait for one why it is blocked: they wait as long."""
    child_id, name = tx.execute("SELECT id, workflow_name FROM paddock_instances WHERE seq = ?", (child,)).fetchone()
    for parent, _ in tx.execute(_PARENTS, (child,)).fetchall():
        (parent_id,) = tx.execute("SELECT id FROM paddock_instances WHERE seq = ?", (parent,)).fetchone()
        message = f"{name} instance {child_id}, which this one waits for, is blocked: {error.type}: {error.message}"
        data: dict[str, Any] = {
            "level": "warning",
            "message": message,
            "data": {},
            "step_name": None,
            "attempt": None,
            "source": "runtime",
        }
        level = LEVELS["warning"]
        events.append(tx, parent, "log.workflow", now, data, level=level, aliases=(f"log.workflow.{parent_id}",))


def load_instances(tx: Transaction, where: str, values: Sequence[Any]) -> list[Instance]:
    """Return instances with their steps and metadata; `where` is one of this package's own clauses, never a caller's text."""
    rows = tx.execute(_SELECT + where, values).fetchall()
    if not rows:
        return []
    numbers = [row[0] for row in rows]
    marks = ",".join("?" * len(numbers))
    steps: dict[int, dict[str, StepResult]] = {number: {} for number in numbers}
    for row in tx.execute(_STEPS.format(marks=marks), numbers):
        steps[row[0]][row[1]] = _step(row)
    metadata: dict[int, dict[str, Any]] = {number: {} for number in numbers}
    for number, key, value in tx.execute(_METADATA.format(marks=marks), numbers):
        metadata[number][key] = plain_json(value)
    return [_instance(row, steps[row[0]], metadata[row[0]]) for row in rows]


def _step(row: tuple[Any, ...]) -> StepResult:
    return StepResult(
        key=row[1],
        step_name=row[2],
        kind=row[3],
        status=row[4],
        input=_plain(row[5]),
        output=_plain(row[6]),
        error=ErrorInfo.model_validate_json(row[7]) if row[7] else None,
        attempts=row[8],
        started_at=as_datetime(row[9]),
        completed_at=as_datetime(row[10]),
        poll_count=row[11],
        loop_count=row[12],
    )


def _plain(text: str | None) -> Any:
    return None if text is None else plain_json(text)


def _instance(row: tuple[Any, ...], steps: dict[str, StepResult], metadata: dict[str, Any]) -> Instance:
    status = Status(row[3])
    error = ErrorInfo.model_validate_json(row[4]) if row[4] else None
    current = _current_step(status, steps.values()) or (error.step if error else None)
    return Instance(
        id=row[1],
        workflow_name=row[2],
        status=status,
        current_step=current,
        input=_plain(row[14]),
        output=_plain(row[15]),
        error=error,
        step_results=steps,
        metadata=metadata,
        created_at=as_datetime(row[5]),
        started_at=as_datetime(row[6]),
        completed_at=as_datetime(row[7]),
        wake_at=as_datetime(row[8]),
        executions=row[9],
        parent_id=row[10],
        priority=row[11],
        version=row[12],
        pid=row[13] if status is Status.RUNNING else None,
    )


def _current_step(status: Status, steps: Iterable[StepResult]) -> str | None:
    """Return the key of the step that is open, the newest of several; of a wait, without a process, the name that a signal answers."""
    found = [step for step in steps if step.status in ("running", "retrying", "waiting")]
    if not found or status in TERMINAL:
        return None
    waits = status in (Status.WAITING, Status.SLEEPING) and found[-1].status == "waiting"
    return found[-1].step_name if waits else found[-1].key


def fill_keys(tx: Transaction, name: str, key_of: Callable[[str], str | None]) -> None:
    """Give queued instances of a workflow that have no limit key the one that their input names.

    An input that was never checked (it came from within another instance, or where no server ran) may not fit: it gets a key that all such
    share, runs, and fails by its own fault, instead of holding up everybody's dispatch.
    """
    for seq, text in tx.execute(_KEYLESS, (name,)).fetchall():
        try:
            key = key_of(text)
        except InvalidInput:
            key = ""
        tx.execute("UPDATE paddock_instances SET limit_key = ? WHERE seq = ?", (key, seq))


def ids(tx: Transaction, name: str | None, status: Status, limit: int, after: str) -> list[str]:
    """Return ids in their order, after one."""
    return [row[0] for row in tx.execute(_IDS, (status, name, after, limit))]


def remove_matching(tx: Transaction, name: str | None, statuses: Sequence[Status], before: float) -> int:
    """Delete ended instances of some statuses that ended before a time; return how many."""
    return sum(tx.execute(_REMOVE_MATCHING, (status, name, before)).rowcount for status in statuses)


def remove(tx: Transaction, seq: int) -> None:
    """Delete an instance with its steps, events, logs and payloads (they cascade)."""
    tx.execute("DELETE FROM paddock_instances WHERE seq = ?", (seq,))
