"""The settler: gathers what is known of a child's death, and settles what becomes of its instance.

A lease is released only when its process was seen dead and its tree is gone; only then can a successor be claimed. What is decided
about an instance is decided by the store from the row as it is then, never from what was read earlier.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ...watchdog.beats import SlotView
from ...watchdog.identity import ProcessIdentity
from ...watchdog.tree import end_tree
from ..base.errors import MachineError
from ..base.log import get_logger
from ..base.probes import reach
from ..base.records import ErrorInfo, Status
from ..base.tasks_group import group_of, groups_folder
from ..base.tasks_group import remove as remove_group
from ..store.admission import Death, Settlement
from ..store.ops import Lease
from .children import Child, describe_death, has_left_nothing, remove_files
from .roster import Parts, Roster

__all__ = ["Settler"]

_EXIT_REPORT, _KILL_REPORT = 1.0, 3.0
_RECORD, _LOOK, _PAUSE_FIRST = 0.3, 0.01, 0.1
_log = get_logger("paddock.supervisor")


class Settler:
    """Settle the deaths of a server's children."""

    def __init__(self, parts: Parts, roster: Roster) -> None:
        """Hold the parts."""
        self._parts = parts
        self._roster = roster

    async def settle(self, child: Child) -> bool:
        """Release a dead child's lease, once its tree is gone, and free its slot.

        False where a child of which nobody knew has taken the lease meanwhile: it is known now, and lives.
        """
        reach("server.settle.before")
        parts = self._parts
        if child.identity is not None:
            await self._gather_reports(child)
            if not child.exited.done() or child.adopted:
                await self.sweep_up(child, child.identity)
        view = parts.table.read(child.slot)
        death = await self._describe(child, view)
        settlement = await self._insist(
            lambda: parts.store.settle(child.lease, death, parts.config.max_resumes, parts.clock.now())
        )
        if settlement is not None and settlement.holder is not None:
            child.identity = ProcessIdentity(*settlement.holder)
            return False
        newest = parts.table.on_disk(child.slot)
        self._roster.remove(child)
        parts.table.release(child.slot)
        remove_files(parts.run_dir, child.lease, view.pid)
        group = child.tasks_group or (self._group_of_adopted(child) if child.adopted else None)
        if group is not None:
            remove_group(group)
        self._report(child, settlement, death)
        child.settled.set()
        if settlement is None or settlement.told or not _left_in_order(child):
            parts.bus.poke()
        elif newest > parts.bus.cursor:
            parts.bus.heard(newest)
        if settlement is None or not settlement.over:
            parts.freed()
        reach("server.settle.after")
        return True

    def _group_of_adopted(self, child: Child) -> str | None:
        folder = groups_folder()
        return group_of(folder, self._parts.table.path, child.lease.instance, child.lease.epoch) if folder else None

    async def sweep_up(self, child: Child, identity: ProcessIdentity) -> None:
        """End what a child has left behind, where its fork server did not."""
        try:
            await asyncio.to_thread(end_tree, identity, marker=self._parts.marker(child))
        except OSError as error:
            _log.error("what a dead child started cannot be ended", instance_id=child.instance_id, error=str(error))

    async def _describe(self, child: Child, view: SlotView) -> Death:
        parts = self._parts
        unborn = child.identity is None
        planned = self._roster.draining or unborn
        try:
            if has_left_nothing(parts.run_dir, child.lease, view.pid):
                death = describe_death(child, view, parts.run_dir, None, planned=planned, silent=True)
            else:
                held = next((held for held in await self._insist(parts.store.held) if held.lease == child.lease), None)
                death = await asyncio.to_thread(describe_death, child, view, parts.run_dir, held, planned=planned)
        except Exception as error:  # noqa: BLE001  the lease has to be released, whatever is wrong with the description
            _log.error("a death cannot be described", instance_id=child.instance_id, error=repr(error))
            death = Death(planned=planned, error=ErrorInfo(type="ProcessDied", message="it died"))
        return replace(death, unborn=unborn)

    async def _gather_reports(self, child: Child) -> None:
        """Wait a moment for what others know of a death: the fork server its cause, the watchdog the stacks that it took."""
        if child.adopted:
            await self._await_record(child)
        elif self._parts.nursery.alive:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_EXIT_REPORT):
                    await asyncio.shield(child.exited)
        if self._parts.table.read(child.slot).verdict:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_KILL_REPORT):
                    await asyncio.shield(child.killed)

    async def _await_record(self, child: Child) -> None:
        """Wait a moment for the last server's fork server to note how a child ended, if it lives."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _RECORD
        while loop.time() < until and not self._parts.table.read(child.slot).exit_recorded:  # noqa: ASYNC110  shared memory
            await asyncio.sleep(_LOOK)

    def _report(self, child: Child, settlement: Settlement | None, death: Death) -> None:
        if (
            settlement is None
            or not settlement.crashes
            or settlement.status is not Status.PENDING
            or death.error is None
        ):
            return
        _log.warning(
            "a child died and its instance goes on in another",
            instance_id=child.instance_id,
            workflow=child.workflow_name,
            cause=death.error.message,
            step=death.error.step,
            crashes=settlement.crashes,
        )

    async def settle_unborn(self, lease: Lease, error: ErrorInfo | None) -> None:
        """Release a lease for which there is no process: given back, or lost with `error`."""
        await self._insist(
            lambda: self._parts.store.settle(
                lease,
                Death(planned=error is None, error=error),
                self._parts.config.max_resumes,
                self._parts.clock.now(),
            )
        )
        self._parts.freed()

    async def _insist(self, call: Callable[[], Any]) -> Any:
        """Repeat a transaction that must happen until the database takes it: a lease that is not settled holds a slot."""
        pause = _PAUSE_FIRST
        while True:
            try:
                return await call()
            except MachineError as error:
                if pause == _PAUSE_FIRST:  # said once: health goes on saying it
                    _log.error("the database does not take a settlement; it is tried until it does", error=str(error))
                await asyncio.sleep(pause)
                pause = min(pause * 2, 2.0)


def _left_in_order(child: Child) -> bool:
    """Tell whether a child has noted all that it has committed: it was not ended between the two."""
    report = child.exit_report
    return report is not None and report.exit_code == 0
