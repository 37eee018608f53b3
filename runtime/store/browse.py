"""Looking from outside: pages of instances, one instance with all that belongs to it, queues, kills. For the HTTP API and its page.

Rows come back as mappings of column to value; times are seconds since the epoch, payloads JSON texts. Nothing here writes, and nothing
reads a payload that it was not asked for: a page over 50,000 instances costs as much as one over 50.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..base.errors import InstanceNotFound
from . import events
from .transaction import Transaction

__all__ = [
    "Current",
    "Filter",
    "MachineData",
    "Page",
    "Row",
    "children",
    "counts",
    "current",
    "database_size",
    "instance",
    "instances_page",
    "kills",
    "machine_data",
    "marks",
    "metadata",
    "names_of",
    "payload",
    "queues",
    "reachable",
    "signals",
    "step_events",
    "steps",
]

Row = dict[str, Any]

_SUMMARY = """
SELECT i.seq, i.id, i.workflow_name, i.status, i.error, i.created_at, i.started_at, i.completed_at, i.wake_at, i.deadline_at,
       i.executions, i.priority, i.parent_id, i.limit_key, i.version, i.crash_count, l.pid, l.isolated, l.claimed_at,
       (SELECT key FROM paddock_steps s WHERE s.instance = i.seq AND s.status IN ('running', 'retrying', 'waiting')
        ORDER BY s.seq DESC LIMIT 1) AS current_step,
       (SELECT count(*) FROM paddock_steps s WHERE s.instance = i.seq AND s.status = 'completed'
        AND s.kind NOT IN ('now', 'random', 'uuid4', 'rng', 'patched', 'update', 'emit', 'metadata')) AS completed_steps,
       (SELECT error FROM paddock_steps s WHERE s.instance = i.seq AND s.status = 'retrying' AND i.status = 'sleeping'
        ORDER BY s.seq DESC LIMIT 1) AS retrying
FROM paddock_instances i LEFT JOIN paddock_leases l ON l.instance = i.seq
"""
_CLAIMED = "SELECT instance FROM paddock_leases ORDER BY claimed_at DESC, instance DESC LIMIT ?"
_QUEUED_AGAIN = (
    "SELECT seq FROM paddock_instances WHERE status = 'pending' AND started_at > 0 ORDER BY started_at, id LIMIT ?"
)
_TRIED_AGAIN = """
SELECT s.instance FROM paddock_steps s WHERE s.status = 'retrying' AND s.wake_at > 0
    AND (SELECT status FROM paddock_instances i WHERE i.seq = s.instance) = 'sleeping'
    AND NOT EXISTS (SELECT 1 FROM paddock_steps sooner WHERE sooner.instance = s.instance AND sooner.status = 'retrying'
                    AND (sooner.wake_at < s.wake_at OR (sooner.wake_at = s.wake_at AND sooner.seq < s.seq)))
ORDER BY s.wake_at, s.seq LIMIT ?
"""  # no join: from the few steps to their instances, and never the other way
_BROKEN = """
SELECT seq, completed_at FROM paddock_instances i
WHERE status IN ('failed', 'timed_out') AND status = '{status}' AND completed_at > ?
    AND NOT EXISTS (SELECT 1 FROM paddock_instances f WHERE f.forked_from = i.seq)
ORDER BY completed_at DESC, seq DESC LIMIT ?
"""  # the first condition is the index's, which SQLite wants to read word by word
_BAD = ("failed", "timed_out")
_NUMBER = "SELECT seq FROM paddock_instances WHERE id = ?"
_STEPS = """
SELECT seq, key, name, kind, status, input, output, error, attempts, started_at, completed_at, poll_count, loop_count, wake_at,
       deadline_at, event_name, schema, child_id, length(input) AS input_size, length(output) AS output_size
FROM paddock_steps WHERE instance = ? ORDER BY seq
"""
_STEP_EVENTS = """
SELECT id, name, created_at, data FROM (
    SELECT id, name, created_at, data FROM paddock_events WHERE instance = ?1 ORDER BY id DESC LIMIT ?2
) AS newest WHERE name IN ('workflow.step.started', 'workflow.step.retry', 'workflow.step.failed', 'workflow.step.completed', 'workflow.started',
    'workflow.resumed', 'workflow.crashed', 'workflow.suspended', 'workflow.completed', 'workflow.failed', 'workflow.cancelled', 'workflow.timed_out')
