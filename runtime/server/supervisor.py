"""The supervisor: starts a child for each claim, sees it die, and settles what becomes of its instance.

Order matters everywhere here. A lease is released only when its process was seen dead and its tree is gone; only then can a successor be
claimed. A child is found again by what it says (instance, epoch, pid, token), never by a pid alone. What is decided about an instance is
decided by the store from the row as it is then, never from what was read earlier.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ...ipc.connection import Connection
from ...ipc.errors import IpcError
from ...ipc.messages import (
    Cancel,
    Committed,
    Drain,
    Exited,
    Finished,
    Hello,
    Killed,
    Message,
    Nudge,
    Ready,
    Stale,
    StaleAck,
)
from ...watchdog.beats import BeatTable, NoFreeSlot, SlotView
from ...watchdog.identity import ProcessIdentity, boot_id, is_alive
from ...watchdog.tree import end_tree, marker_of
from ..base.clock import Clock
from ..base.config import WorkflowsConfig
from ..base.errors import MachineError, PluginSetupError
from ..base.log import get_logger
from ..base.probes import reach
from ..base.records import ErrorInfo, Status
from ..base.tasks_group import group_of, groups_folder
from ..base.tasks_group import remove as remove_group
from ..child.spec import ChildSpec, output_paths
from ..store.admission import Claim, Death, Held, Settlement
from ..store.ops import Lease
from ..store.sqlite import SqliteStore
from .bus import EventBus
from .children import Child, describe_death, remove_files
from .exits import ended
from .nursery import ForkOrder, LauncherGone, Nursery

__all__ = ["Supervisor"]

_EXIT_REPORT, _KILL_REPORT, _RETRY, _RETRY_BIRTH, _INSIST = 1.0, 3.0, 0.5, 0.1, 0.5
_STOP_TIMEOUT, _RECORD, _LOOK, _ASK, _LAST_WORDS, _PAUSE_FIRST = 30.0, 0.3, 0.01, 0.5, 3.0, 0.1
_log = get_logger("paddock.supervisor")

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
        self._hurried = asyncio.Event()
        self._taken = asyncio.Event()
        self.draining = False

    @property
    def children(self) -> list[Child]:
        """Return the children there are."""
        return list(self._children.values())

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
        child = self._children[claim.lease] = Child(claim.lease, claim.id, claim.workflow_name, slot)
        self._spawn(self._live(claim, child), f"paddock-child-{claim.id}")

    def _spawn(self, work: Any, name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- one child's life ---

    async def _live(self, claim: Claim, child: Child) -> None:
        try:
            child.identity = await self._bear(claim, child)
            reach("server.born")
        except LauncherGone:
            await asyncio.sleep(0 if self.draining else _RETRY_BIRTH)
        except Exception as error:  # noqa: BLE001  whatever it is: a lease that stays behind is a slot lost
            _log.error(
                "a child could not be started; its instance stays queued", instance_id=claim.id, error=repr(error)
            )
            await asyncio.sleep(0 if self.draining else _RETRY)
        await self._watch(child)

    async def _give_back(self, claim: Claim) -> None:
        await asyncio.sleep(_RETRY)
        await self._settle_unborn(claim.lease, None)

    async def _bear(self, claim: Claim, child: Child) -> ProcessIdentity:
        """Have the process made.

        Raises:
            LauncherGone: nobody knows whether it exists; `_settle` asks the lease.
            MachineError: it does not exist.
        """
        parts = self._parts
        spec = parts.spec_of(claim, child.slot)
        child.tasks_group = spec.tasks_group
        parts.table.limit(
            child.slot, memory=spec.limits.memory_limit or 0, cpu_us=math.ceil(spec.limits.cpu_limit or 0) * 1_000_000
        )
        out_path, err_path = output_paths(parts.run_dir, claim.lease.instance, claim.lease.epoch)
        order = ForkOrder(
            child.slot,
            claim.id,
            claim.lease.epoch,
            spec.model_dump_json(),
            out_path,
            err_path,
            spec.trace_dir,
            spec.limits.python,
            spec.limits.env,
        )
        born = await parts.nursery.fork(order)
        return ProcessIdentity(born.pid, born.start_time, boot_id())

    def _in_slot(self, slot: int, instance_id: str, epoch: int) -> ProcessIdentity | None:
        view = self._parts.table.read(slot)
        if view.pid and view.instance_id == instance_id and view.epoch == epoch:
            return ProcessIdentity(view.pid, view.start_time, boot_id())
        return None

    async def _watch(self, child: Child) -> None:
        """Wait for the end of a child and settle it."""
        while True:
            if child.identity is not None:
                boot = asyncio.create_task(self._watch_boot(child), name="paddock-boot")
                child.at_rest = True
                try:
                    await ended(child.identity)
                finally:
                    child.at_rest = False
                    boot.cancel()
            if await self._settle(child):
                return

    async def _watch_boot(self, child: Child) -> None:
        """End a child whose plugin blocks its loop in `setup` for so long that it cannot time out by itself."""
        limit = self._parts.config.ready_timeout
        await asyncio.sleep(limit * 1.5 + 1.0)
        view = self._parts.table.read(child.slot)
        if child.ready or child.identity is None or view.progress or not view.step.startswith("plugin:"):
            return
        plugin = view.step.removeprefix("plugin:")
        error = PluginSetupError(
            plugin, f"its setup took longer than ready_timeout ({limit:g}s) and blocked the process"
        )
        child.stop_error = ErrorInfo(type="PluginSetupError", message=str(error))
        await self._end_process(child)

    async def _settle(self, child: Child) -> bool:
        """Release a dead child's lease, once its tree is gone, and free its slot.

        False where a child of which nobody knew has taken the lease meanwhile: it is known now, and lives.
        """
        reach("server.settle.before")
        parts = self._parts
        if child.identity is not None:
            await self._gather_reports(child)
            if not child.exited.done() or child.adopted:
                await self._sweep_up(child, child.identity)
        view = parts.table.read(child.slot)
        death = await self._describe(child, view)
        settlement = await self._insist(
            lambda: parts.store.settle(child.lease, death, parts.config.max_resumes, parts.clock.now())
        )
        if settlement is not None and settlement.holder is not None:
            child.identity = ProcessIdentity(*settlement.holder)
            return False
        self._children.pop(child.lease, None)
        parts.table.release(child.slot)
        remove_files(parts.run_dir, child.lease, view.pid)
        group = child.tasks_group or (self._group_of_adopted(child) if child.adopted else None)
        if group is not None:
            remove_group(group)
        self._report(child, settlement, death)
        child.settled.set()
        parts.bus.poke()
        parts.freed()
        reach("server.settle.after")
        return True

    def _group_of_adopted(self, child: Child) -> str | None:
        folder = groups_folder()
        return group_of(folder, self._parts.table.path, child.lease.instance, child.lease.epoch) if folder else None

    def _marker(self, child: Child) -> str:
        return marker_of(self._parts.table.path, child.instance_id, child.lease.epoch)

    async def _sweep_up(self, child: Child, identity: ProcessIdentity) -> None:
        """End what a child has left behind, where its fork server did not."""
        try:
            await asyncio.to_thread(end_tree, identity, marker=self._marker(child))
        except OSError as error:
            _log.error("what a dead child started cannot be ended", instance_id=child.instance_id, error=str(error))

    async def _describe(self, child: Child, view: SlotView) -> Death:
        parts = self._parts
        held = next((held for held in await self._insist(parts.store.held) if held.lease == child.lease), None)
        unborn = child.identity is None
        try:
            death = await asyncio.to_thread(
                describe_death, child, view, parts.run_dir, held, planned=self.draining or unborn
            )
        except Exception as error:  # noqa: BLE001  the lease has to be released, whatever is wrong with the description
            _log.error("a death cannot be described", instance_id=child.instance_id, error=repr(error))
            death = Death(planned=self.draining or unborn, error=ErrorInfo(type="ProcessDied", message="it died"))
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
        pause = _PAUSE_FIRST
        while True:
            try:
                return await call()
            except MachineError as error:
                if pause == _PAUSE_FIRST:  # said once: health goes on saying it
                    _log.error("the database does not take a settlement; it is tried until it does", error=str(error))
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
        """Listen to a child until it hangs up; one that is not ours any more is told to end itself.

        Children of the last server come back as soon as somebody listens: who is ours is known only once all was taken over.
        """
        await self._taken.wait()
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
            with contextlib.suppress(MachineError):
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
            await asyncio.to_thread(end_tree, child.identity, marker=self._marker(child), grace=grace)

    async def stop(self) -> None:
        """Let running instances reach a step's boundary, then end their processes; all stay resumable."""
        self.draining = True
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
        """Settle what the last server left: adopt children that live, release the leases of those that are dead.

        A living child is adopted by its identity alone, however long it takes to come back: it may be busy. If it is stale, the
        watchdog will find that.
        """
        found = await self._parts.store.held()
        reach("server.takeover")
        await asyncio.gather(*(self._take_over(held) for held in found))
        for slot in self._parts.table.used():
            if all(child.slot != slot for child in self._children.values()):
                await self._end_stray(slot)
        self._taken.set()

    async def _take_over(self, held: Held) -> None:
        reach("server.resume")
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
        if identity is not None and is_alive(identity):
            if held.status is Status.RUNNING:
                self._spawn(self._watch(child), f"paddock-adopted-{held.id}")
                return
            await self._sweep_up(child, identity)
        if not await self._settle(child):
            self._spawn(self._watch(child), f"paddock-adopted-{held.id}")

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

    async def _end_stray(self, slot: int) -> None:
        """Free a slot that belongs to no lease, and end its process: its instance has another executor or none."""
        view = self._parts.table.read(slot)
        if view.pid:
            identity = ProcessIdentity(view.pid, view.start_time, self._parts.table.boot_id)
            if is_alive(identity):
                await asyncio.to_thread(end_tree, identity)
        self._parts.table.release(slot)
