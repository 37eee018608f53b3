"""The SQLite store: the statements of this package, run as whole transactions in a thread."""

from __future__ import annotations

import functools
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..base.config import SqlitePragmas
from ..base.errors import DatabaseDamaged, DatabaseUnavailable, InvalidTransition
from ..base.records import TERMINAL, ErrorInfo, Event, Instance, LogRecord, Status
from . import admission, events, instances, journal, schedules, signals, steering
from .admission import Claim, Death, Held, Settlement, Wanted
from .instances import NewInstance
from .journal import Journal
from .migrations import migrate, read_version, tables
from .ops import Lease, Op
from .schedules import ScheduleRow
from .signals import Awaited, ChildOutcome, Kept
from .thread import ConnectionThread
from .transaction import Transaction
from .turn import LockFile
from .worker import Worker, explain, open_connection

__all__ = ["MemoryStore", "SqlStore", "SqliteStore", "real_path"]

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
_NEWEST = "SELECT coalesce(max(seq), 0) FROM paddock_instances"
_COUNTS = "SELECT workflow_name, status, count(*) FROM paddock_instances GROUP BY workflow_name, status"


def real_path(database: str | Path) -> str:
    """Return the one name of a database: a symlink or a relative path to it is that database."""
    return os.path.realpath(os.fspath(database))