ORDER BY id
"""
_MANY_EVENTS = "SELECT count(*) FROM (SELECT 1 FROM paddock_events WHERE instance = ? LIMIT ?) AS newest"
_CHILDREN = """
SELECT i.id, i.workflow_name, i.status, i.parent_key AS step FROM paddock_instances i WHERE i.parent_id = ? ORDER BY i.seq LIMIT ?
"""
_SIGNALS = (
    "SELECT id, name, payload, created_at, taken_by FROM paddock_signals WHERE instance = ? ORDER BY id DESC LIMIT ?"
)
_METADATA = "SELECT key, value FROM paddock_metadata WHERE instance = ? ORDER BY key"
_PAYLOAD = "SELECT value FROM paddock_payloads WHERE instance = ? AND kind = ?"
_STEP_PAYLOAD = "SELECT input, output FROM paddock_steps WHERE instance = ? AND key = ?"
_KILLS = """
SELECT e.id, e.created_at, e.data, i.id AS instance_id, i.workflow_name FROM paddock_events e JOIN paddock_instances i ON i.seq = e.instance
WHERE e.name = 'workflow.watchdog.killed' AND (CAST(?1 AS BIGINT) IS NULL OR e.id < ?1) AND (CAST(?2 AS BIGINT) IS NULL OR e.instance = ?2) ORDER BY e.id DESC LIMIT ?3
"""
_COUNTS = "SELECT workflow_name, status, count(*) AS count FROM paddock_instances GROUP BY workflow_name, status ORDER BY 1, 2"
_QUEUED = """
SELECT workflow_name, limit_key, count(*) FILTER (WHERE wake_at IS NULL) AS pending, count(*) FILTER (WHERE wake_at IS NOT NULL) AS delayed,
       min(CASE WHEN wake_at IS NULL THEN created_at END) AS oldest_at
