"""The application server as its user holds it: settings before the start, services while it runs.

Its parts are imported once there is one: the fork server imports what a user's script imports, and each child is a copy of it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from ..base.clock import Clock, SystemClock
from ..base.config import WatchdogConfig, WorkflowsConfig
from ..base.duration import DurationLike, parse_duration
from ..base.errors import ConfigError, ServerNotRunning
from ..base.values import plain_json, to_json
from ..child.main_module import MAIN_ALIAS
from ..engine.plugins import Plugin, Plugins, order_plugins, resolve_plugins
from ..store.database import Database
from ..store.schemes import database_of
from ..store.sql_store import SqlStore

if TYPE_CHECKING:
    from ..http.gate import Gate
    from ..http.served import Served
    from .bus import EventBus
    from .running import RunningServer
    from .settings import ServerSettings
    from .signalled import Farewell
    from .stacks import Stacks

__all__ = ["AppServer"]


class AppServer:
    """Run durable workflows, each instance in a process of its own.

    Use it as an async context manager, or call `start` and `stop`.

    Args:
        db: where everything is kept: the path of a SQLite file (a symlink or a relative path to it is that database), a URL such as
            ``"postgresql://user@host/name"``, or a `paddock.stores.Database`.
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
        db: str | Path | Database,
        *,
        plugins: Sequence[Plugin[Any] | str] = (),
        config: dict[str, Any] | None = None,
        workflows: WorkflowsConfig | None = None,
        watchdog: WatchdogConfig | None = None,
        run_dir: str | Path | None = None,
    ) -> None:
        """Hold the settings; nothing is opened or started yet."""
        from .bus import EventBus
        from .logs import Logs
        from .settings import LentStore
        from .workflows import Workflows

        self.config = config if config is not None else {}
        if not isinstance(self.config, dict):
            raise ConfigError(f"config must be a dict, not {type(self.config).__name__}")
        self.config = plain_json(to_json(self.config, "AppServer(config=…)"))  # the same here as in every child
        self._database = database_of(db)
        self._given_run_dir = run_dir
        self._settings = workflows or WorkflowsConfig()
        if self._database.in_process and self._settings.launcher != "inline":
            raise ConfigError(
                f"db={self._database.name!r} can be reached by this process alone, and children could not; "
                'name a file, or run inline: WorkflowsConfig(launcher="inline")'
            )
        self._watchdog_config = watchdog or WatchdogConfig()
        self._clock: Clock = SystemClock()
        self._plugin_list = order_plugins(resolve_plugins(plugins))
        self._running: RunningServer | None = None
        self._ending: RunningServer | None = None
        self._started_at: float | None = None
        self._changing: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None
        self._lent = LentStore()
        self.plugins = Plugins(self._plugin_list)
        self.workflows = Workflows(self._settings, watched=self._watchdog_config.enabled)
        self.logs = Logs(self._lent.opened)
        self._events = EventBus(cast("SqlStore", self._lent))

    @property
    def events(self) -> EventBus:
        """The event bus."""
        return self._events

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
        async with self._turn():
            if self._running is None:
                await self._start()

    def _turn(self) -> asyncio.Lock:
        """Return the lock that makes one start or stop wait for the other; a new event loop gets one of its own."""
        loop = asyncio.get_running_loop()
        if self._changing is None or self._changing[0] is not loop:
            self._changing = loop, asyncio.Lock()
        return self._changing[1]

    async def _start(self) -> None:
        if sys.modules["__main__"].__name__ == MAIN_ALIAS:
            raise ServerNotRunning(
                "this script starts a server when it is imported, and a child process has just imported it; "
                'put the start under `if __name__ == "__main__":`'
            )
        from .running import RunningServer

        running = RunningServer(self._parts())
        try:
            await running.start()
        except BaseException:
            await running.close()
            raise
        self._running = running
        self._started_at = time.time()

    def _parts(self) -> ServerSettings:
        from .settings import ServerSettings

        return ServerSettings(
            database=self._database,
            run_dir=self._given_run_dir,
            config=self.config,
            workflows_config=self._settings,
            watchdog_config=self._watchdog_config,
            clock=self._clock,
            plugin_list=self._plugin_list,
            plugins=self.plugins,
            workflows=self.workflows,
            bus=self._events,
            lent=self._lent,
        )

    async def stop(self, *, handover: bool = False) -> None:
        """End every process, resumable, and let go of everything. Idempotent.

        Nothing more is claimed, and running instances get `kill_grace` to reach a step's boundary first.

        Args:
            handover: leave the children running, with the watchdog over them, for the next server on this database. It has to come
                within `orphan_grace`; it adopts them with their pids, and no step is lost or begun again. Instances that run inline end
                as without it.
        """
        async with self._turn():
            running, self._running = self._running, None
            if running is not None:
                self._ending = running
                try:
                    await running.close(handover=handover)
                finally:
                    self._ending = None

    def hurry(self) -> None:
        """Cut the grace of a stop that is under way: what still runs is ended at once, resumable. Else nothing happens."""
        if self._ending is not None:
            self._ending.hurry()

    async def serve_until_signalled(
        self, *, beside: Callable[[], AbstractAsyncContextManager[Any]] | None = None
    ) -> Farewell:
        """Start, serve until a signal comes, and stop as it wants. For programs that do nothing but serve.

        SIGTERM and SIGINT stop (a second one without any grace, a third one ends the process); SIGHUP stops with `handover=True`, after
        which the program is expected to execute itself anew. Where its main module cannot be imported any more, SIGHUP does nothing but log why.

        Args:
            beside: makes a context that is entered once the server runs and left before it stops, for instance an HTTP front end.

        Returns:
            How it ended: ``"stopped"`` or ``"handed over"``.
        """
        from .signalled import serve_until_signalled

        return await serve_until_signalled(self, beside)

    def serve(self, *, beside: Callable[[], AbstractAsyncContextManager[Any]] | None = None) -> None:
        """Run an event loop that serves until a signal comes; see `serve_until_signalled`. Blocks, and is the last thing a program does.

        After a SIGHUP the program is executed anew in the same process, and its next server takes the children over: new code, the same
        pids, no step lost. New code that cannot be imported is refused with a line in the log, and the old one serves on.

        Raises:
            MachineError: the interpreter cannot be executed anew.
        """
        from .signalled import serve_program

        serve_program(self, beside)

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        await self.stop()

    # --- over HTTP ---

    def asgi(self, *, token: str | None = None, allowed_hosts: Iterable[str] = ()) -> Gate:
        """Return the HTTP API, the page and the metrics as an ASGI application, to mount under a prefix or to serve by itself.

        Mounted, it answers while the server is started: `lifespan` does that with the application. By itself it starts and stops the
        server with its own life.

        Args:
            token: what callers must show; without one only loopback is answered, under a loopback name.
            allowed_hosts: further names under which it is reached, such as "ops.example.com". "*" leaves it to the application around
                it to decide who may call: every name is answered, and without a token every peer.
        """
        from ..http.app import create_app

        return create_app(self._served(), token=token, hosts=allowed_hosts, lifespan=self.lifespan)

    @asynccontextmanager
    async def lifespan(self, app: Any = None) -> AsyncIterator[None]:
        """Start the server with an application and stop it with it: `FastAPI(lifespan=server.lifespan)`."""
        async with self:
            yield

    def _served(self) -> Served:
        from ... import __version__
        from ..http.served import Served

        return Served(
            workflows=self.workflows,
            events=self._events,
            logs=self.logs,
            store=self._lent.opened,
            processes=self.processes,
            stacks=self.stacks,
            health=self.health,
            settings=self._settings,
            database=self._database.label,
            version=__version__,
            started_at=lambda: self._started_at if self._running is not None else None,
        )

    # --- looking ---

    async def processes(self) -> list[dict[str, Any]]:
        """Return what runs for this server.

        Each row has `role` (server, watchdog, fork-server, child), `pid`, `instance_id`, `step`, `rss` (bytes), `cpu` (seconds used)
        and `last_beat` (seconds since the last heartbeat).
        """
        if self._running is None:
            return []
        return await asyncio.to_thread(self._running.processes)

    async def stacks(self, id: str, *, timeout: DurationLike = 3.0) -> Stacks:
        """Return what all threads of a running instance's process are doing, in the words of a traceback; it goes on undisturbed.

        Raises:
            InstanceNotFound: there is no such instance.
            InvalidTransition: it has no process of its own now.
            MachineError: its process has only begun, is dead, or does not answer within `timeout`.
        """
        from .stacks import holder, stacks_of

        store, running = self._lent.opened(), self._running
        if running is None:
            raise ServerNotRunning("the server is not started")
        found = await store.view(holder, id)
        return await asyncio.to_thread(stacks_of, found, running.run_dir.path, parse_duration(timeout))

    async def health(self) -> dict[str, Any]:
        """Return `{"ok": bool, "problems": {part: what is wrong}}`."""
        if self._running is None:
            return {"ok": False, "problems": {"server": "not started"}}
        problems = self._running.problems()
        return {"ok": not problems, "problems": problems}
