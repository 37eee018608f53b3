"""A server that runs: the one place where the parts are made and wired, started in order and stopped in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ...ipc.address import TcpAddress, UnixAddress, format_address
from ...ipc.bell import Bell
from ...ipc.connection import Connection
from ...ipc.errors import AddressInUse, IpcError
from ...ipc.listener import Listener
from ...ipc.messages import Exited, Hello, Killed, Stale
from ...watchdog.beats import BeatTable, BeatTableError
from ...watchdog.identity import boot_id
from ..base.clock import Clock
from ..base.config import WatchdogConfig, WorkflowsConfig
from ..base.errors import PluginConfigError, RunDirectoryError, ServerNotRunning
from ..base.log import get_logger
from ..base.probes import reach
from ..base.records import ErrorInfo, Status
from ..base.tasks_group import group_of, groups_folder
from ..child.core import plugin_connection
from ..child.main_module import importable
from ..child.spec import ChildSpec, PluginText
from ..engine.plugin_spec import describe_plugin
from ..engine.plugins import Plugin, Plugins, set_up, tear_down
from ..store.admission import Claim, Wanted
from ..store.checkpoint import Checkpointer
from ..store.ops import Lease
from ..store.sqlite import SqliteStore
from ..store.turn import LockFile
from .bus import EventBus
from .census import census
from .control import ControlDesk
from .core import ServerCore
from .dispatcher import Dispatcher
from .guard import WatchdogKeeper
from .health import Health
from .heirs import Heirs
from .housekeeper import Housekeeper
from .inline import InlineParts, InlineRunner
from .nursery import Nursery
from .rundir import RunDirectory
from .scheduler import Scheduler
from .steering import WorkflowsParts
from .supervisor import Parts, Supervisor
from .workflows import Workflows

__all__ = ["LentStore", "RunningServer", "ServerSettings"]

_SLOTS = 1024
_BEAT_LONGEST = 0.5
_LOOK_FOR_UNKNOWN = 1.0
_log = get_logger("paddock.server")


def _travelling(plugin: Plugin[Any], *, isolated: bool) -> PluginText:
    spec = describe_plugin(plugin)
    for module in (spec.module, *(spec.config_type or ())[:1]):
        if isolated and not importable(module):
            raise PluginConfigError(
                f"plugin {plugin.name!r}: nothing leads a child process to its module {module!r}; put its folder on sys.path"
            )
    try:
        secret = spec.config.get_secret_value() if spec.config is not None else None
        return PluginText(
            module=spec.module, qualname=spec.qualname, name=spec.name, config_type=spec.config_type, config=secret
        )
    except ValueError as error:
        raise PluginConfigError(f"plugin {plugin.name!r}: {error}") from None


class LentStore:
    """The store of a started server, for parts that exist before it."""

    def __init__(self) -> None:
        """Begin with none."""
        self.store: SqliteStore | None = None

    def opened(self) -> SqliteStore:
        """Return the store.

        Raises:
            ServerNotRunning: the server is not started.
        """
        if self.store is None:
            raise ServerNotRunning("the server is not started; use `async with server:` or `await server.start()`")
        return self.store

    def __getattr__(self, name: str) -> Any:
        return getattr(self.opened(), name)


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What a server is made of before it starts. `path` is the database's real path, `run_dir` what the user named."""

    path: str
    run_dir: str | Path | None
    config: dict[str, Any]
    workflows_config: WorkflowsConfig
    watchdog_config: WatchdogConfig
    clock: Clock
    plugin_list: Sequence[Plugin[Any]]
    plugins: Plugins
    workflows: Workflows
    bus: EventBus
    lent: LentStore


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
        self._plugin_texts = tuple(
            _travelling(plugin, isolated=self._settings.launcher != "inline") for plugin in server.plugin_list
        )
        self._stack = AsyncExitStack()
        self._address = ""
        self._resume_after = 0
        self._stopping = False
        self._handover = False
        self._names: frozenset[str] = frozenset()
        self._late: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Make the parts and start them; where one fails, `close` stops what was started."""
        server, settings, stack = self._server, self._settings, self._stack
        self._lock = LockFile.of(server.path) if server.path != ":memory:" else None
        if self._lock is not None:
            self._lock.serve(os.getpid())
            stack.callback(self._leave_lock, self._lock)
        self.run_dir = RunDirectory.open(server.path, server.run_dir)
        stack.callback(self._leave_run_dir)
        heirs = Heirs()
        await heirs.start()
        stack.push_async_callback(heirs.stop)
        self.store = server.lent.store = await asyncio.to_thread(SqliteStore.open, server.path, settings.sqlite_pragmas)
        stack.callback(self._close_store)
        self.bus = server.bus
        await self.bus.start()
        stack.push_async_callback(self.bus.stop)
        await self._set_plugins_up()
        self.table = _open_table(self.run_dir.beats_path)
        stack.callback(self.table.close)
        self._wire()
        self.desk = ControlDesk(server.workflows, self.processes, self.problems)
        stack.push_async_callback(self.desk.stop)
        self._address = format_address(await self._listen())
        stack.push_async_callback(self.listener.stop)
        self.run_dir.settled()
        reach("server.listening")
        self._start_guard()
        if settings.launcher != "inline":  # nothing is forked, and nobody beats
            await self.nursery.start()
            stack.push_async_callback(lambda: self.nursery.stop(handover=self._handover))
            await self.guard.start()
            stack.push_async_callback(lambda: self.guard.stop(handover=self._handover))
        stack.push_async_callback(self._stop_work)
        server.workflows.attach(
            WorkflowsParts(
                store=self.store,
                clock=self._clock,
                bus=self.bus,
                queued=self._queued,
                end=self._end,
                nudge=self._nudge,
                drain=self._drain,
                resume=self._resume,
                stop=self._stop_work,
            )
        )
        self._answer_people()
        await self._go_on()

    def _leave_lock(self, lock: LockFile) -> None:
        lock.leave(remove=not self._handover)  # children take their turns at this very file

    def _leave_run_dir(self) -> None:
        if not self._handover:
            self.run_dir.remove()

    def _answer_people(self) -> None:
        """Serve the command line from now on, and say in the lock file where."""
        if self._lock is None:
            return
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
            db=plugin_connection(server.path, self._settings.sqlite_pragmas),
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
        self.nursery = Nursery(mode, self.run_dir.beats_path, self._modules, self._exited)
        self.supervisor = Supervisor(
            Parts(
                store=self.store,
                clock=self._clock,
                config=settings,
                bus=self.bus,
                table=self.table,
                nursery=self.nursery,
                run_dir=self.run_dir.path,
                spec_of=self._spec,
                freed=self._freed,
            )
        )
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
            )
        )
        self.scheduler = Scheduler(self.store, self._clock, server.workflows.registry)
        self.dispatcher = Dispatcher(
            self.store, self._clock, self._wanted, self._launch, self._time_out, self._before_claim
        )
        self.housekeeper = Housekeeper(
            self.store,
            self._clock,
            settings,
            Checkpointer(server.path, settings.sqlite_pragmas, LockFile.of(server.path)),
            self.run_dir,
        )

    async def _listen(self) -> TcpAddress | UnixAddress:
        if self._settings.transport != "tcp":
            bell = Bell(self.run_dir.bell_path, self.bus.poke)
            bell.start()
            self._stack.callback(bell.stop)
            return await self._listen_at(UnixAddress(self.run_dir.socket_path))
        try:
            address = await self._listen_at(TcpAddress("127.0.0.1", self.run_dir.port))
        except AddressInUse:  # somebody took it meanwhile; children that look there will end themselves, and be resumed
            address = await self._listen_at(TcpAddress("127.0.0.1", 0))
        if isinstance(address, TcpAddress):
            self.run_dir.keep_port(address.port)
        return address

    async def _listen_at(self, address: TcpAddress | UnixAddress) -> TcpAddress | UnixAddress:
        self.listener = Listener(address, token=self.run_dir.token, on_peer=self._meet)
        return await self.listener.start()

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
        reach("server.taken")
        now = self._clock.now()
        self._names = self._server.workflows.registry.names
        self._looked_at = self._clock.monotonic()
        if self._settings.resume == "skip":  # what is there is left as it is
            self._resume_after = await self.store.newest_instance()
        else:
            await self.store.unblock(now)
            await self.store.block_unknown(self._names, now)
        await self.housekeeper.start()
        self._stack.push_async_callback(self.housekeeper.stop)
        await self.dispatcher.start()
        if self._settings.resume == "blocking":
            self.dispatcher.poke()
            await self.dispatcher.idle.wait()

    async def _resume(self) -> None:
        self._resume_after = 0
        await self.store.unblock(self._clock.now())
        await self.store.block_unknown(self._server.workflows.registry.names, self._clock.now())
        self.dispatcher.poke()

    async def _stop_work(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._server.workflows.attach(None)
        await self.dispatcher.stop()
        leave = self.supervisor.let_go if self._handover else self.supervisor.stop
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
        self.supervisor.exited(message)

    def _freed(self) -> None:
        self.dispatcher.poke()

    def _modules(self) -> list[str]:
        modules = list(self._server.workflows.registry.modules())
        for text in self._plugin_texts:
            modules += [text.module, *(text.config_type or ())[:1]]
        return list(dict.fromkeys(modules))

    def _wanted(self) -> Wanted:
        self._server.workflows.registry.add_actions()
        registered = list(self._server.workflows.registry)
        return Wanted(
            limits={known.definition.name: known.limit for known in registered},
            isolated=frozenset(known.definition.name for known in registered if known.isolated),
            capacity=self._settings.process_limit,
            after=self._resume_after,
            keyed=frozenset(known.definition.name for known in registered if known.key is not None),
            rates={known.definition.name: known.rate for known in registered if known.rate is not None},
        )

    async def _before_claim(self) -> float | None:
        """Fire schedules, give limit keys to instances that were started within others, and try again what is newly registered."""
        names = self._server.workflows.registry.names
        if not names <= self._names:
            for name in names - self._names:
                await self.store.unblock(self._clock.now(), workflow_name=name)
            self._names = names
        now = self._clock.monotonic()
        if not self._resume_after and now - self._looked_at >= _LOOK_FOR_UNKNOWN:
            self._looked_at = now
            await self.store.block_unknown(names, self._clock.now())
        for known in self._server.workflows.registry:
            if known.key is not None:
                await self.store.fill_keys(known.definition.name, known.key_of)
        return await self.scheduler.tick()

    def _launch(self, claim: Claim) -> None:
        (self.supervisor if claim.isolated else self.inline).launch(claim)

    def _spec(self, claim: Claim, slot: int) -> ChildSpec:
        server, settings = self._server, self._settings
        limits, group = server.workflows.registry.limits_of(claim.workflow_name, claim.parent), None
        if limits.processes is not None and (folder := groups_folder()) is not None:
            group = group_of(folder, self.run_dir.beats_path, claim.lease.instance, claim.lease.epoch)
        return ChildSpec(
            database=server.path,
            pragmas=settings.sqlite_pragmas,
            instance=claim.lease.instance,
            epoch=claim.lease.epoch,
            instance_id=claim.id,
            definition=server.workflows.registry.get(claim.workflow_name).path,
            plugins=self._plugin_texts,
            config=server.config,
            address=self._address,
            token=self.run_dir.token,
            transport=settings.transport,
            run_dir=self.run_dir.path,
            slot=slot,
            beat_interval=min(_BEAT_LONGEST, server.watchdog_config.interval / 2),
            ready_timeout=settings.ready_timeout,
            kill_grace=settings.kill_grace,
            orphan_grace=settings.orphan_grace,
            suspend_after=settings.suspend_after,
            max_payload=settings.max_payload,
            max_output=settings.max_output,
            limits=limits,
            tasks_group=group,
        )

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

    async def _meet(self, connection: Connection, hello: Hello) -> None:
        if hello.role == "child":
            await self.supervisor.talk(connection, hello)
        elif hello.role == "control":
            await self.desk.talk(connection)
        elif hello.role == "watchdog":
            with contextlib.suppress(IpcError):
                while (message := await connection.receive()) is not None:
                    if isinstance(message, Stale):
                        connection.send(await self.supervisor.found_stale(message))
                    elif isinstance(message, Killed):
                        self.supervisor.was_killed(message)

    # --- looking ---

    def problems(self) -> dict[str, Any]:
        """Return what is wrong, by part."""
        return Health(
            store=self.store,
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
