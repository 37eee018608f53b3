"""The supervisor: starts a child for each claim, sees it die, and settles what becomes of its instance.

Order matters everywhere here. A lease is released only when its process was seen dead and its tree is gone; only then can a successor be
claimed. A child is found again by what it says (instance, epoch, pid, token), never by a pid alone. What is decided about an instance is
decided by the store from the row as it is then, never from what was read earlier.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from ...ipc.connection import Connection
from ...ipc.errors import IpcError
from ...ipc.messages import Cancel, Committed, Drain, Exited, Finished, Hello, Killed, Message, Nudge, Ready, Stale, StaleAck
from ...watchdog.beats import BeatTable, NoFreeSlot
from ...watchdog.identity import ProcessIdentity, boot_id, is_alive
from ...watchdog.tree import end_tree
from ..base.clock import Clock
from ..base.config import WorkflowsConfig
from ..base.errors import DatabaseUnavailable, MachineError, PluginSetupError
from ..base.probes import reach
from ..base.records import ErrorInfo, Status
from ..child.spec import ChildSpec, output_paths
from ..store.admission import Claim, Death, Held, Settlement
from ..store.ops import Lease
from ..store.sqlite import SqliteStore
from .bus import EventBus
from .children import Child, describe_death, remove_files
from .exits import ended
from .nursery import ForkOrder, LauncherGone, Nursery

__all__ = ["Supervisor"]

_EXIT_REPORT, _KILL_REPORT, _ADOPT, _BIRTH, _RETRY = 1.0, 3.0, 5.0, 0.3, 0.5
_log = structlog.get_logger("paddock.supervisor")

SpecOf = Callable[[Claim, int], ChildSpec]


@dataclass(frozen=True, slots=True)
class Parts:
    """What the supervisor works with."""

    store: SqliteStore
    clock: Clock
    config: WorkflowsConfig
    bus: EventBus
    table: BeatTable
    nursery: Nursery
    run_dir: str
    spec_of: SpecOf
    freed: Callable[[], None]


class Supervisor:
    """Own every child of this server."""

    def __init__(self, parts: Parts) -> None:
        """Hold the parts."""
        self._parts = parts
        self._children: dict[Lease, Child] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.draining = False

    @property
    def children(self) -> list[Child]:
        """Return the children there are."""
        return list(self._children.values())

    def launch(self, claim: Claim) -> None:
        """Start a child for a claim, in the background."""
        self._spawn(self._live(claim), f"paddock-child-{claim.id}")

    def _spawn(self, work: Any, name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- one child's life ---

    async def _live(self, claim: Claim) -> None:
        try:
            slot = self._parts.table.claim()
        except NoFreeSlot:
            await self._settle_unborn(claim.lease, None)
            return
        child = self._children[claim.lease] = Child(claim.lease, claim.id, claim.workflow_name, slot)
        try:
            child.identity = await self._bear(claim, child)
        except MachineError as error:
            _log.error(
                "a child could not be started; its instance stays queued", instance_id=claim.id, error=str(error)
            )
            await asyncio.sleep(_RETRY)
        await self._watch(child)

    async def _bear(self, claim: Claim, child: Child) -> ProcessIdentity | None:
        """Have the process made; None where it does not exist, so far as anybody can tell."""
        parts = self._parts
        spec = parts.spec_of(claim, child.slot)
        out_path, err_path = output_paths(parts.run_dir, claim.lease.instance, claim.lease.epoch)
        order = ForkOrder(
            child.slot, claim.id, claim.lease.epoch, spec.model_dump_json(), out_path, err_path, spec.trace_dir
        )
        try:
            born = await parts.nursery.fork(order)
        except LauncherGone:
            # it may have forked and died before it could say so: a child that lives writes itself into its slot at once
            await asyncio.sleep(_BIRTH)
            return self._in_slot(child.slot, claim.id, claim.lease.epoch)
        return ProcessIdentity(born.pid, born.start_time, boot_id())

    def _in_slot(self, slot: int, instance_id: str, epoch: int) -> ProcessIdentity | None:
        view = self._parts.table.read(slot)
        if view.pid and view.instance_id == instance_id and view.epoch == epoch:
            return ProcessIdentity(view.pid, view.start_time, boot_id())
        return None

    async def _watch(self, child: Child) -> None:
        """Wait for the end of a child and settle it."""
        if child.identity is not None:
            boot = asyncio.create_task(self._watch_boot(child), name="paddock-boot")
            try:
                await ended(child.identity)
            finally:
                boot.cancel()
        await self._settle(child)

    async def _watch_boot(self, child: Child) -> None:
        """End a child whose plugin blocks its loop in `setup` for so long that it cannot time out by itself."""
        limit = self._parts.config.ready_timeout
        await asyncio.sleep(limit * 1.5 + 1.0)
        view = self._parts.table.read(child.slot)
        if child.ready or child.identity is None or not view.step.startswith("plugin:"):
            return
        plugin = view.step.removeprefix("plugin:")
        error = PluginSetupError(
            plugin, f"its setup took longer than ready_timeout ({limit:g}s) and blocked the process"
        )
        child.stop_error = ErrorInfo(type="PluginSetupError", message=str(error))
        await self._end_process(child)

    async def _settle(self, child: Child) -> None:
        """Release a dead child's lease, once its tree is gone, and free its slot."""
        reach("server.settle.before")
        parts = self._parts
        if child.identity is not None:
            await self._gather_reports(child)
            if not child.exited.done() or child.adopted:
                # nobody swept up behind it
                await asyncio.to_thread(end_tree, child.identity, marker=child.marker)
        view = parts.table.read(child.slot)
        held = next((held for held in await self._insist(parts.store.held) if held.lease == child.lease), None)
        death = await asyncio.to_thread(
            describe_death, child, view, parts.run_dir, held, planned=self.draining or child.identity is None
        )
        settlement = await self._insist(
            lambda: parts.store.settle(child.lease, death, parts.config.max_resumes, parts.clock.now())
        )
        self._children.pop(child.lease, None)
        parts.table.release(child.slot)
        remove_files(parts.run_dir, child.lease, view.pid)
        self._report(child, settlement, death)
        child.settled.set()
        parts.bus.poke()
        parts.freed()
        reach("server.settle.after")

    async def _gather_reports(self, child: Child) -> None:
        """Wait a moment for what others know of a death: the fork server its cause, the watchdog the stacks that it took."""
        if self._parts.nursery.alive and not child.adopted:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(child.exited), _EXIT_REPORT)
        if self._parts.table.read(child.slot).verdict:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(child.killed), _KILL_REPORT)

    def _report(self, child: Child, settlement: Settlement | None, death: Death) -> None:
        if settlement is None or not settlement.crashes or settlement.status is not Status.PENDING or death.error is None:
            return
        _log.warning(
            "a child died and its instance goes on in another",
            instance_id=child.instance_id,
            workflow=child.workflow_name,
            cause=death.error.message,
            step=death.error.step,
            crashes=settlement.crashes,
        )

    async def _settle_unborn(self, lease: Lease, error: ErrorInfo | None) -> None:
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
        pause = 0.1
        while True:
            try:
                return await call()
            except DatabaseUnavailable as error:
                _log.error("the database does not take a settlement; trying again", error=str(error), pause=pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 2.0)

    # --- what children, fork server and watchdog say ---

    def exited(self, message: Exited) -> None:
        """Take the fork server's report of a death."""
        for child in self._children.values():
            if (child.instance_id, child.lease.epoch) == (
                message.instance_id,
                message.epoch,
            ) and not child.exited.done():
                child.exited.set_result(message)

    def _find(self, instance_id: str | None, epoch: int | None) -> Child | None:
        return next(
            (c for c in self._children.values() if (c.instance_id, c.lease.epoch) == (instance_id, epoch)), None
        )

    async def talk(self, connection: Connection, hello: Hello) -> None:
        """Listen to a child until it hangs up; one that is not ours any more is told to end itself."""
        child = self._find(hello.instance_id, hello.epoch)
        if child is None or (
            child.identity is not None
            and (child.identity.pid, child.identity.start_time) != (hello.pid, hello.start_time)
        ):
            with contextlib.suppress(IpcError):
                connection.send(Cancel(reason="this instance has another executor", grace=0.0))
                await connection.drain()
            return
        child.connection = connection
        child.connected.set()
        if child.ending is not None:
            connection.send(Cancel(reason=child.ending, grace=self._parts.config.kill_grace))
        elif self.draining or child.draining:
            connection.send(Drain(grace=self._parts.config.kill_grace))
        self._parts.bus.poke()
        try:
            while (message := await connection.receive()) is not None:
                self._hear(child, message)
        except IpcError as error:
            _log.warning("a child said what cannot be understood", instance_id=child.instance_id, error=str(error))
        finally:
            if child.connection is connection:
                child.connection = None

    def _hear(self, child: Child, message: Message) -> None:
        if isinstance(message, Committed | Finished):
            self._parts.bus.poke()
        elif isinstance(message, Nudge):
            self._parts.freed()  # it has started another instance
        elif isinstance(message, Ready):
            child.ready = True

    async def found_stale(self, message: Stale) -> StaleAck:
        """Note a finding of the watchdog before it acts on it."""
        child = self._find(message.instance_id, message.epoch)
        if child is not None and child.stale is None:
            child.stale = {
                "pid": message.pid,
                "reason": message.reason,
                "silent_for": message.silent_for,
                "timeout": message.timeout,
            }
            with contextlib.suppress(DatabaseUnavailable):
                await self._parts.store.record(
                    child.lease, "workflow.watchdog.stale", dict(child.stale), self._parts.clock.now()
                )
                self._parts.bus.poke()
        return StaleAck(slot=message.slot)

    def was_killed(self, message: Killed) -> None:
        """Take the stacks that the watchdog took."""
        child = self._find(message.instance_id, message.epoch)
        if child is not None and not child.killed.done():
            child.killed.set_result(message)

    def nudge(self, lease: Lease) -> None:
        """Tell a child that something has come for its instance."""
        child = self._children.get(lease)
        if child is not None and child.connection is not None:
            with contextlib.suppress(IpcError):
                child.connection.send(Nudge())

    def drain(self, lease: Lease) -> None:
        """Ask a child to stop at its instance's next boundary; one that is just connecting is asked when it has."""
        child = self._children.get(lease)
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
        child = self._children.get(lease)
        if child is None:
            return
        if child.ending is None:
            child.ending = reason
            grace = self._parts.config.kill_grace
            if child.connection is not None:
                with contextlib.suppress(IpcError):
                    child.connection.send(Cancel(reason=reason, grace=grace))
            try:
                await asyncio.wait_for(child.settled.wait(), grace)
            except TimeoutError:
                await self._end_process(child)
        await child.settled.wait()

    async def _end_process(self, child: Child) -> None:
        if child.identity is not None:
            await asyncio.to_thread(end_tree, child.identity, marker=child.marker, grace=0.5)

    async def stop(self) -> None:
        """Let running instances reach a step's boundary, then end their processes; all stay resumable."""
        self.draining = True
        grace = self._parts.config.kill_grace
        for child in self.children:
            if child.connection is not None:
                with contextlib.suppress(IpcError):
                    child.connection.send(Drain(grace=grace))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        await asyncio.gather(*(self._end_process(child) for child in self.children))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=30.0)

    # --- after a restart ---

    async def take_over(self) -> None:
        """Settle what the last server left: adopt children that live and come back, release the leases of those that are dead."""
        await asyncio.gather(*(self._take_over(held) for held in await self._parts.store.held()))
        for slot in self._parts.table.used():
            if all(child.slot != slot for child in self._children.values()):
                await self._end_stray(slot)

    async def _take_over(self, held: Held) -> None:
        if not held.isolated:
            error = ErrorInfo(type="ProcessDied", message="the server died while it ran this instance")
            await self._settle_unborn(held.lease, error)
            return
        slot = self._slot_of(held)
        identity = self._identity_of(held, slot)
        if slot is None:
            slot = self._parts.table.claim()
        child = Child(held.lease, held.id, held.workflow_name, slot, identity, adopted=True)
        self._children[held.lease] = child
        if identity is not None and is_alive(identity) and held.status is Status.RUNNING:
            self._spawn(self._adopt(child), f"paddock-adopted-{held.id}")
            return
        if identity is not None and is_alive(identity):
            await asyncio.to_thread(end_tree, identity, marker=child.marker)
        await self._settle(child)

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
        return self._in_slot(slot, held.id, held.lease.epoch) if slot is not None else None

    async def _adopt(self, child: Child) -> None:
        """Give a living child time to come back; end it when it does not."""
        try:
            await asyncio.wait_for(child.connected.wait(), _ADOPT)
        except TimeoutError:
            await self._end_process(child)
        await self._watch(child)

    async def _end_stray(self, slot: int) -> None:
        """Free a slot that belongs to no lease, and end its process: its instance has another executor or none."""
        view = self._parts.table.read(slot)
        if view.pid:
            identity = ProcessIdentity(view.pid, view.start_time, self._parts.table.boot_id)
            if is_alive(identity):
                await asyncio.to_thread(end_tree, identity)
        self._parts.table.release(slot)
