"""The take-over: what the last server left is adopted where it lives, and settled where it is dead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ...watchdog.identity import ProcessIdentity, boot_id, is_alive
from ...watchdog.tree import end_tree
from ..base.probes import reach
from ..base.records import ErrorInfo, Status
from ..store.admission import Held
from .children import Child
from .roster import Parts, Roster
from .settler import Settler

__all__ = ["TakeOver"]


class TakeOver:
    """Take over what the last server left; `watch` is called with each child that lives."""

    def __init__(self, parts: Parts, roster: Roster, settler: Settler, watch: Callable[[Child], None]) -> None:
        """Hold the parts."""
        self._parts = parts
        self._roster = roster
        self._settler = settler
        self._watch = watch

    async def run(self) -> None:
        """Settle what the last server left: adopt children that live, release the leases of those that are dead.

        A living child is adopted by its identity alone, however long it takes to come back: it may be busy. If it is stale, the
        watchdog will find that.
        """
        found = await self._parts.store.held()
        reach("server.takeover")
        await asyncio.gather(*(self._take(held) for held in found))
        for slot in self._parts.table.used():
            if all(child.slot != slot for child in self._roster.children):
                await self._end_stray(slot)
        self._roster.complete.set()

    async def _take(self, held: Held) -> None:
        reach("server.resume")
        if not held.isolated:
            error = ErrorInfo(type="ProcessDied", message="the server died while it ran this instance")
            await self._settler.settle_unborn(held.lease, error)
            return
        slot = self._slot_of(held)
        identity = self._identity_of(held, slot)
        if slot is None:
            slot = self._parts.table.claim()
        child = self._roster.add(Child(held.lease, held.id, held.workflow_name, slot, identity, adopted=True))
        if identity is not None and is_alive(identity):
            if held.status is Status.RUNNING:
                self._watch(child)
                return
            await self._settler.sweep_up(child, identity)
        if not await self._settler.settle(child):
            self._watch(child)

    def _slot_of(self, held: Held) -> int | None:
        for slot in self._parts.table.used():
            view = self._parts.table.read(slot)
            if (view.instance_id, view.epoch) == (held.id, held.lease.epoch):
                return slot
        return None

    def _identity_of(self, held: Held, slot: int | None) -> ProcessIdentity | None:
        """Return who holds a lease: as its row has it, else as its slot has it (a child that has not committed yet)."""
        if held.pid is not None and held.pid_start is not None and held.boot_id is not None:
            return ProcessIdentity(held.pid, held.pid_start, held.boot_id)
        if slot is None:
            return None
        view = self._parts.table.read(slot)
        return ProcessIdentity(view.pid, view.start_time, boot_id()) if view.pid else None

    async def _end_stray(self, slot: int) -> None:
        """Free a slot that belongs to no lease, and end its process: its instance has another executor or none."""
        view = self._parts.table.read(slot)
        if view.pid:
            identity = ProcessIdentity(view.pid, view.start_time, self._parts.table.boot_id)
            if is_alive(identity):
                await asyncio.to_thread(end_tree, identity)
        self._parts.table.release(slot)
