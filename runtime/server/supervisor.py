"""The supervisor: starts a child for each claim, sees it die, and ends it where it has to end.

What becomes of a dead child's instance is the settler's business (`settler.py`), what children say the hub's (`hub.py`), what the last
server left the take-over's (`takeover.py`). All of them work on one roster.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from typing import Any

from ...ipc.errors import IpcError
from ...ipc.messages import (
    Cancel,
    Drain,
    Nudge,
)
from ...watchdog.beats import NoFreeSlot
from ...watchdog.identity import ProcessIdentity, boot_id, is_alive
from ...watchdog.tree import end_tree
from ..base.errors import PluginSetupError
from ..base.log import get_logger
from ..base.probes import reach
from ..base.records import ErrorInfo
from ..store.admission import Claim
from ..store.ops import Lease
from .births import Births
from .children import Child
from .exits import ended
from .nursery import ForkOrder, LauncherGone
from .roster import Parts, Roster
from .rounds import Rounds
from .settler import Settler
from .takeover import TakeOver

__all__ = ["Supervisor"]

_RETRY, _RETRY_BIRTH, _INSIST, _LOOK, _LOOK_AT_BOOT = 0.5, 0.1, 0.5, 0.01, 0.25
_STOP_TIMEOUT, _ASK, _LAST_WORDS = 30.0, 0.5, 3.0
_log = get_logger("paddock.supervisor")


class Supervisor:
    """Own every child of this server."""

    def __init__(self, parts: Parts) -> None:
        """Hold the parts."""
        self._parts = parts
        self.roster = Roster()
        self.rounds = Rounds(parts.table, self.roster, parts.bus.heard)
        self._settler = Settler(parts, self.roster)
        self._births = Births(parts.table)
        self._tasks: set[asyncio.Task[None]] = set()
        self._hurried = asyncio.Event()

    @property
    def children(self) -> list[Child]:
        """Return the children there are."""
        return self.roster.children

    def launch(self, claim: Claim) -> None:
        """Start a child for a claim, in the background."""
        table = self._parts.table
        try:
            slot = table.claim()
        except NoFreeSlot:
            self._spawn(self._give_back(claim), f"paddock-child-{claim.id}")
            return
        # named from the start: a fork server of an earlier time must not take it for its own
        table.assign(slot, pid=0, start_time=0, epoch=claim.lease.epoch, instance_id=claim.id)
        child = self.roster.add(Child(claim.lease, claim.id, claim.workflow_name, slot))
        self._spawn(self._live(claim, child), f"paddock-child-{claim.id}")

    def _spawn(self, work: Any, name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- one child's life ---

    async def _live(self, claim: Claim, child: Child) -> None:
        try:
            await self._births.wait(child)
            child.identity = await self._bear(claim, child)
            reach("server.born")
        except LauncherGone:
            await asyncio.sleep(0 if self.roster.draining else _RETRY_BIRTH)
        except Exception as error:  # noqa: BLE001  whatever it is: a lease that stays behind is a slot lost
            _log.error(
                "a child could not be started; its instance stays queued", instance_id=claim.id, error=repr(error)
            )
            await asyncio.sleep(0 if self.roster.draining else _RETRY)
        await self._watch(child)

    async def _give_back(self, claim: Claim) -> None:
        await asyncio.sleep(_RETRY)
        await self._settler.settle_unborn(claim.lease, None)

    async def _bear(self, claim: Claim, child: Child) -> ProcessIdentity:
        """Have the process made.

        Raises:
            LauncherGone: nobody knows whether it exists; the settlement asks the lease.
            MachineError: it does not exist.
        """
        parts = self._parts
        spec = parts.spec_of(claim, child.slot)
        child.tasks_group = spec.tasks_group
        parts.table.limit(
            child.slot, memory=spec.limits.memory_limit or 0, cpu_us=math.ceil(spec.limits.cpu_limit or 0) * 1_000_000
        )
        order = ForkOrder(
            child.slot, claim.id, claim.lease.epoch, spec.model_dump_json(), spec.limits.python, spec.limits.env
        )
        born = await parts.nursery.fork(order)
        return ProcessIdentity(born.pid, born.start_time, boot_id())

    async def _watch(self, child: Child) -> None:
        """Wait for the end of a child and settle it, whatever comes between: nobody else would, and its slot and lease would stay taken."""
        told = False
        while True:
            try:
                if child.identity is not None:
                    await self._until_ended(child, child.identity)
                if await self._settler.settle(child):
                    return
            except Exception as error:  # noqa: BLE001  no descriptor left, say: there will be one
                if not told:
                    _log.error("a child cannot be watched just now", instance_id=child.instance_id, error=repr(error))
                told = True
                await asyncio.sleep(_RETRY)

    async def _until_ended(self, child: Child, identity: ProcessIdentity) -> None:
        boot = asyncio.create_task(self._watch_boot(child), name="paddock-boot")
        child.at_rest = True
        try:
            await ended(identity)
        finally:
            child.at_rest = False
            boot.cancel()

    async def _watch_boot(self, child: Child) -> None:
        """End a child whose plugin blocks its loop in `setup` for so long that it cannot time out by itself."""
        limit = self._parts.config.ready_timeout
        plugin, since = "", 0.0
        while not plugin or time.monotonic() - since < limit * 1.5 + 1.0:
            await asyncio.sleep(min(limit, _LOOK_AT_BOOT))
            view = self._parts.table.read(child.slot)
            if child.ready or view.progress:
                return
            now = view.step.removeprefix("plugin:") if view.step.startswith("plugin:") else ""
            if now != plugin:
                plugin, since = now, time.monotonic()
        error = PluginSetupError(
            plugin, f"its setup took longer than ready_timeout ({limit:g}s) and blocked the process"
        )
        child.stop_error = ErrorInfo(type="PluginSetupError", message=str(error))
        await self._end_process(child)

    # --- what children are told ---

    def nudge(self, lease: Lease) -> None:
        """Tell a child that something has come for its instance."""
        child = self.roster.of(lease)
        if child is not None and child.connection is not None:
            with contextlib.suppress(IpcError):
                child.connection.send(Nudge())

    def drain(self, lease: Lease) -> None:
        """Ask a child to stop at its instance's next boundary; one that is just connecting is asked when it has."""
        child = self.roster.of(lease)
        if child is None:
            return
        child.draining = True
        if child.connection is not None:
            with contextlib.suppress(IpcError):
                child.connection.send(Drain(grace=self._parts.config.kill_grace))

    # --- ending ---

    async def end(self, lease: Lease, reason: str) -> None:
        """End an instance's process with everything that it started: ask, then SIGTERM, then SIGKILL. Returns when it is gone.

        The instance's row was changed before, so whatever the process still tries to write is refused.
        """
        child = self.roster.of(lease)
        if child is None:
            return
        if child.ending is None:
            child.ending, child.ending_since = reason, time.monotonic()
            # a task of its own: the caller may be cancelled, the end may not
            self._spawn(self._end(child, reason), f"paddock-end-{child.instance_id}")
        await child.settled.wait()

    async def _end(self, child: Child, reason: str) -> None:
        grace = self._parts.config.kill_grace
        if child.connection is not None:
            with contextlib.suppress(IpcError):
                child.connection.send(Cancel(reason=reason, grace=grace))
        while not child.settled.is_set():
            try:
                async with asyncio.timeout(grace):
                    await child.settled.wait()
            except TimeoutError:
                await self._end_process(child)
                grace = _INSIST  # one that was being born had no process yet

    async def _end_process(self, child: Child) -> None:
        if child.identity is not None:
            grace = 0.0 if self._hurried.is_set() else _ASK
            await asyncio.to_thread(end_tree, child.identity, marker=self._parts.marker(child), grace=grace)

    async def stop(self) -> None:
        """Let running instances reach a step's boundary, then end their processes; all stay resumable."""
        self.roster.draining = True
        nursery = self._parts.nursery
        nursery.refuse()
        grace = self._parts.config.kill_grace
        for child in self.children:
            if child.connection is not None:
                with contextlib.suppress(IpcError):
                    child.connection.send(Drain(grace=grace))
        reach("server.drain")
        await self._drained(grace)
        nursery.give_up("the server stops")
        loop = asyncio.get_running_loop()
        until, all_dead = loop.time() + _STOP_TIMEOUT, False
        while self._tasks and loop.time() < until:
            if not all_dead and not any(child.identity and is_alive(child.identity) for child in self.children):
                all_dead = True  # a database that takes no settlement is the next server's business
                until = loop.time() + _LAST_WORDS
            await asyncio.gather(*(self._end_process(child) for child in self.children))
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=_INSIST)
        await self._forget()

    async def _drained(self, grace: float) -> None:
        """Wait until all children are settled, for the grace at most, or until `hurry`."""
        hurried = asyncio.create_task(self._hurried.wait(), name="paddock-hurry")
        until = asyncio.get_running_loop().time() + grace
        while self._tasks and not hurried.done() and (left := until - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait({*self._tasks, hurried}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()

    def hurry(self) -> None:
        """End what `stop` waits for at once."""
        self._hurried.set()

    async def let_go(self) -> None:
        """Leave the children to the next server. Births and ends that are under way come first, for `kill_grace` at most."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._parts.config.kill_grace
        while loop.time() < until and not self._hurried.is_set():
            if all(child.at_rest and child.ending is None for child in self.children):
                break
            await asyncio.wait(self._tasks, timeout=_LOOK)  # a birth is over before its task is
        await self._forget()

    async def _forget(self) -> None:
        """Watch nobody any more; whatever is not settled is the next server's."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # --- after a restart ---

    async def take_over(self) -> None:
        """Settle what the last server left: adopt children that live, release the leases of those that are dead."""
        await TakeOver(self._parts, self.roster, self._settler, self._adopt).run()

    def _adopt(self, child: Child) -> None:
        self._spawn(self._watch(child), f"paddock-adopted-{child.instance_id}")