FROM paddock_instances WHERE status = 'pending' GROUP BY workflow_name, limit_key ORDER BY 1, 2 NULLS FIRST
"""
_RUNNING = "SELECT workflow_name, limit_key, count(*) AS running FROM paddock_leases GROUP BY workflow_name, limit_key ORDER BY 1, 2 NULLS FIRST"
_AHEAD = """
SELECT count(*) FROM paddock_instances WHERE status = 'pending' AND wake_at IS NULL AND workflow_name = ?1
AND (priority > ?2 OR (priority = ?2 AND seq < ?3))
"""
_TRANSITION = """
SELECT seq, key, output FROM paddock_steps WHERE instance = ? AND kind = 'state' AND status = 'completed' ORDER BY seq DESC LIMIT 1
"""
_TAKEN = "SELECT key, output FROM paddock_steps WHERE instance = ? AND kind = 'update' AND seq > ? AND output IS NOT NULL ORDER BY seq"
_KEPT = "SELECT payload FROM paddock_signals WHERE instance = ? AND name = ? AND taken_by IS NULL ORDER BY id"
_SEARCH = r"""(i.id LIKE ? ESCAPE '\' OR i.workflow_name LIKE ? ESCAPE '\' OR i.error LIKE ? ESCAPE '\'
 OR EXISTS (SELECT 1 FROM paddock_metadata m WHERE m.instance = i.seq AND (m.value LIKE ? ESCAPE '\' OR m.key LIKE ? ESCAPE '\')))"""
_NAMES = "SELECT id, workflow_name FROM paddock_instances WHERE id IN ({marks})"
_ANY = "SELECT count(*) FROM paddock_schedules"
_MARKS = "SELECT id, name FROM paddock_events WHERE id > ?1 AND name IN ({names}) ORDER BY id LIMIT ?2"


@dataclass(frozen=True, slots=True)
class Filter:
    """Which instances a page shows; empty fields let all through. `text` is looked for in ids, names, errors and metadata."""

    names: Sequence[str] = ()
    statuses: Sequence[str] = ()
    text: str | None = None
    parent_id: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Instances, the newest first, and whether there are older and newer ones."""

    rows: list[Row]
    has_older: bool
    has_newer: bool
    last_event_id: int


@dataclass(frozen=True, slots=True)
class Current:
    """What is looked at first, each list in the order of what happened: `again` had begun before, and waits for a slot or for its next try."""

    running: list[Row]
    again: list[Row]
    broken: list[Row]


@dataclass(frozen=True, slots=True)
class MachineData:
    """What rows tell of a state machine's data, as JSON texts.

    `transition` is the output of its last one; `taken` are lists of updates that its state has taken since; `kept` are updates that wait.
    """

    transition: str | None
    taken: list[str]
    kept: list[str]


def _rows(tx: Transaction, statement: str, values: Sequence[Any] = ()) -> list[Row]:
    cursor = tx.execute(statement, values)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def _marks(values: Sequence[Any]) -> str:
    return ",".join("?" * len(values))


def _where(wanted: Filter) -> tuple[str, list[Any]]:
    clauses: list[str] = ["1 = 1"]
    values: list[Any] = []
    for column, accepted in (("workflow_name", wanted.names), ("status", wanted.statuses)):
        if accepted:
            clauses.append(f"i.{column} IN ({_marks(accepted)})")
            values += accepted
    if wanted.parent_id is not None:
        clauses.append("i.parent_id = ?")
        values.append(wanted.parent_id)
    if wanted.text:
        escaped = wanted.text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        clauses.append(_SEARCH)
        values += [f"{escaped}%", *[f"%{escaped}%"] * 4]
    return " AND ".join(clauses), values


def instances_page(
    tx: Transaction, wanted: Filter, limit: int, before: int | None = None, after: int | None = None
) -> Page:
    """Return up to `limit` instances, the newest first: those before a row number, those after one, or the newest of all."""
    where, values = _where(wanted)
    if after is not None:
        way, bound, edge = "ASC", " AND i.seq > ?", [after]
    else:
        way, bound, edge = (
            "DESC",
            " AND i.seq < ?" if before is not None else "",
            [before] if before is not None else [],
        )
    numbers = [
        row[0]
        for row in tx.execute(
            f"SELECT i.seq FROM paddock_instances i WHERE {where}{bound} ORDER BY i.seq {way} LIMIT ?",  # noqa: S608  our own clauses
            (*values, *edge, limit + 1),
        )
    ]
    more = len(numbers) > limit
    numbers = sorted(numbers[:limit], reverse=True)
    rows = _rows(tx, f"{_SUMMARY} WHERE i.seq IN ({_marks(numbers)}) ORDER BY i.seq DESC", numbers)
    older, newer = more, before is not None
    if after is not None:
        older, newer = True, more
    return Page(rows, bool(rows) and older, bool(rows) and newer, events.last_event_id(tx))


def current(tx: Transaction, since: float, few: int, many: int) -> Current:
    """Return what runs, claimed last first; what goes on next; and what has ended badly since then, the latest first.

    Not by age as pages are: an instance that was retried may be far older than what fills a page. What was forked is in good hands.
    Each is found by an index, among however many.
    """
    broken = [row for status in _BAD for row in tx.execute(_BROKEN.format(status=status), (since, many)).fetchall()]
    broken.sort(key=lambda row: (row[1], row[0]), reverse=True)
    return Current(
        running=_summaries(tx, tx.execute(_CLAIMED, (few,)).fetchall()),
        again=_summaries(
            tx, [*tx.execute(_QUEUED_AGAIN, (few,)).fetchall(), *tx.execute(_TRIED_AGAIN, (few,)).fetchall()][:few]
        ),
        broken=_summaries(tx, broken[:many]),
    )


def _summaries(tx: Transaction, numbers: Sequence[Sequence[Any]]) -> list[Row]:
    """Return the rows of instances, in the order that is given."""
    wanted = [row[0] for row in numbers]
    found = {row["seq"]: row for row in _rows(tx, f"{_SUMMARY} WHERE i.seq IN ({_marks(wanted)})", wanted)}
    return [found[seq] for seq in wanted if seq in found]


def instance(tx: Transaction, instance_id: str) -> Row:
    """Return one instance's own row, with how many are ahead of it in the queue (`ahead`) and the newest event (`last_event_id`).

    Raises:
        InstanceNotFound: there is none.
    """
    found = _rows(tx, f"{_SUMMARY} WHERE i.id = ?", (instance_id,))
    if not found:
        raise InstanceNotFound(f"no instance has the id {instance_id!r:.150}")
    row = found[0]
    row["ahead"] = None
    if row["status"] == "pending" and row["wake_at"] is None:
        row["ahead"] = tx.execute(_AHEAD, (row["workflow_name"], row["priority"], row["seq"])).fetchone()[0]
    row["last_event_id"] = events.last_event_id(tx)
    return row


def _number(tx: Transaction, instance_id: str) -> int:
    row = tx.execute(_NUMBER, (instance_id,)).fetchone()
    if row is None:
        raise InstanceNotFound(f"no instance has the id {instance_id!r:.150}")
    return int(row[0])


def steps(tx: Transaction, seq: int) -> list[Row]:
    """Return an instance's steps in the order of the journal."""
    return _rows(tx, _STEPS, (seq,))


def step_events(tx: Transaction, seq: int, limit: int) -> tuple[list[Row], bool]:
    """Return the events of tries and executions among an instance's newest `limit` events, and whether there are more events."""
    many = tx.execute(_MANY_EVENTS, (seq, limit + 1)).fetchone()[0] > limit
    return _rows(tx, _STEP_EVENTS, (seq, limit)), many


def children(tx: Transaction, instance_id: str, limit: int) -> list[Row]:
    """Return the instances that an instance has started."""
    return _rows(tx, _CHILDREN, (instance_id, limit))


def signals(tx: Transaction, seq: int, limit: int) -> list[Row]:
    """Return an instance's newest signals, oldest first."""
    return _rows(tx, _SIGNALS, (seq, limit))[::-1]


def metadata(tx: Transaction, seq: int) -> dict[str, str]:
    """Return an instance's metadata as JSON texts."""
    return dict(tx.execute(_METADATA, (seq,)).fetchall())


def payload(tx: Transaction, instance_id: str, kind: Literal["input", "output"], step: str | None = None) -> str | None:
    """Return an instance's or a step's input or output as JSON text, None where there is none.

    Raises:
        InstanceNotFound: there is no such instance.
    """
    seq = _number(tx, instance_id)
    if step is None:
        row = tx.execute(_PAYLOAD, (seq, kind)).fetchone()
        return row[0] if row else None
    row = tx.execute(_STEP_PAYLOAD, (seq, step)).fetchone()
    return row[0 if kind == "input" else 1] if row else None


def machine_data(tx: Transaction, seq: int, update: str) -> MachineData:
    """Return what tells of a state machine's data; updates from outside are signals of the name `update`."""
    last = tx.execute(_TRANSITION, (seq,)).fetchone()
    since, within = (last[0], f"{last[1]}/") if last else (0, "\n")
    taken = [output for key, output in tx.execute(_TAKEN, (seq, since)) if not key.startswith(within)]
    return MachineData(last[2] if last else None, taken, [row[0] for row in tx.execute(_KEPT, (seq, update))])


def kills(tx: Transaction, limit: int, before: int | None = None, instance_id: str | None = None) -> list[Row]:
    """Return what the watchdog has ended, the newest first; raises InstanceNotFound."""
    seq = _number(tx, instance_id) if instance_id is not None else None
    return _rows(tx, _KILLS, (before, seq, limit))


def counts(tx: Transaction) -> list[Row]:
    """Return how many instances of each workflow have each status."""
    return _rows(tx, _COUNTS)


def names_of(tx: Transaction, ids: Sequence[str]) -> dict[str, str]:
    """Return the workflows of instances, by id."""
    return dict(tx.execute(_NAMES.format(marks=_marks(ids)), ids).fetchall())


def reachable(tx: Transaction) -> None:
    """Read something small, to see that the database can be read."""
    tx.execute(_ANY).fetchone()


def queues(tx: Transaction) -> tuple[list[Row], list[Row]]:
    """Return what is queued and what holds slots, each by workflow and limit key."""
    return _rows(tx, _QUEUED), _rows(tx, _RUNNING)


def marks(tx: Transaction, after: int, names: Sequence[str], limit: int) -> list[tuple[int, str]]:
    """Return id and name of events of some names after a cursor."""
    return tx.execute(
        _MARKS.format(names=",".join(f"?{n + 3}" for n in range(len(names)))), (after, limit, *names)
    ).fetchall()


def database_size(tx: Transaction) -> int:
    """Return the size of the database in bytes, free pages included."""
    return int(tx.execute("PRAGMA page_count").fetchone()[0]) * int(tx.execute("PRAGMA page_size").fetchone()[0])