class SqlStore:
    """What every store does that keeps its rows in SQL: each operation is one function of this package, run as one transaction.

    Args:
        path: the database as messages name it.
        writer: runs transactions.
        reader: runs what only reads, without waiting for the write lock; the writer itself where one connection is enough.
    """

    def __init__(self, path: str, writer: ConnectionThread, reader: ConnectionThread) -> None:
        """Hold the workers."""
        self.path = path
        self._writer = writer
        self._reader = reader
        self._viewer: ConnectionThread | None = None
        #: Called first in each transaction that writes (not in those of `commit_now`): what it raises is all that comes of it.
        self.guard: Callable[[Transaction], None] | None = None

    def _make_viewer(self) -> ConnectionThread | None:
        """Return one more reader, for long looks; None where reads have no connection of their own."""
        return None

    def close(self) -> None:
        """Finish what is under way and close the connections."""
        self._writer.close()
        if self._reader is not self._writer:
            self._reader.close()
        if self._viewer is not None:
            self._viewer.close()

    async def view(self, function: Callable[..., Any], *values: Any, **named: Any) -> Any:
        """Run a function that reads, such as those of `browse`, in one snapshot, on a connection of its own.

        A long look so delays neither commits nor events.

        Raises:
            DatabaseUnavailable: the database cannot be read now.
        """
        if self._viewer is None and self._reader is not self._writer:
            self._viewer = self._make_viewer()
        worker = self._viewer or self._reader
        return await worker.call(functools.partial(_in_snapshot, function, values, named))

    def observe_commits(self, observe: Callable[[float], None]) -> None:
        """Call `observe(seconds)` after each commit of this store, in its thread."""
        self._writer.committed = observe

    def health(self) -> dict[str, Any]:
        """Return what is wrong with the store now; `{}` when nothing is."""
        trouble = self._writer.damage or self._reader.damage or self._writer.trouble or self._reader.trouble
        return {"database": trouble} if trouble else {}

    async def _write(self, function: Callable[..., Any], *values: Any) -> Any:
        if (guard := self.guard) is None:
            return await self._writer.call(lambda tx: function(tx, *values))

        def guarded(tx: Transaction) -> Any:
            guard(tx)
            return function(tx, *values)

        return await self._writer.call(guarded)

    async def _read(self, function: Callable[..., Any], *values: Any, **named: Any) -> Any:
        return await self._reader.call(functools.partial(_in_snapshot, function, values, named))

    # --- executors ---

    async def load(self, lease: Lease) -> Journal:
        """Return the journal of a leased instance; raises LeaseLost."""
        return await self._write(journal.load, lease)  # type: ignore[no-any-return]

    def load_now(self, lease: Lease, holder: tuple[int, int, str]) -> Journal:
        """Take the lease and return the journal, in the calling thread, before the first `commit`: a child has no loop yet."""
        return self._writer.call_now(lambda tx: journal.load(tx, lease, holder))  # type: ignore[no-any-return]

    async def commit(self, lease: Lease, ops: Sequence[Op], now: float) -> int:
        """Apply operations in one transaction and return the newest event's id; raises LeaseLost."""
        return await self._write(journal.commit, lease, ops, now)  # type: ignore[no-any-return]

    async def next_signal(self, lease: Lease, name: str) -> Kept | None:
        """Return the oldest signal of a name that the instance has not taken."""
        return await self._read(signals.next_kept, lease.instance, name)  # type: ignore[no-any-return]

    async def outcome_of(self, instance_id: str) -> ChildOutcome | None:
        """Return how another instance stands."""
        return await self._read(signals.outcome_of, instance_id)  # type: ignore[no-any-return]

    async def started_as(self, instance_id: str) -> tuple[str, str] | None:
        """Return another instance's workflow and input, None for an unknown one."""
        return await self._read(signals.started_as, instance_id)  # type: ignore[no-any-return]

    async def streamed(self, lease: Lease) -> dict[str, int]:
        """Return how many chunks each step (by key) has streamed."""
        return await self._read(events.streamed, lease.instance)  # type: ignore[no-any-return]

    def commit_now(self, lease: Lease, ops: Sequence[Op], now: float) -> int:
        """Do what `commit` does in the calling thread, which waits meanwhile; raises LeaseLost, and WouldWait."""
        return self._writer.call_now(lambda tx: journal.commit(tx, lease, ops, now), brief=True)  # type: ignore[no-any-return]

    # --- signals ---

    async def awaited(self, instance_id: str, name: str) -> list[Awaited]:
        """Return the open waits for a signal; raises InstanceNotFound, InvalidSignal."""
        return await self._read(signals.awaited, instance_id, name)  # type: ignore[no-any-return]

    async def put_signal(self, instance_id: str, name: str, payload: str, now: float) -> Lease | None:
        """Keep a signal and wake who waits for it; return the lease of a running executor."""
        return await self._write(signals.put, instance_id, name, payload, now)  # type: ignore[no-any-return]

    # --- steering ---

    async def reopen(self, instance_id: str, now: float) -> None:
        """Queue a failed or blocked instance again; raises InstanceNotFound, InvalidTransition."""
        await self._write(steering.reopen, instance_id, now)

    async def fork(
        self, instance_id: str, new_id: str, from_step: str | None, new_input: str | None, now: float
    ) -> str:
        """Make an instance that shares a journal before a step; return the workflow's name; raises InvalidTransition."""
        return await self._write(steering.fork, instance_id, new_id, from_step, new_input, now)  # type: ignore[no-any-return]

    async def pause(self, instance_id: str, now: float) -> Lease | None:
        """Hold an instance; return the lease of an executor that must be told; raises InvalidTransition."""
        return await self._write(steering.pause, instance_id, now)  # type: ignore[no-any-return]

    async def unpause(self, instance_id: str, now: float) -> None:
        """Release an instance; raises InvalidTransition."""
        await self._write(steering.unpause, instance_id, now)

    # --- schedules ---

    async def put_schedule(self, row: ScheduleRow) -> None:
        """Insert a schedule; raises ConfigError where its id is taken."""
        await self._write(schedules.put, row)

    async def remove_schedule(self, schedule_id: str) -> bool:
        """Delete a schedule; tell whether it was there."""
        return await self._write(schedules.remove, schedule_id)  # type: ignore[no-any-return]

    async def schedules(self) -> list[ScheduleRow]:
        """Return all schedules."""
        return await self._read(schedules.listed)  # type: ignore[no-any-return]

    async def due_schedules(self, now: float) -> tuple[list[ScheduleRow], float | None]:
        """Return the schedules that are due, and when the next is."""
        return await self._read(schedules.due, now)  # type: ignore[no-any-return]

    async def fire(self, row: ScheduleRow, starts: Sequence[NewInstance], next_at: float, now: float) -> bool:
        """Start a schedule's instances and move it on; False where somebody else has."""
        return await self._write(schedules.fire, row, starts, next_at, now)  # type: ignore[no-any-return]

    # --- admission ---

    async def create(self, new: NewInstance, now: float) -> bool:
        """Insert an instance; False where the same one is there; raises InstanceIdConflict."""
        return await self._write(instances.create, new, now)  # type: ignore[no-any-return]

    async def claim(self, wanted: Wanted, now: float) -> list[Claim]:
        """Give free slots to pending instances."""
        return await self._write(admission.claim, wanted, now)  # type: ignore[no-any-return]

    async def held(self) -> list[Held]:
        """Return every lease."""
        return await self._write(admission.held)  # type: ignore[no-any-return]

    async def next_sleeper(self) -> float | None:
        """Return when the next instance wakes that only time wakes (it sleeps, or is delayed)."""
        return await self._read(admission.next_sleeper)  # type: ignore[no-any-return]

    async def fill_keys(self, name: str, key_of: Callable[[str], str | None]) -> None:
        """Give queued instances of a workflow that were started from within others their limit key."""
        await self._write(instances.fill_keys, name, key_of)

    async def settle(self, lease: Lease, death: Death, max_resumes: int, now: float) -> Settlement | None:
        """Release a dead executor's lease and decide what becomes of its instance."""
        return await self._write(admission.settle, lease, death, max_resumes, now)  # type: ignore[no-any-return]

    async def record(self, lease: Lease, name: str, data: dict[str, Any], now: float) -> None:
        """Add an event about a leased instance from outside its executor (the watchdog's findings)."""
        await self._write(_record, lease, name, data, now)

    async def release_due(self, now: float) -> tuple[int, float | None]:
        """Queue what is due; return how many and when the next is due."""
        return await self._write(admission.release_due, now)  # type: ignore[no-any-return]

    async def end(
        self, instance_id: str, status: Status, now: float, error: ErrorInfo | None = None
    ) -> tuple[bool, list[Lease]]:
        """End an instance from outside, and with it, as cancelled, what it has started.

        Return whether this call did, and the leases of all executors that have to end for it.
        """
        return await self._write(_end, instance_id, status, now, error)  # type: ignore[no-any-return]

    async def overdue(self, now: float) -> tuple[list[str], float | None]:
        """Return the ids whose workflow deadline has passed, and when the next passes."""
        return await self._read(_overdue, now)  # type: ignore[no-any-return]

    async def unblock(self, now: float, instance_id: str | None = None, *, workflow_name: str | None = None) -> int:
        """Put blocked instances back into the queue, one, those of a workflow, or all; return how many."""
        return await self._write(_unblock, now, instance_id, workflow_name)  # type: ignore[no-any-return]

    async def block_unknown(self, names: frozenset[str], now: float) -> int:
        """Park queued instances whose workflow is not among `names`; return how many."""
        return await self._write(_block_unknown, names, now)  # type: ignore[no-any-return]

    async def newest_instance(self) -> int:
        """Return the row number of the newest instance, 0 for none."""
        return int(await self._read(lambda tx: tx.execute(_NEWEST).fetchone()[0]))

    # --- records ---

    async def get(self, instance_id: str) -> Instance | None:
        """Return one instance."""
        found = await self._read(instances.load_instances, "WHERE i.id = ?", (instance_id,))
        return found[0] if found else None

    async def find(self, *, name: str | None, status: Status | None, limit: int, after: str | None) -> list[Instance]:
        """Return instances in the order of their ids."""
        clauses, values = ["1 = 1"], []
        for clause, value in (("i.workflow_name = ?", name), ("i.status = ?", status), ("i.id > ?", after)):
            if value is not None:
                clauses.append(clause)
                values.append(value)
        where = f"WHERE {' AND '.join(clauses)} ORDER BY i.id LIMIT ?"
        return await self._read(instances.load_instances, where, (*values, limit))  # type: ignore[no-any-return]

    async def ids(self, *, name: str | None, status: Status, limit: int, after: str | None) -> list[str]:
        """Return the ids of instances in their order."""
        return await self._read(instances.ids, name, status, limit, after or "")  # type: ignore[no-any-return]

    async def remove_matching(self, name: str | None, statuses: Sequence[Status], before: float) -> int:
        """Delete ended instances of some statuses that ended before a time; return how many."""
        return await self._write(instances.remove_matching, name, statuses, before)  # type: ignore[no-any-return]

    async def merge_metadata(self, instance_id: str, values: Sequence[tuple[str, str]]) -> None:
        """Set metadata keys; raises InstanceNotFound."""
        await self._write(_merge_metadata, instance_id, values)

    async def remove(self, instance_id: str) -> Lease | None:
        """Delete an ended instance with all that is its own; raises InstanceNotFound, InvalidTransition.

        While its last process lives nothing is deleted, and its lease is returned.
        """
        return await self._write(_remove, instance_id)  # type: ignore[no-any-return]

    async def remove_older(self, before: float, limit: int) -> int:
        """Delete up to `limit` instances that ended before a time; return how many."""
        return await self._write(_remove_older, before, limit)  # type: ignore[no-any-return]

    async def events(
        self,
        after: int,
        limit: int,
        *,
        pattern: str | None = None,
        instance_id: str | None = None,
        before: int | None = None,
        backwards: bool = False,
    ) -> list[Event]:
        """Return events after a cursor and before another, oldest first, or newest first where they are read backwards."""
        return await self._read(  # type: ignore[no-any-return]
            _of_instance,
            events.read_events,
            instance_id,
            after,
            limit,
            pattern=pattern,
            before=before,
            backwards=backwards,
        )

    async def last_event_id(self) -> int:
        """Return the newest event's id."""
        return await self._read(events.last_event_id)  # type: ignore[no-any-return]

    async def logs(
        self,
        after: int,
        limit: int,
        *,
        level: str | None = None,
        instance_id: str | None = None,
        before: int | None = None,
        backwards: bool = False,
    ) -> list[LogRecord]:
        """Return log records as `events` does."""
        return await self._read(  # type: ignore[no-any-return]
            _of_instance, events.read_logs, instance_id, after, limit, level=level, before=before, backwards=backwards
        )

    async def count_by_status(self) -> dict[str, dict[str, int]]:
        """Return how many instances of each workflow have each status."""
        counts: dict[str, dict[str, int]] = {}
        for name, status, count in await self._read(lambda tx: tx.execute(_COUNTS).fetchall()):
            counts.setdefault(name, {})[status] = count
        return counts


