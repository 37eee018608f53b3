"""A server that runs: the one place where the parts are made and wired, started in order and stopped in reverse."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from typing import Any, Literal

from ...ipc.messages import Exited
from ...watchdog.beats import BeatTable, BeatTableError
from ...watchdog.identity import boot_id
from ..base.errors import RunDirectoryError
from ..base.log import get_logger
from ..base.probes import reach
from ..base.records import ErrorInfo, Status
from ..base.timeslice import ask_for_short_slices, forget_slices
from ..engine.plugins import set_up, tear_down
from ..store.admission import Claim
from ..store.ops import Lease
from .admission import Admission
from .census import census
from .control import ControlDesk
from .core import ServerCore
from .dispatcher import Dispatcher
from .guard import WatchdogKeeper
from .health import Health
from .heirs import Heirs
from .housekeeper import Housekeeper
from .hub import Hub
from .inline import InlineParts, InlineRunner
from .nursery import Nursery
from .orders import Orders
from .roster import Parts
from .rundir import RunDirectory
from .scheduler import Scheduler
from .settings import ServerSettings
from .steering import WorkflowsParts
from .supervisor import Supervisor

__all__ = ["RunningServer"]

_SLOTS = 1024
_log = get_logger("paddock.server")


class RunningServer:
    """Everything that exists only while a server runs, in the order in which it starts; the stack stops it in reverse."""

    def __init__(self, server: ServerSettings) -> None:
        """Hold the settings.

        Raises:
            PluginConfigError: a plugin's config would not reach a child unchanged.
        """
        self._server = server
        self._settings = server.workflows_config
        self._clock = server.clock
        self._orders = Orders(server)
        self._stack = AsyncExitStack()
        self._address = ""
        self._stopping = False
        self._handover = False
        self._heir = False
        self._taken = False
        self._late: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Make the parts and start them; where one fails, `close` stops what was started."""
        server, settings, stack = self._server, self._settings, self._stack
        ask_for_short_slices()  # before any thread of ours begins: threads inherit it
        stack.callback(forget_slices)
        self._lock = server.database.lock(settings.sqlite_pragmas)
        self._lock.serve(os.getpid())
        stack.callback(self._leave_lock)
        was_left = RunDirectory.was_left(server.database.identity, server.run_dir)
        self.run_dir = RunDirectory.open(server.database.identity, server.run_dir)
        self._heir = was_left  # and it was not another server's
        stack.callback(self._leave_run_dir)
        heirs = Heirs()
        await heirs.start()
        stack.push_async_callback(heirs.stop)
        self.store = server.lent.store = await asyncio.to_thread(
            server.database.open, settings.sqlite_pragmas, self._lock
        )
        stack.callback(self._close_store)
        self.bus = server.bus
        await self.bus.start()
        stack.push_async_callback(self.bus.stop)
        await self._set_plugins_up()
        self.table = _open_table(self.run_dir.beats_path)
        stack.callback(self.table.close)
        self._wire()
        stack.push_async_callback(self.desk.stop)
        stack.push_async_callback(self.hub.stop)
        self._address = await self.hub.start(settings.transport)
        self.run_dir.settled()
        reach("server.listening")
        self._start_guard()
        if settings.launcher != "inline":  # nothing is forked, and nobody beats
            await self.nursery.start()
            stack.push_async_callback(lambda: self.nursery.stop(handover=self._handover))
            await self.guard.start()
            stack.push_async_callback(lambda: self.guard.stop(handover=self._handover))
        stack.push_async_callback(self._stop_work)
        server.workflows.attach(self._parts())
        self._answer_people()
        await self._go_on()

    def _parts(self) -> WorkflowsParts:
        """Return what `server.workflows` works with while this runs."""
        return WorkflowsParts(
            store=self.store,
            clock=self._clock,
            bus=self.bus,
            admit=self.dispatcher.admit,
            queued=self._queued,
            end=self._end,
            nudge=self._nudge,
            drain=self._drain,
            resume=self._resume,
            stop=self._stop_work,
        )

    @property
    def _leaves_children(self) -> bool:
        """Tell whether children may outlive this server: as wanted, or because it ends before it has taken over the last one's."""
        return self._handover or (self._heir and not self._taken)

    def _leave_lock(self) -> None:
        self._lock.leave(remove=not self._leaves_children)  # children take their turns at this very file

    def _leave_run_dir(self) -> None:
        self.run_dir.leave(remove=not self._leaves_children)

    def _answer_people(self) -> None:
        """Serve the command line from now on, and say in the lock file where."""
        try:
            self._lock.note(pid=os.getpid(), run_dir=self.run_dir.path, address=self._address)
        except OSError as error:
            _log.warning("the command line will not find this server", error=error.strerror)

    def _close_store(self) -> None:
        self.store.close()
        self._server.lent.store = None

    async def _set_plugins_up(self) -> None:
        server = self._server
        self.core = ServerCore(
            config=server.config,
            logger=get_logger("paddock.plugin"),
            events=self.bus,
            workflows=server.workflows,
            db=server.database.core_db(self._settings.sqlite_pragmas),
        )
        self._stack.push_async_callback(self.core.close)
        self._stack.callback(server.workflows.registry.forget_plugins)
        await set_up(server.plugin_list, self.core, self._settings.ready_timeout)
        self._stack.push_async_callback(
            tear_down,
            server.plugin_list,
            lambda name, error: _log.error("a plugin's teardown failed", plugin=name, error=repr(error)),
        )

    def _wire(self) -> None:
        server, settings = self._server, self._settings
        mode: Literal["fork", "spawn"] = "spawn" if settings.launcher == "spawn" else "fork"
        self.nursery = Nursery(
            mode, self.run_dir.beats_path, self._orders.modules, self._exited, self._orders.needs(self.run_dir)
        )
        parts = Parts(
            store=self.store,
            clock=self._clock,
            config=settings,
            bus=self.bus,
            table=self.table,
            nursery=self.nursery,
            run_dir=self.run_dir.path,
            spec_of=lambda claim, slot: self._orders.spec(claim, slot, self.run_dir, self._address),
            freed=self._freed,
        )
        self.supervisor = Supervisor(parts)
        self.desk = ControlDesk(server.workflows, self.processes, self.problems)
        self.hub = Hub(parts, self.supervisor.roster, self.supervisor.rounds, self.run_dir, self.desk.talk)
        self.inline = InlineRunner(
            InlineParts(
                store=self.store,
                clock=self._clock,
                config=settings,
                registry=server.workflows.registry,
                plugins=lambda: server.plugins,
                core=self.core,
                committed=self.bus.poke,
                freed=self._freed,
                database=server.database.url,
            )
        )
        registry = server.workflows.registry
        scheduler = Scheduler(self.store, self._clock, registry)
        self.admission = Admission(self.store, self._clock, registry, settings, scheduler)
        self.dispatcher = Dispatcher(
            self.store, self._clock, self.admission.wanted, self._launch, self._time_out, self.admission.before_claim
        )
        self.housekeeper = Housekeeper(
            self.store,
            self._clock,
            settings,
            server.database.upkeep(settings.sqlite_pragmas),
            self.run_dir,
        )
        self.bus.published = self.housekeeper.committed

    def _start_guard(self) -> None:
        self.guard = WatchdogKeeper(
            self._server.watchdog_config,
            address=self._address,
            token=self.run_dir.token,
            table=self.table,
            trace_dir=self.run_dir.trace_dir,
            orphan_grace=self._settings.orphan_grace,
        )

    async def _go_on(self) -> None:
        """Take over from the last server, then let work begin."""
        await self.supervisor.take_over()
        self._taken = True
        reach("server.taken")
        await self.admission.open()
        await self.housekeeper.start()
        self._stack.push_async_callback(self.housekeeper.stop)
        await self.dispatcher.start()
        if self._settings.resume == "blocking":
            self.dispatcher.poke()
            await self.dispatcher.idle.wait()

    async def _resume(self) -> None:
        await self.admission.resume()
        self.dispatcher.poke()

    async def _stop_work(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._server.workflows.attach(None)
        await self.dispatcher.stop()
        leave = self.supervisor.let_go if self._leaves_children else self.supervisor.stop
        await asyncio.gather(leave(), self.inline.stop(self._settings.kill_grace))

    async def close(self, *, handover: bool = False) -> None:
        """Stop everything in reverse order; at a handover what the next server needs stays."""
        self._handover = handover
        self._server.workflows.attach(None)
        await self._stack.aclose()

    def hurry(self) -> None:
        """Cut the grace of `close` short."""
        self.inline.hurry()
        self.supervisor.hurry()

    # --- what the parts ask ---

    def _exited(self, message: Exited) -> None:
        self.hub.exited(message)

    def _freed(self) -> None:
        self.dispatcher.poke()

    def _launch(self, claim: Claim) -> None:
        (self.supervisor if claim.isolated else self.inline).launch(claim)

    def _queued(self) -> None:
        self.bus.poke()
        self.dispatcher.poke()

    def _nudge(self, lease: Lease) -> None:
        self.inline.nudge(lease)
        self.supervisor.nudge(lease)

    def _drain(self, lease: Lease, reason: str) -> None:
        self.inline.drain(lease, reason)
        self.supervisor.drain(lease)

    async def _end(self, lease: Lease, reason: str) -> None:
        await self.inline.end(lease)
        await self.supervisor.end(lease, reason)

    async def _time_out(self, ids: list[str]) -> None:
        """End instances whose workflow deadline has passed."""
        for ident in ids:
            error = ErrorInfo(type="WorkflowTimedOut", message="the workflow's timeout has passed")
            _, leases = await self.store.end(ident, Status.TIMED_OUT, self._clock.now(), error)
            self.bus.poke()
            for lease in leases:
                task = asyncio.create_task(
                    self._end(lease, "the workflow's timeout has passed"), name="paddock-timeout"
                )
                self._late.add(task)
                task.add_done_callback(self._late.discard)

    # --- looking ---

    def problems(self) -> dict[str, Any]:
        """Return what is wrong, by part."""
        return Health(
            store=self.store,
            store_space=self._server.database.low_space,
            bus=self.bus,
            dispatcher=self.dispatcher,
            housekeeper=self.housekeeper,
            nursery=self.nursery,
            guard=self.guard,
            supervisor=self.supervisor,
            table=self.table,
            run_dir=self.run_dir,
            workflows=self._settings,
            watchdog=self._server.watchdog_config,
        ).problems()

    def processes(self) -> list[dict[str, Any]]:
        """Return what runs for this server; blocking, for it asks the kernel about each process."""
        return census(self.guard.pid, self.nursery.pid, self.supervisor.children, self.table)


def _open_table(path: str) -> BeatTable:
    """Take over the last server's beat table, for its children write into it; one of another boot is nobody's."""
    try:
        table = BeatTable.open(path)
    except (FileNotFoundError, BeatTableError):
        pass
    else:
        if table.boot_id == boot_id():
            return table
        table.close()
    try:
        return BeatTable.create(path, _SLOTS)
    except OSError as error:
        raise RunDirectoryError(f"the beat table {path} cannot be made: {error.strerror}") from None
