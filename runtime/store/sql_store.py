"""The store of every database that keeps its rows in SQL: the functions of this package, run as whole transactions in a thread."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..base.records import ErrorInfo, Event, Instance, LogRecord, Status
from . import admission, events, instances, journal, outside, schedules, signals, steering
from .admission import Claim, Death, Held, Settlement, Wanted
from .instances import NewInstance
from .journal import Journal
from .ops import Lease, Op
from .schedules import ScheduleRow
from .signals import Awaited, ChildOutcome, Kept
from .thread import ConnectionThread
from .transaction import Transaction
from .window import Interest, Look, Window

__all__ = ["SqlStore"]

_NEWEST = "SELECT coalesce(max(seq), 0) FROM paddock_instances"
_COUNTS = "SELECT workflow_name, status, count(*) FROM paddock_instances GROUP BY workflow_name, status"


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
        self._follower = reader
        self._viewer: ConnectionThread | None = None
        #: Called first in each transaction that writes (not in those of `commit_now`): what it raises is all that comes of it.
        self.guard: Callable[[Transaction], None] | None = None

    @property
    def writes(self) -> bool:
        """Tell whether a transaction of this store's own holds the lock that all writers share. From any thread."""
        return self._writer.writes

    def _make_viewer(self) -> ConnectionThread | None:
        """Return one more reader, for long looks; None where reads have no connection of their own."""
        return None

    def close(self) -> None:
        """Finish what is under way and close the connections."""
        for worker in dict.fromkeys((self._writer, self._reader, self._follower, self._viewer or self._reader)):
            worker.close()

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

    def note_statements(self, noted: dict[str, None]) -> None:
        """Note every statement that is executed to write from now on, for another store's `prepare`."""
        self._writer.note_statements(noted)

    def prepare(self, statements: Iterable[str]) -> None:
        """Compile statements for writing before their first use, where that can be done without executing them."""
        self._writer.prepare(statements)

    def observe_commits(self, observe: Callable[[float], None]) -> None:
        """Call `observe(seconds)` after each commit of this store, in its thread."""
        self._writer.committed = observe

    def health(self) -> dict[str, Any]:
        """Return what is wrong with the store now; `{}` when nothing is."""
        workers = (self._writer, self._reader, self._follower)
        told = [worker.damage for worker in workers] + [worker.trouble for worker in workers]
        trouble = next(filter(None, told), None)
        return {"database": trouble} if trouble else {}

    async def _write(self, function: Callable[..., Any], *values: Any, early: bool = False) -> Any:
        if (guard := self.guard) is None:
            return await self._writer.call(lambda tx: function(tx, *values), early=early)

        def guarded(tx: Transaction) -> Any:
            guard(tx)
            return function(tx, *values)

        return await self._writer.call(guarded, early=early)

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
        """Give free slots to pending instances; a child that was claimed for tells nobody of it before a commit of its own."""
        return await self._write(admission.claim, wanted, now, early=True)  # type: ignore[no-any-return]

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
        await self._write(outside.record, lease, name, data, now)

    async def release_due(self, now: float) -> tuple[int, float | None]:
        """Queue what is due; return how many and when the next is due."""
        return await self._write(admission.release_due, now)  # type: ignore[no-any-return]

    async def end(
        self, instance_id: str, status: Status, now: float, error: ErrorInfo | None = None
    ) -> tuple[bool, list[Lease]]:
        """End an instance from outside, and with it, as cancelled, what it has started.

        Return whether this call did, and the leases of all executors that have to end for it.
        """
        return await self._write(outside.end, instance_id, status, now, error)  # type: ignore[no-any-return]

    async def overdue(self, now: float) -> tuple[list[str], float | None]:
        """Return the ids whose workflow deadline has passed, and when the next passes."""
        return await self._read(outside.overdue, now)  # type: ignore[no-any-return]

    async def unblock(self, now: float, instance_id: str | None = None, *, workflow_name: str | None = None) -> int:
        """Put blocked instances back into the queue, one, those of a workflow, or all; return how many."""
        return await self._write(outside.unblock, now, instance_id, workflow_name)  # type: ignore[no-any-return]

    async def block_unknown(self, names: frozenset[str], now: float) -> int:
        """Park queued instances whose workflow is not among `names`; return how many."""
        return await self._write(outside.block_unknown, names, now)  # type: ignore[no-any-return]

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
        await self._write(outside.merge_metadata, instance_id, values)

    async def remove(self, instance_id: str) -> Lease | None:
        """Delete an ended instance with all that is its own; raises InstanceNotFound, InvalidTransition.

        While its last process lives nothing is deleted, and its lease is returned.
        """
        return await self._write(outside.remove, instance_id)  # type: ignore[no-any-return]

    async def remove_older(self, before: float, limit: int) -> int:
        """Delete up to `limit` instances that ended before a time; return how many."""
        return await self._write(outside.remove_older, before, limit)  # type: ignore[no-any-return]

    async def events(
        self, window: Window, *, pattern: str | None = None, instance_id: str | None = None
    ) -> list[Event]:
        """Return the events of a window; `pattern` is a glob over the name. Raises InstanceNotFound."""
        return await self._read(  # type: ignore[no-any-return]
            outside.of_instance, events.read_events, instance_id, window, pattern=pattern
        )

    def on_disk(self, event_id: int) -> None:
        """Hear that a child has everything up to an event on the disk. Here all that can be read is."""

    @property
    def _told_up_to(self) -> int | None:
        """Return up to which event those that are committed may be told without waiting for the disk; None for all."""
        return None

    async def read_on(self, after: int, limit: int, *, wanted: Interest | None = None, sure: bool = False) -> Look:
        """Return the wanted events after a cursor that are on the disk, as soon as may be; with `sure`, all, once they are there."""
        values = (after, limit, None if sure else self._told_up_to, wanted)
        read = functools.partial(_in_snapshot, events.read_on, values, {})
        # in this thread, or, to be sure, in the reader's, which waits for the disk
        return await (self._reader.call(read) if sure else self._follower.call_here(read))  # type: ignore[no-any-return]

    async def last_event_id(self) -> int:
        """Return the newest event's id."""
        return await self._read(events.last_event_id)  # type: ignore[no-any-return]

    async def logs(
        self, window: Window, *, level: str | None = None, instance_id: str | None = None
    ) -> list[LogRecord]:
        """Return log records as `events` does."""
        return await self._read(  # type: ignore[no-any-return]
            outside.of_instance, events.read_logs, instance_id, window, level=level
        )

    async def count_by_status(self) -> dict[str, dict[str, int]]:
        """Return how many instances of each workflow have each status."""
        counts: dict[str, dict[str, int]] = {}
        for name, status, count in await self._read(lambda tx: tx.execute(_COUNTS).fetchall()):
            counts.setdefault(name, {})[status] = count
        return counts


def _in_snapshot(function: Callable[..., Any], values: Sequence[Any], named: dict[str, Any], tx: Transaction) -> Any:
    """Read several tables as of one moment."""
    if tx.in_transaction:
        return function(tx, *values, **named)
    tx.execute("BEGIN")
    try:
        return function(tx, *values, **named)
    finally:
        tx.execute("ROLLBACK")
