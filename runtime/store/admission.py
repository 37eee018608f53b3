"""Admission: who may run now, decided inside one transaction; and what becomes of an instance whose executor is dead.

A slot is a row of `paddock_leases`: made by the claim, removed when the executor's death was seen. What runs is counted from these rows,
so no slot can leak, and a process that has committed its end but not yet exited still holds its slot: a limit holds for live
processes too, not only for statuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..base.records import LEVELS, TERMINAL, ErrorInfo, LogSource, Status
from . import events, instances
from .apply import apply
from .ops import Lease, Logged
from .transaction import Transaction

__all__ = ["Claim", "Death", "Held", "Settlement", "Wanted", "claim", "held", "next_sleeper", "release_due", "settle"]

_COUNT = "SELECT workflow_name, count(*), sum(isolated) FROM paddock_leases GROUP BY workflow_name"
_QUEUED = """
SELECT seq, id, priority, executions FROM paddock_instances
WHERE status = 'pending' AND wake_at IS NULL AND workflow_name = ?1 AND seq > ?2
  AND NOT EXISTS (SELECT 1 FROM paddock_leases WHERE instance = seq)
ORDER BY priority DESC, seq LIMIT ?3
"""
_QUEUED_BY_KEY = """
SELECT seq, id, priority, executions FROM (
    SELECT i.seq, i.id, i.priority, i.executions,
        row_number() OVER (PARTITION BY i.limit_key ORDER BY i.priority DESC, i.seq) AS place,
        (SELECT count(*) FROM paddock_leases l WHERE l.workflow_name = ?1 AND l.limit_key IS i.limit_key) AS busy
    FROM paddock_instances i
    WHERE i.status = 'pending' AND i.wake_at IS NULL AND i.workflow_name = ?1 AND i.seq > ?2 AND i.limit_key IS NOT NULL
      AND NOT EXISTS (SELECT 1 FROM paddock_leases WHERE instance = i.seq)
) AS queued WHERE place + busy <= ?4 ORDER BY priority DESC, seq LIMIT ?3
"""
_STARTS = "SELECT count(*) FROM paddock_starts WHERE workflow_name = ? AND at > ?"
_STARTED = "INSERT INTO paddock_starts VALUES (?, ?)"
_FORGET_STARTS = "DELETE FROM paddock_starts WHERE workflow_name = ? AND at <= ?"
_CLAIM = "UPDATE paddock_instances SET epoch = epoch + 1 WHERE seq = ? RETURNING epoch, parent_id"
# not a subquery of RETURNING: SQLite uses no index there
_WORKFLOW_OF = "SELECT workflow_name FROM paddock_instances WHERE id = ?"
_LEASE = """
INSERT INTO paddock_leases (instance, workflow_name, limit_key, isolated, epoch, claimed_at)
SELECT seq, workflow_name, limit_key, ?, epoch, ? FROM paddock_instances WHERE seq = ?
"""
_HELD = """
SELECT l.instance, l.epoch, i.id, i.workflow_name, i.status, l.isolated, l.pid, l.pid_start, l.boot_id, l.out_position, l.err_position
FROM paddock_leases l JOIN paddock_instances i ON i.seq = l.instance
"""
_SOMEBODY_WAITS = "SELECT EXISTS (SELECT 1 FROM paddock_instances WHERE status = 'pending' AND wake_at IS NULL)"
_RELEASE = "DELETE FROM paddock_leases WHERE instance = ? AND epoch = ?"
_OPEN_STEP = """
SELECT key, attempts FROM paddock_steps WHERE instance = ? AND status IN ('running', 'retrying', 'waiting') ORDER BY seq DESC LIMIT 1
"""
_RUNNING_STEPS = """
SELECT name, attempts FROM paddock_steps WHERE instance = ? AND status = 'running' AND kind IN ('task', 'step', 'action') LIMIT 2
"""
_MARK = """
SELECT count(*) FILTER (WHERE status = 'completed') + coalesce(sum(failures + poll_count + loop_count), 0)
FROM paddock_steps WHERE instance = ?
"""
_CRASH = "SELECT crash_step, crash_mark, crash_count, executions FROM paddock_instances WHERE seq = ?"
_CRASHED = "UPDATE paddock_instances SET crash_step = ?, crash_mark = ?, crash_count = ? WHERE seq = ?"
_TIMED_OUT_STEP = """
UPDATE paddock_steps SET failures = failures + 1, error = ?, deadline_at = NULL WHERE instance = ? AND status = 'running' AND deadline_at <= ?
"""
_DUE = """
SELECT seq, status FROM paddock_instances WHERE wake_at <= ? AND status IN ('pending', 'sleeping', 'waiting') ORDER BY wake_at LIMIT 500
"""
_READY = "UPDATE paddock_instances SET wake_at = NULL WHERE seq = ?"
_NEXT = """
SELECT min(wake_at) FROM paddock_instances WHERE wake_at IS NOT NULL AND status IN ('pending', 'sleeping', 'waiting')
"""
_INLINE_AT_ONCE = 64
_BACKOFF_FIRST, _BACKOFF_LAST = 0.25, 60.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the dispatcher can run: each registered name's limit (0 = none) and whether it is isolated.

    `capacity` is how many processes may live; `after` leaves out instances up to that row, for `resume="skip"`. For names in `keyed` the
    limit counts for each limit key by itself. One that has no key yet waits for it: it was queued just now, from within an
    instance or by a fork. `rates` allows so many first starts within so many seconds.
    """

    limits: Mapping[str, int]
    isolated: frozenset[str]
    capacity: int
    after: int = 0
    keyed: frozenset[str] = frozenset()
    rates: Mapping[str, tuple[int, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Claim:
    """An instance that may run now; `parent` is the workflow of the instance that has started it."""

    lease: Lease
    id: str
    workflow_name: str
    isolated: bool
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """A lease as its row has it, with the identity of its executor as far as it is known."""

    lease: Lease
    id: str
    workflow_name: str
    status: Status
    isolated: bool
    pid: int | None
    pid_start: int | None
    boot_id: str | None
    out_position: int = 0
    err_position: int = 0


@dataclass(frozen=True, slots=True)
class Death:
    """How an executor ended.

    `planned` ends (drain, a step's timeout) count as no crash. `unborn` is one that, so far as anybody knows, never was: if it has taken
    the lease after all, nothing is settled. `pause` is for how many seconds a planned end keeps the instance back.

    `leftover` holds what it printed and nobody read: (source, line) pairs.
    """

    planned: bool = False
    step_timed_out: bool = False
    unborn: bool = False
    pause: float = 0.0
    error: ErrorInfo | None = None
    fatal: bool = False
    leftover: tuple[tuple[LogSource, str], ...] = ()
    verdicts: tuple[tuple[str, dict[str, object]], ...] = ()
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of the instance: its status now, and when it may run again; or who holds its lease, against all knowledge.

    `over` tells that the queue need not be looked at for it: the instance has ended, and nobody waits for its slot. `told` tells that there are
    events of it.
    """

    status: Status
    wake_at: float | None = None
    crashes: int = 0
    holder: tuple[int, int, str] | None = None
    over: bool = False
    told: bool = False


def claim(tx: Transaction, wanted: Wanted, now: float) -> list[Claim]:
    """Give slots to pending instances, the highest priority first, then the oldest; return those that got one."""
    busy: dict[str, int] = {}
    processes = 0
    for name, count, isolated in tx.execute(_COUNT):
        busy[name] = count
        processes += isolated or 0
    capacity = max(0, wanted.capacity - processes)
    queue: list[tuple[int, int, str, str]] = []
    for name in wanted.limits:
        queue += _candidates(tx, wanted, name, busy.get(name, 0), capacity, now)
    claims = []
    for _, seq, ident, name in sorted(queue):
        isolated = name in wanted.isolated
        if isolated:
            if capacity <= 0:
                continue
            capacity -= 1
        instances.move(tx, seq, Status.PENDING, Status.RUNNING, now)
        epoch, parent_id = tx.execute(_CLAIM, (seq,)).fetchone()
        parent = tx.execute(_WORKFLOW_OF, (parent_id,)).fetchone() if parent_id is not None else None
        tx.execute(_LEASE, (int(isolated), now, seq))
        if name in wanted.rates and epoch == 1:
            tx.execute(_STARTED, (name, now))
        claims.append(Claim(Lease(seq, epoch), ident, name, isolated, parent[0] if parent else None))
    return claims


def _candidates(
    tx: Transaction, wanted: Wanted, name: str, busy: int, capacity: int, now: float
) -> list[tuple[int, int, str, str]]:
    """Return who may run of one workflow, as (negative priority, row, id, name): what its limit, its keys and its rate leave."""
    limit, keyed = wanted.limits[name], name in wanted.keyed and wanted.limits[name]
    most = capacity if name in wanted.isolated else _INLINE_AT_ONCE
    room = min(most, limit - busy) if limit and not keyed else most
    if room <= 0:
        return []
    values = (name, wanted.after, room)
    rows = tx.execute(_QUEUED_BY_KEY, (*values, limit)) if keyed else tx.execute(_QUEUED, values)
    found = rows.fetchall()
    if name in wanted.rates:
        count, window = wanted.rates[name]
        tx.execute(_FORGET_STARTS, (name, now - window))
        left = count - tx.execute(_STARTS, (name, now - window)).fetchone()[0]
        fresh = [row for row in found if row[3] == 0][: max(0, left)]
        found = [row for row in found if row[3] > 0 or row in fresh]
    return [(-priority, seq, ident, name) for seq, ident, priority, _ in found]


def held(tx: Transaction) -> list[Held]:
    """Return every lease there is."""
    return [
        Held(Lease(row[0], row[1]), row[2], row[3], Status(row[4]), bool(row[5]), *row[6:]) for row in tx.execute(_HELD)
    ]


def settle(tx: Transaction, lease: Lease, death: Death, max_resumes: int, now: float) -> Settlement | None:
    """Release the lease of a dead executor and decide what becomes of its instance; None where another holds it.

    An instance that still stands at `running` has lost its executor: it goes back to the queue, later at each crash without
    progress, and fails as a `CrashLoop` after `max_resumes` of them.
    """
    row = tx.execute(
        "SELECT i.status, l.pid, l.pid_start, l.boot_id FROM paddock_leases l JOIN paddock_instances i ON i.seq = l.instance "
        "WHERE instance = ? AND l.epoch = ?",
        (lease.instance, lease.epoch),
    ).fetchone()
    if row is None:
        return None
    status = Status(row[0])
    if death.unborn and row[1] is not None:
        return Settlement(status, holder=(row[1], row[2], row[3]))
    for name, data in death.verdicts:
        events.append(tx, lease.instance, name, now, dict(data))
    _keep_leftover(tx, lease.instance, death, now, running=status is Status.RUNNING)
    settlement = Settlement(status)
    if status is Status.RUNNING:
        settlement = _crashed(tx, lease, death, max_resumes, now)
    tx.execute(_RELEASE, (lease.instance, lease.epoch))
    over = settlement.status in TERMINAL and not tx.execute(_SOMEBODY_WAITS).fetchone()[0]
    told = status is Status.RUNNING or bool(death.verdicts or death.leftover)
    return replace(settlement, over=over, told=told)


def _keep_leftover(tx: Transaction, seq: int, death: Death, now: float, *, running: bool) -> None:
    """Keep what the process printed and nobody had read, and a note of an unplanned death, among the instance's logs."""
    open_ = tx.execute(_RUNNING_STEPS, (seq,)).fetchall() if running and death.leftover else []
    step, attempt = open_[0] if len(open_) == 1 else (None, None)  # the only one that can have printed it
    for source, line in death.leftover:
        level = "warning" if source == "stderr" else "info"
        apply(Logged(LEVELS[level], level, line, {}, step, attempt, source, now), tx, seq, now)
    if death.error is not None and not death.planned and running:
        apply(Logged(40, "error", death.error.message, {}, death.error.step, None, "runtime", now), tx, seq, now)


def _crashed(tx: Transaction, lease: Lease, death: Death, max_resumes: int, now: float) -> Settlement:
    seq = lease.instance
    step = tx.execute(_OPEN_STEP, (seq,)).fetchone()
    if step is not None and death.error is not None and not death.fatal:
        death = replace(death, error=death.error.model_copy(update={"step": step[0], "attempt": step[1]}))
    if death.fatal and death.error is not None:
        instances.move(tx, seq, Status.RUNNING, Status.FAILED, now, error=death.error)
        return Settlement(Status.FAILED)
    if death.step_timed_out:
        spent = _as_timeout(death.error)
        tx.execute(_TIMED_OUT_STEP, (spent.model_dump_json(exclude_none=True), seq, now))
    if death.planned:
        target = Status.PAUSED if instances.take_pause(tx, seq) else Status.PENDING
        wake_at = now + death.pause if death.pause and target is Status.PENDING else None
        instances.move(tx, seq, Status.RUNNING, target, now, wake_at=wake_at)
        return Settlement(target, wake_at)
    key = step[0] if step else "(boot)"
    mark = tx.execute(_MARK, (seq,)).fetchone()[0]
    crash_step, crash_mark, count, _ = tx.execute(_CRASH, (seq,)).fetchone()
    count = count + 1 if (crash_step, crash_mark) == (key, mark) else 1
    tx.execute(_CRASHED, (key, mark, count, seq))
    wake_at = None if count == 1 else now + min(_BACKOFF_FIRST * 2.0 ** (count - 2), _BACKOFF_LAST)
    _tell_crash(tx, seq, death, (count, max_resumes), wake_at, now)
    if count > max_resumes:
        error = _crash_loop(death.error, key if step else None, count)
        instances.move(tx, seq, Status.RUNNING, Status.FAILED, now, error=error)
        return Settlement(Status.FAILED, crashes=count)
    if instances.take_pause(tx, seq):
        instances.move(tx, seq, Status.RUNNING, Status.PAUSED, now, error=death.error)
        return Settlement(Status.PAUSED, crashes=count)
    instances.move(tx, seq, Status.RUNNING, Status.PENDING, now, error=death.error, wake_at=wake_at)
    return Settlement(Status.PENDING, wake_at, count)


def _tell_crash(
    tx: Transaction, seq: int, death: Death, crashes: tuple[int, int], wake_at: float | None, now: float
) -> None:
    """Write the event of a crash: the count without progress so far, how many are let pass, when it goes on if at all."""
    count, most = crashes
    error = death.error.model_dump(mode="json", exclude_none=True) if death.error is not None else None
    goes_on = {"wake_at": wake_at} if count <= most else {}
    data = {"pid": death.pid, "crashes": count, "max_resumes": most, **goes_on, "error": error}
    events.append(tx, seq, "workflow.crashed", now, data)


def _as_timeout(death: ErrorInfo | None) -> ErrorInfo:
    """Return the error of a step whose timeout its process did not survive, with what is known of that."""
    facts = death.model_dump(exclude={"type", "message", "step", "attempt"}) if death is not None else {}
    return ErrorInfo(type="StepTimeout", message="the step outran its timeout and its process was ended", **facts)


def _crash_loop(last: ErrorInfo | None, step: str | None, count: int) -> ErrorInfo:
    how = f"; the last: {last.message}" if last is not None else ""
    facts = last.model_dump(exclude={"type", "message", "step"}) if last is not None else {}
    where = f"at step {step!r}" if step else "before its first step"
    return ErrorInfo(
        type="CrashLoop",
        message=f"the process died {'once' if count == 1 else f'{count} times'} {where} without progress{how}",
        step=step,
        **facts,
    )


def release_due(tx: Transaction, now: float) -> tuple[int, float | None]:
    """Put what is due into the queue; return how many, and when the next is due."""
    rows = tx.execute(_DUE, (now,)).fetchall()
    for seq, status in rows:
        if status == Status.PENDING:
            tx.execute(_READY, (seq,))
        else:
            instances.move(tx, seq, Status(status), Status.PENDING, now)
    return len(rows), tx.execute(_NEXT).fetchone()[0]


def next_sleeper(tx: Transaction) -> float | None:
    """Return when the next instance wakes that only time wakes."""
    found: float | None = tx.execute(
        "SELECT min(wake_at) FROM paddock_instances WHERE wake_at IS NOT NULL AND status IN ('pending', 'sleeping')"
    ).fetchone()[0]
    return found
