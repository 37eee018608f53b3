"""The application server: the one place where the parts are made and wired, started in order and stopped in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import structlog

from ...ipc.address import TcpAddress, UnixAddress, format_address
from ...ipc.connection import Connection
from ...ipc.errors import IpcError
from ...ipc.listener import Listener
from ...ipc.messages import Hello, Killed, Stale
from ...watchdog.beats import BeatTable, BeatTableError
from ...watchdog.identity import boot_id
from ..base.clock import Clock, SystemClock
from ..base.config import WatchdogConfig, WorkflowsConfig
from ..base.errors import ConfigError, PluginConfigError, RunDirectoryError, ServerNotRunning
from ..base.records import ErrorInfo, Status
from ..base.values import to_json
from ..child.core import plugin_connection
from ..child.main_module import MAIN_ALIAS
from ..child.spec import ChildSpec, PluginText
from ..engine.plugins import Plugin, Plugins, describe_plugin, order_plugins, resolve_plugins, set_up, tear_down
from ..store.admission import Claim, Wanted
from ..store.checkpoint import Checkpointer
from ..store.ops import Lease
from ..store.sqlite import SqliteStore, real_path
from ..store.turn import LockFile
from .bus import EventBus
from .core import ServerCore
from .dispatcher import Dispatcher
from .guard import WatchdogKeeper
from .housekeeper import Housekeeper
from .inline import InlineParts, InlineRunner
from .logs import Logs
from .nursery import Nursery
from .rundir import RunDirectory
from .supervisor import Parts, Supervisor
from .workflows import Workflows, WorkflowsParts

__all__ = ["AppServer"]

_SLOTS = 1024
_BEAT_LONGEST = 0.5
_log = structlog.get_logger("paddock.server")


class AppServer:
    """Run durable workflows, each instance in a process of its own.

    Use it as an async context manager, or call `start` and `stop`.

    Args:
        db: path of the database; a symlink or a relative path to it is that database.
        plugins: plugin objects, import paths ("module:Class") or names of entry points.
        config: JSON-serialisable; reaches every child as ``ctx.core.config``.
        workflows: how workflows are admitted, run and resumed.
        watchdog: how children are watched.
        run_dir: where sockets and the children's output are; by default a private directory under the system's temporary one.

    Raises:
        ConfigError: a value cannot work; it is named.
    """

    def __init__(
        self,
        db: str | Path,
        *,
        plugins: Sequence[Plugin[Any] | str] = (),
        config: dict[str, Any] | None = None,
        workflows: WorkflowsConfig | None = None,
        watchdog: WatchdogConfig | None = None,
        run_dir: str | Path | None = None,
    ) -> None:
        """Hold the settings; nothing is opened or started yet."""
        self.config = config if config is not None else {}
        if not isinstance(self.config, dict):
            raise ConfigError(f"config must be a dict, not {type(self.config).__name__}")
        to_json(self.config, "AppServer(config=…)")
        self._path = real_path(db)
        self._given_run_dir = run_dir
        self._settings = workflows or WorkflowsConfig()
        self._watchdog_config = watchdog or WatchdogConfig()
        self._clock: Clock = SystemClock()
        self._plugin_list = order_plugins(resolve_plugins(plugins))
        self._plugin_texts: tuple[PluginText, ...] = ()
        self._running: _Running | None = None
        self._store: SqliteStore | None = None
        self.plugins = Plugins(self._plugin_list)
        self.workflows = Workflows(self._settings)
        self.logs = Logs(self._opened)
        self._events = EventBus(_StoreProxy(self._opened))  # type: ignore[arg-type]

    @property
    def events(self) -> EventBus:
        """The event bus."""
        return self._events

    def _opened(self) -> SqliteStore:
        if self._store is None:
            raise ServerNotRunning("the server is not started; use `async with server:` or `await server.start()`")
        return self._store

    # --- life ---

    async def start(self) -> None:
        """Open and migrate the database, set plugins up, start the watchdog and the fork server, and go on with what is unfinished.

        Raises:
            ServerAlreadyRunning: another server holds the database; its pid is named.
            DatabaseTooNew, DatabaseDamaged, DatabaseUnavailable: the database cannot be used.
            RunDirectoryError: the run directory cannot be used.
            PluginConfigError: a plugin's config would not reach a child unchanged; the field is named.
            PluginSetupError: a plugin's setup failed; it is named.
        """
        if self._running is not None:
            return
        import sys

        if sys.modules["__main__"].__name__ == MAIN_ALIAS:
            raise ServerNotRunning(
                "this script starts a server when it is imported, and a child process has just imported it; "
                'put the start under `if __name__ == "__main__":`'
            )
        self._plugin_texts = tuple(_travelling(plugin) for plugin in self._plugin_list)
        running = _Running(self)
        try:
            await running.start()
        except BaseException:
            await running.close()
            raise
        self._running = running

    async def stop(self) -> None:
        """Claim nothing more, give running instances `kill_grace` to reach a step's boundary, end their processes (resumable), and
        let go of everything. Idempotent.
        """
        running, self._running = self._running, None
        if running is not None:
            await running.close()

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        await self.stop()

    # --- looking ---

    async def processes(self) -> list[dict[str, Any]]:
        """Return what runs for this server: `role` (server, watchdog, fork-server, child), `pid`, `instance_id`, `step`, `rss` (bytes),
        `cpu` (seconds used), `last_beat` (seconds since the last heartbeat).
        """
        if self._running is None:
            return []
        return await asyncio.to_thread(self._running.processes)

    async def health(self) -> dict[str, Any]:
        """Return `{"ok": bool, "problems": {part: what is wrong}}`."""
        if self._running is None:
            return {"ok": False, "problems": {"server": "not started"}}
        problems = self._running.problems()
        return {"ok": not problems, "problems": problems}


class _StoreProxy:
    """The store of the started server, for parts that exist before it."""

    def __init__(self, opened: Any) -> None:
        self._opened = opened

    def __getattr__(self, name: str) -> Any:
        return getattr(self._opened(), name)


def _travelling(plugin: Plugin[Any]) -> PluginText:
    spec = describe_plugin(plugin)
    try:
        secret = spec.config.get_secret_value() if spec.config is not None else None
        return PluginText(
            module=spec.module, qualname=spec.qualname, name=spec.name, config_type=spec.config_type, config=secret
        )
    except ValueError as error:
        raise PluginConfigError(f"plugin {plugin.name!r}: {error}") from None


class _Running:
    """Everything that exists only while a server runs, in the order in which it starts; the stack stops it in reverse."""

    def __init__(self, server: AppServer) -> None:
        self._server = server
        self._settings = server._settings
        self._clock = server._clock
        self._stack = AsyncExitStack()
        self._address = ""
        self._resume_after = 0
        self._stopping = False

    async def start(self) -> None:
        server, settings, stack = self._server, self._settings, self._stack
        self._lock = LockFile.of(server._path) if server._path != ":memory:" else None
        if self._lock is not None:
            self._lock.serve(os.getpid())
            stack.callback(self._lock.leave)
        self.run_dir = RunDirectory.open(server._path, server._given_run_dir)
        stack.callback(self.run_dir.remove)
        self.store = server._store = await asyncio.to_thread(SqliteStore.open, server._path, settings.sqlite_pragmas)
        stack.callback(self._close_store)
        self.bus = server._events
        await self.bus.start()
        stack.push_async_callback(self.bus.stop)
        await self._set_plugins_up()
        self.table = _open_table(self.run_dir.beats_path)
        stack.callback(self.table.close)
        self._wire()
        self._address = format_address(await self._listener().start())
        stack.push_async_callback(self.listener.stop)
        await self.nursery.start()
        stack.push_async_callback(self.nursery.stop)
        self._start_guard()
        await self.guard.start()
        stack.push_async_callback(self.guard.stop)
        stack.push_async_callback(self._stop_work)
        server.workflows.attach(
            WorkflowsParts(
                self.store, self._clock, self.bus, self.dispatcher.poke, self._end, self._resume, self._stop_work
            )
        )
        await self._go_on()

    def _close_store(self) -> None:
        self.store.close()
        self._server._store = None

    async def _set_plugins_up(self) -> None:
        server = self._server
        self.core = ServerCore(
            config=server.config,
            logger=structlog.get_logger("paddock.plugin"),
            events=self.bus,
            workflows=server.workflows,
            db=plugin_connection(server._path, self._settings.sqlite_pragmas),
        )
        self._stack.push_async_callback(self.core.close)
        await set_up(server._plugin_list, self.core, self._settings.ready_timeout)
        self._stack.push_async_callback(
            tear_down,
            server._plugin_list,
            lambda name, error: _log.error("a plugin's teardown failed", plugin=name, error=repr(error)),
        )

    def _wire(self) -> None:
        server, settings = self._server, self._settings
        mode = "spawn" if settings.launcher == "spawn" else "fork"
        self.nursery = Nursery(
            mode, self.run_dir.beats_path, self._modules, lambda message: self.supervisor.exited(message)
        )
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
                freed=lambda: self.dispatcher.poke(),
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
                freed=lambda: self.dispatcher.poke(),
            )
        )
        self.dispatcher = Dispatcher(self.store, self._clock, self._wanted, self._launch, self._time_out)
        self.housekeeper = Housekeeper(
            self.store,
            self._clock,
            settings,
            Checkpointer(server._path, settings.sqlite_pragmas, LockFile.of(server._path)),
        )

    def _listener(self) -> Listener:
        address = (
            TcpAddress("127.0.0.1", 0) if self._settings.transport == "tcp" else UnixAddress(self.run_dir.socket_path)
        )
        self.listener = Listener(address, token=self.run_dir.token, on_peer=self._meet)
        return self.listener

    def _start_guard(self) -> None:
        self.guard = WatchdogKeeper(
            self._server._watchdog_config,
            address=self._address,
            token=self.run_dir.token,
            beats_path=self.run_dir.beats_path,
            trace_dir=self.run_dir.trace_dir,
            orphan_grace=self._settings.orphan_grace,
        )

    async def _go_on(self) -> None:
        """Take over from the last server, then let work begin."""
        await self.supervisor.take_over()
        now = self._clock.now()
        await self.store.block_unknown(self._server.workflows.registry.names, now)
        await self.store.unblock(now)
        if self._settings.resume == "skip":
            self._resume_after = await self.store.newest_instance()
        await self.housekeeper.start()
        self._stack.push_async_callback(self.housekeeper.stop)
        await self.dispatcher.start()
        if self._settings.resume == "blocking":
            self.dispatcher.poke()
            await self.dispatcher.idle.wait()

    async def _resume(self) -> None:
        self._resume_after = 0
        await self.store.unblock(self._clock.now())
        self.dispatcher.poke()

    async def _stop_work(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._server.workflows.attach(None)
        await self.dispatcher.stop()
        await asyncio.gather(self.supervisor.stop(), self.inline.stop(self._settings.kill_grace))

    async def close(self) -> None:
        """Stop everything in reverse order."""
        self._server.workflows.attach(None)
        await self._stack.aclose()

    # --- what the parts ask ---

    def _modules(self) -> list[str]:
        modules = list(self._server.workflows.registry.modules())
        modules += [text.module for text in self._server._plugin_texts]
        return list(dict.fromkeys(modules))

    def _wanted(self) -> Wanted:
        registered = list(self._server.workflows.registry)
        return Wanted(
            limits={known.definition.name: known.limit for known in registered},
            isolated=frozenset(known.definition.name for known in registered if known.isolated),
            capacity=self._settings.process_limit,
            after=self._resume_after,
        )

    def _launch(self, claim: Claim) -> None:
        (self.supervisor if claim.isolated else self.inline).launch(claim)  # type: ignore[attr-defined]

    def _spec(self, claim: Claim, slot: int) -> ChildSpec:
        server, settings = self._server, self._settings
        return ChildSpec(
            database=server._path,
            pragmas=settings.sqlite_pragmas,
            instance=claim.lease.instance,
            epoch=claim.lease.epoch,
            instance_id=claim.id,
            definition=server.workflows.registry.get(claim.workflow_name).path,
            plugins=server._plugin_texts,
            config=server.config,
            address=self._address,
            token=self.run_dir.token,
            transport=settings.transport,
            run_dir=self.run_dir.path,
            slot=slot,
            beat_interval=min(_BEAT_LONGEST, server._watchdog_config.interval / 2),
            ready_timeout=settings.ready_timeout,
            kill_grace=settings.kill_grace,
            orphan_grace=settings.orphan_grace,
            suspend_after=settings.suspend_after,
            max_payload=settings.max_payload,
            max_output=settings.max_output,
        )

    async def _end(self, lease: Lease, reason: str) -> None:
        await self.inline.end(lease)
        await self.supervisor.end(lease, reason)

    async def _time_out(self, ids: list[str]) -> None:
        """End instances whose workflow deadline has passed."""
        for ident in ids:
            error = ErrorInfo(type="WorkflowTimedOut", message="the workflow's timeout has passed")
            done, lease = await self.store.end(ident, Status.TIMED_OUT, self._clock.now(), error)
            if done:
                self.bus.poke()
            if lease is not None:
                task = asyncio.create_task(
                    self._end(lease, "the workflow's timeout has passed"), name="paddock-timeout"
                )
                self._late.add(task)
                task.add_done_callback(self._late.discard)

    @property
    def _late(self) -> set[asyncio.Task[None]]:
        return self.__dict__.setdefault("_late_tasks", set())

    async def _meet(self, connection: Connection, hello: Hello) -> None:
        if hello.role == "child":
            await self.supervisor.talk(connection, hello)
        elif hello.role == "watchdog":
            with contextlib.suppress(IpcError):
                while (message := await connection.receive()) is not None:
                    if isinstance(message, Stale):
                        connection.send(await self.supervisor.found_stale(message))
                    elif isinstance(message, Killed):
                        self.supervisor.was_killed(message)

    # --- looking ---

    def problems(self) -> dict[str, Any]:
        found: dict[str, Any] = dict(self.store.health())
        if self.dispatcher.trouble:
            found["dispatcher"] = self.dispatcher.trouble
        if self.housekeeper.trouble:
            found["housekeeper"] = self.housekeeper.trouble
        if self.nursery.unfit and self._settings.launcher == "fork":
            found["fork-server"] = (
                f"imported modules left threads behind ({', '.join(self.nursery.unfit)}); children are spawned"
            )
        if self.nursery.failures:
            found["imports"] = dict(self.nursery.failures)
        if not self._server._watchdog_config.enabled:
            found["watchdog"] = "switched off"
        return found

    def processes(self) -> list[dict[str, Any]]:
        import time

        now = time.monotonic_ns()
        rows = [_process("server", os.getpid())]
        for role, pid in (("watchdog", self.guard.pid), ("fork-server", self.nursery.pid)):
            if pid is not None:
                rows.append(_process(role, pid))
        for child in self.supervisor.children:
            if child.identity is None:
                continue
            view = self.table.read(child.slot)
            beat = round((now - view.last_beat_ns) / 1e9, 3) if view.last_beat_ns else None
            row = _process("child", child.identity.pid)
            rows.append({**row, "instance_id": child.instance_id, "step": view.step or None, "last_beat": beat})
        return [row for row in rows if row["rss"] is not None]


def _process(role: str, pid: int) -> dict[str, Any]:
    rss = cpu = None
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        times = process.cpu_times()
        rss, cpu = process.memory_info().rss, round(times.user + times.system, 3)
    return {"role": role, "pid": pid, "instance_id": None, "step": None, "rss": rss, "cpu": cpu, "last_beat": None}


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