class SqliteStore(SqlStore):
    """One database file, opened by one process.

    Args:
        path: the database's real path.
        pragmas: how it is opened.
        reader: have a second connection for reads, so that they never wait for the write lock (the server's way).
        patient: wait while the disk is full instead of raising (a child's way).
    """

    def __init__(self, path: str, pragmas: SqlitePragmas, *, reader: bool = True, patient: bool = False) -> None:
        """Open the database; see `open_store` for the server's checks.

        Raises:
            DatabaseDamaged: it is not a database.
            DatabaseUnavailable: it cannot be opened.
        """
        turn = LockFile.of(path) if path != ":memory:" else None
        reading = writing = Worker(open_connection(path, pragmas), path, turn=turn, patient=patient)
        if reader and path != ":memory:":
            reading = Worker(open_connection(path, pragmas, read_only=True), path, turn=None)
        super().__init__(path, writing, reading)
        self._sqlite = writing
        self._pragmas = pragmas

    @classmethod
    def open(cls, path: str, pragmas: SqlitePragmas) -> SqliteStore:
        """Make or open a database, bring its schema to this version, and check what it is. For the server.

        Raises:
            DatabaseTooNew: a later Paddock wrote it.
            DatabaseDamaged: it is not a database, or its structure is broken; the file is left as it is.
            DatabaseUnavailable: it cannot be made or opened.
        """
        _make_private(path)
        connection = open_connection(path, pragmas)
        try:
            _check(connection, path, read_version(connection, path))
            migrate(connection, path)
        except sqlite3.Error as error:
            raise explain(error, path) from None
        finally:
            connection.close()
        return cls(path, pragmas)

    def load_now(self, lease: Lease, holder: tuple[int, int, str]) -> Journal:
        """Do it without waiting for the disk.

        Who holds a lease need outlive no power cut, for nobody does. The first commit takes it along to the disk.
        """
        with self._sqlite.unsynced():
            return super().load_now(lease, holder)

    def _make_viewer(self) -> ConnectionThread:
        return Worker(open_connection(self.path, self._pragmas, read_only=True), self.path, turn=None)


