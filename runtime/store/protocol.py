"""What the runtime asks of a store. `tests/conformance` runs one suite against every one there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ..base.records import ErrorInfo, Event, Instance, LogRecord, Status
from .admission import Claim, Death, Held, Settlement, Wanted
from .instances import NewInstance
from .journal import Journal
from .ops import Lease, Op
from .signals import Awaited, ChildOutcome, Kept
from .window import Interest, Look, Window

__all__ = ["JournalStore", "Store", "WouldWait"]


class WouldWait(Exception):
    """A commit in the calling thread would have to wait for a lock; nothing was done."""


class JournalStore(Protocol):
    """What an executor asks: its journal, and commits under its lease."""

    async def load(self, lease: Lease) -> Journal:
        """Return the journal of a leased instance; raises LeaseLost."""
        ...

    async def commit(self, lease: Lease, ops: Sequence[Op], now: float) -> int:
        """Apply operations in one transaction and return the newest event's id; raises LeaseLost, PauseWanted."""
        ...

    def commit_now(self, lease: Lease, ops: Sequence[Op], now: float) -> int:
        """Do what `commit` does in the calling thread, which waits meanwhile; raises LeaseLost, PauseWanted.

        It may raise `WouldWait` where somebody holds the write lock for long: it may be code of the calling thread.
        """
        ...

    async def next_signal(self, lease: Lease, name: str) -> Kept | None:
        """Return the oldest signal of a name that the instance has not taken."""
        ...

    async def outcome_of(self, instance_id: str) -> ChildOutcome | None:
        """Return how another instance stands."""
        ...

    async def started_as(self, instance_id: str) -> tuple[str, str] | None:
        """Return another instance's workflow and input (JSON text), None for an unknown one."""
        ...

    async def streamed(self, lease: Lease) -> dict[str, int]:
        """Return how many chunks each step (by key) has streamed."""
        ...


class Store(JournalStore, Protocol):
    """What the server asks. Every call is one transaction; `now` is wall-clock seconds since the epoch."""

    async def create(self, new: NewInstance, now: float) -> bool:
        """Insert an instance; False where the same one is there; raises InstanceIdConflict."""
        ...

    async def claim(self, wanted: Wanted, now: float) -> list[Claim]:
        """Give free slots to pending instances."""
        ...

    async def held(self) -> list[Held]:
        """Return every lease."""
        ...

    async def settle(self, lease: Lease, death: Death, max_resumes: int, now: float) -> Settlement | None:
        """Release a dead executor's lease and decide what becomes of its instance."""
        ...

    async def release_due(self, now: float) -> tuple[int, float | None]:
        """Queue what is due; return how many and when the next is due."""
        ...

    async def end(
        self, instance_id: str, status: Status, now: float, error: ErrorInfo | None = None
    ) -> tuple[bool, list[Lease]]:
        """End an instance from outside, and with it, as cancelled, what it has started.

        Return whether this call did, and the leases of all executors that have to end for it.
        """
        ...

    async def overdue(self, now: float) -> tuple[list[str], float | None]:
        """Return the ids whose workflow deadline has passed, and when the next passes."""
        ...

    async def unblock(self, now: float, instance_id: str | None = None, *, workflow_name: str | None = None) -> int:
        """Put blocked instances back into the queue, one or all; return how many."""
        ...

    async def block_unknown(self, names: frozenset[str], now: float) -> int:
        """Park queued instances whose workflow is not among `names`; return how many."""
        ...

    async def get(self, instance_id: str) -> Instance | None:
        """Return one instance."""
        ...

    async def find(self, *, name: str | None, status: Status | None, limit: int, after: str | None) -> list[Instance]:
        """Return instances in the order of their ids."""
        ...

    async def awaited(self, instance_id: str, name: str) -> list[Awaited]:
        """Return the open waits for a signal; raises InstanceNotFound, InvalidSignal."""
        ...

    async def put_signal(self, instance_id: str, name: str, payload: str, now: float) -> Lease | None:
        """Keep a signal and wake who waits for it; return the lease of a running executor."""
        ...

    async def merge_metadata(self, instance_id: str, values: Sequence[tuple[str, str]]) -> None:
        """Set metadata keys; raises InstanceNotFound."""
        ...

    async def remove(self, instance_id: str) -> Lease | None:
        """Delete an ended instance with all that is its own; raises InstanceNotFound, InvalidTransition.

        While its last process lives nothing is deleted, and its lease is returned.
        """
        ...

    async def remove_older(self, before: float, limit: int) -> int:
        """Delete up to `limit` instances that ended before a time; return how many."""
        ...

    async def events(
        self, window: Window, *, pattern: str | None = None, instance_id: str | None = None
    ) -> list[Event]:
        """Return the events of a window; `pattern` is a glob over the name. Raises InstanceNotFound."""
        ...

    def on_disk(self, event_id: int) -> None:
        """Hear that a child has everything up to an event on the disk."""
        ...

    async def read_on(self, after: int, limit: int, *, wanted: Interest | None = None, sure: bool = False) -> Look:
        """Return the wanted events after a cursor that are on the disk, as soon as may be; with `sure`, of all that are committed, once they are.

        It goes past up to `limit` events; fewer where those that are wanted are large, for the caller's loop may be what reads them.
        """
        ...

    async def last_event_id(self) -> int:
        """Return the newest event's id."""
        ...

    async def logs(
        self, window: Window, *, level: str | None = None, instance_id: str | None = None
    ) -> list[LogRecord]:
        """Return log records as `events` does."""
        ...

    async def count_by_status(self) -> dict[str, dict[str, int]]:
        """Return how many instances of each workflow have each status."""
        ...

    def health(self) -> dict[str, Any]:
        """Return what is wrong with the store now; `{}` when nothing is."""
        ...
