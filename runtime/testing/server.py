"""A server in memory: the same store, engine, bus and services, in this process, with a clock that jumps."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..base.config import SqlitePragmas, WorkflowsConfig
from ..base.errors import ServerNotRunning
from ..base.log import get_logger
from ..base.records import ErrorInfo, Status
from ..engine.definition import WorkflowLike
from ..engine.plugins import Plugin, Plugins, order_plugins, resolve_plugins, set_up, tear_down
from ..server.bus import EventBus
from ..server.census import process_row
from ..server.core import ServerCore
from ..server.dispatcher import Dispatcher
from ..server.inline import InlineParts, InlineRunner
from ..server.logs import Logs
from ..server.scheduler import Scheduler
from ..server.stacks import Stacks, holder, stacks_of
from ..server.steering import WorkflowsParts
from ..server.workflows import Workflows
from ..store.admission import Wanted
from ..store.core_db import plugin_connection
from ..store.ops import Lease
from ..store.sqlite import MemoryStore
from .clock import ManualClock

if TYPE_CHECKING:
    from ..http.gate import Gate
    from ..http.served import Served

__all__ = ["MemoryServer", "server"]


def server(
    *,
    plugins: Sequence[Plugin[Any] | str] = (),
    config: dict[str, Any] | None = None,
    workflows: WorkflowsConfig | None = None,
    register: Sequence[WorkflowLike] = (),
) -> MemoryServer:
    """Return a server in memory: ``async with paddock.testing.server() as server``.

    Everything runs inline. Sleeps, delays and retries end at once, because the clock jumps over them when nothing else can go on; a
    wait for a signal ends by the signal, or by ``server.clock.advance("7d")`` where it has a timeout.

    Args:
        plugins: as for `AppServer`.
        config: reaches handlers as ``ctx.core.config``.
        workflows: limits and the like; launcher, transport and processes do not count here.
        register: definitions to register.
    """
    made = MemoryServer(plugins, config or {}, workflows or WorkflowsConfig())
    for definition in register:
        made.workflows.register(definition)
    return made


class MemoryServer:
    """`AppServer` in memory: `workflows`, `events`, `logs`, `plugins`, `config`, `asgi()` and `lifespan`; and `clock`."""

    def __init__(
        self,
        plugins: Sequence[Plugin[Any] | str],
        config: dict[str, Any],
        settings: WorkflowsConfig,
        store: MemoryStore | None = None,
    ) -> None:
        """Hold the settings; nothing runs yet."""
        self.config = config
        self.clock = ManualClock()
        self._settings = settings.model_copy(update={"launcher": "inline"})
        self._plugin_list = order_plugins(resolve_plugins(plugins))
        self._store = store or MemoryStore()
        self._lent = store is not None
        self._stack = AsyncExitStack()
        self._jumper: asyncio.Task[None] | None = None
        self._started_at: float | None = None
        self.plugins = Plugins(self._plugin_list)
        self.workflows = Workflows(self._settings, watched=None)
        self.events = EventBus(self._store)
        self.logs = Logs(lambda: self._store)

    async def start(self) -> None:
        """Set plugins up and begin to run."""
        stack, store = self._stack, self._store
        stack.push_async_callback(asyncio.to_thread, store.close)
        await self.events.start()
        stack.push_async_callback(self.events.stop)
        core = ServerCore(
            config=self.config,
            logger=get_logger("paddock.plugin"),
            events=self.events,
            workflows=self.workflows,
            db=plugin_connection(":memory:", SqlitePragmas()),
        )
        stack.push_async_callback(core.close)
        await set_up(self._plugin_list, core, self._settings.ready_timeout)
        stack.push_async_callback(tear_down, self._plugin_list)
        self._wire(core)
        await self._dispatcher.start()
        stack.push_async_callback(self._stop_work)
        self._jumper = asyncio.create_task(self._jump(), name="paddock-test-clock")
        self._started_at = self.clock.now()

    def _wire(self, core: ServerCore) -> None:
        registry = self.workflows.registry
        self._names: frozenset[str] = frozenset()
        self._scheduler = Scheduler(self._store, self.clock, registry)
        self._inline = InlineRunner(
            InlineParts(
                store=self._store,
                clock=self.clock,
                config=self._settings,
                registry=registry,
                plugins=lambda: self.plugins,
                core=core,
                committed=self.events.poke,
                freed=self._queued,
                quiet=_QUIET,
                complains=not self._lent,
            )
        )
        self._dispatcher = Dispatcher(
            self._store, self.clock, self._wanted, self._inline.launch, self._time_out, self._before_claim
        )
        self.clock.moved = self._dispatcher.poke
        self.workflows.attach(
            WorkflowsParts(
                store=self._store,
                clock=self.clock,
                bus=self.events,
                admit=lambda: False,
                queued=self._queued,
                end=self._end,
                nudge=self._inline.nudge,
                drain=self._inline.drain,
                resume=self._resume,
                stop=self._stop_work,
            )
        )

    async def stop(self) -> None:
        """Stop what runs and forget everything."""
        self._started_at = None
        self.workflows.attach(None)
        await self._stack.aclose()

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

    def asgi(self, *, token: str | None = None, allowed_hosts: Iterable[str] = ("*",)) -> Gate:
        """Return the application that `AppServer.asgi` returns, to be called by a test's client without a socket.

        Args:
            token: what callers must show.
            allowed_hosts: as there; all by default, for the name and the address of a test's client are made up.
        """
        from ..http.app import create_app

        return create_app(self._served(), token=token, hosts=allowed_hosts, lifespan=self.lifespan)

    @asynccontextmanager
    async def lifespan(self, app: Any = None) -> AsyncIterator[None]:
        """Start the server with an application and stop it with it."""
        async with self:
            yield

    def _served(self) -> Served:
        from ... import __version__
        from ..http.served import Served

        return Served(
            workflows=self.workflows,
            events=self.events,
            logs=self.logs,
            store=self._opened,
            processes=self.processes,
            stacks=self.stacks,
            health=self.health,
            settings=self._settings,
            database=":memory:",
            version=__version__,
            started_at=lambda: self._started_at,
        )

    def _opened(self) -> MemoryStore:
        if self._started_at is None:
            raise ServerNotRunning("the server is not started")
        return self._store

    async def processes(self) -> list[dict[str, Any]]:
        """Return what runs for this server: itself."""
        return [] if self._started_at is None else [process_row("server", os.getpid())]

    async def stacks(self, id: str) -> Stacks:
        """Raise `InvalidTransition`: everything runs in the test's own process."""
        return stacks_of(await self._opened().view(holder, id), "", 0.0)

    async def health(self) -> dict[str, Any]:
        """Return that all is well, once it is started."""
        problems = {} if self._started_at is not None else {"server": "not started"}
        return {"ok": not problems, "problems": problems}

    async def _stop_work(self) -> None:
        if self._jumper is not None:
            self._jumper.cancel()
            await asyncio.wait({self._jumper})
            self._jumper = None
        await self._dispatcher.stop()
        await self._inline.stop(0.0)

    def _queued(self) -> None:
        self.events.poke()
        self._dispatcher.poke()

    def _wanted(self) -> Wanted:
        registry = self.workflows.registry
        registry.add_actions()
        known = list(registry)
        return Wanted(
            limits={one.definition.name: one.limit for one in known},
            isolated=frozenset(),
            capacity=self._settings.process_limit,
            keyed=frozenset(one.definition.name for one in known if one.key is not None),
            rates={one.definition.name: one.rate for one in known if one.rate is not None},
        )

    async def _before_claim(self) -> float | None:
        registry = self.workflows.registry
        registry.add_actions()
        if not registry.names <= self._names:
            for name in registry.names - self._names:
                await self._store.unblock(self.clock.now(), workflow_name=name)
            self._names = registry.names
        await self._store.block_unknown(registry.names, self.clock.now())
        for known in registry:
            if known.key is not None:
                await self._store.fill_keys(known.definition.name, known.key_of)
        return await self._scheduler.tick()

    async def _end(self, lease: Lease, _reason: str) -> None:
        await self._inline.end(lease)

    async def _resume(self) -> None:
        await self._store.unblock(self.clock.now())
        self._dispatcher.poke()

    async def _time_out(self, ids: list[str]) -> None:
        for ident in ids:
            error = ErrorInfo(type="WorkflowTimedOut", message="the workflow's timeout has passed")
            _, leases = await self._store.end(ident, Status.TIMED_OUT, self.clock.now(), error)
            self.events.poke()
            for lease in leases:
                await self._inline.end(lease)

    async def _next_moment(self) -> float | None:
        """Return when the next sleeper wakes, its workflow's timeout passes before, or a rate lets somebody in."""
        now = self.clock.now()
        rates = {one.definition.name: one.rate[1] for one in self.workflows.registry if one.rate is not None}
        counts = await self._store.count_by_status() if rates else {}
        moments = [now + rates[name] for name, held in counts.items() if name in rates and held.get("pending")]
        if (wake_at := await self._store.next_sleeper()) is not None:
            moments.append(wake_at)
        if not moments:
            return None
        _, deadline = await self._store.overdue(now)
        return min([*moments, *([deadline] if deadline is not None else [])])

    async def _jump(self) -> None:
        """When nothing runs and nothing can begin, move the clock to where something can go on."""
        while True:
            await self._dispatcher.idle.wait()
            wake_at = None if self._inline.busy else await self._next_moment()
            if wake_at is not None and not self._inline.busy and self._dispatcher.idle.is_set():
                self._dispatcher.idle.clear()
                self.clock.advance(max(0.0, wake_at - self.clock.now()))
            else:
                await asyncio.sleep(_LOOK_SOON if self._inline.busy else _LOOK)


_LOOK, _LOOK_SOON, _QUIET = 0.005, 0.0005, 0.003