class MemoryStore(SqliteStore):
    """The same store on a database in memory, for inline work and tests: nothing outlives the process."""

    def __init__(self) -> None:
        """Make an empty database."""
        super().__init__(":memory:", SqlitePragmas())
        self._writer.call_now(_migrate_memory)


def _migrate_memory(tx: sqlite3.Connection) -> None:
    tx.execute("COMMIT")
    migrate(tx, ":memory:")
    tx.execute("BEGIN IMMEDIATE")


def _make_private(path: str) -> None:
    """Create the file 0600 where it is missing: SQLite would leave it to the umask, and -wal and -shm follow its mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        raise DatabaseUnavailable(
            f"{path} cannot be created: {error.strerror}. Name a file in a folder that exists and is writable."
        ) from None


def _check(connection: sqlite3.Connection, path: str, version: int) -> None:
    names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    missing = tables(version) - names
    if missing:
        raise DatabaseDamaged(f"{path} lacks {', '.join(sorted(missing))}: it was damaged. Restore a backup.")


def _in_snapshot(function: Callable[..., Any], values: Sequence[Any], named: dict[str, Any], tx: Transaction) -> Any:
    """Read several tables as of one moment."""
    if tx.in_transaction:
        return function(tx, *values, **named)
    tx.execute("BEGIN")
    try:
        return function(tx, *values, **named)
    finally:
        tx.execute("ROLLBACK")


def _record(tx: Transaction, lease: Lease, name: str, data: dict[str, Any], now: float) -> None:
    row = tx.execute(_LEASE_OF, (lease.instance,)).fetchone()
    if row is not None and row[0] == lease.epoch:
        events.append(tx, lease.instance, name, now, data)


def _end(
    tx: Transaction, instance_id: str, status: Status, now: float, error: ErrorInfo | None
) -> tuple[bool, list[Lease]]:
    seq, current = instances.find(tx, instance_id)
    if current in TERMINAL:
        return False, []
    row = tx.execute(_LEASE_OF, (seq,)).fetchone()
    leases = [Lease(seq, row[0])] if row else []
    instances.move(tx, seq, current, status, now, error=error)
    # in one transaction: a server that died in between would leave them to work on for nobody
    for child in steering.children_of(tx, instance_id):
        leases += _end(tx, child, Status.CANCELLED, now, None)[1]
    return True, leases


def _overdue(tx: Transaction, now: float) -> tuple[list[str], float | None]:
    ids = [row[0] for row in tx.execute(_OVERDUE, (now,))]
    return ids, tx.execute(_NEXT_DEADLINE).fetchone()[0]


def _unblock(tx: Transaction, now: float, instance_id: str | None, workflow_name: str | None) -> int:
    if instance_id is not None:
        seq, status = instances.find(tx, instance_id)
        numbers = [seq] if status is Status.BLOCKED else []
    else:
        numbers = [row[0] for row in tx.execute(_BLOCKED, (workflow_name,))]
    for seq in numbers:
        instances.move(tx, seq, Status.BLOCKED, Status.PENDING, now)
    return len(numbers)


def _block_unknown(tx: Transaction, names: frozenset[str], now: float) -> int:
    count = 0
    for (name,) in tx.execute(_WAITING_NAMES).fetchall():
        if name in names:
            continue
        error = ErrorInfo(
            type="WorkflowNotFound",
            message=f"no workflow {name!r} is registered; register it and start the server again",
        )
        for (seq,) in tx.execute(_PENDING_OF, (name,)).fetchall():
            instances.move(tx, seq, Status.PENDING, Status.BLOCKED, now, error=error)
            count += 1
    return count


def _merge_metadata(tx: Transaction, instance_id: str, values: Sequence[tuple[str, str]]) -> None:
    seq, _ = instances.find(tx, instance_id)
    instances.merge_metadata(tx, seq, values)


def _remove(tx: Transaction, instance_id: str) -> Lease | None:
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


def _remove_older(tx: Transaction, before: float, limit: int) -> int:
    numbers = [row[0] for row in tx.execute(_OLD, (before, limit))]
    for seq in numbers:
        instances.remove(tx, seq)
    return len(numbers)


def _of_instance(
    tx: Transaction, read: Callable[..., list[Any]], instance_id: str | None, *values: Any, **named: Any
) -> list[Any]:
    instance = instances.find(tx, instance_id)[0] if instance_id is not None else None
    return read(tx, *values, instance=instance, **named)
