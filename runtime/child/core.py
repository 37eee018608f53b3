"""The child's `core`: what plugins and handlers get of their process."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiosqlite

from ..authoring.action import Action, as_action
from ..base.config import SqlitePragmas
from ..base.records import Event
from ..engine.definition import Definition, WorkflowLike, definition_of
from ..engine.logs import StepLogger
from ..store.sqlite import SqliteStore
from ..store.worker import open_connection

__all__ = ["ChildCore", "QuietEvents", "plugin_connection"]


class _LazyConnection(aiosqlite.Connection):
    """Opens itself at the first use: most children never touch it, and a connection costs a thread."""

    @property
    def opened(self) -> bool:
        """Tell whether it was ever used: from then on it may hold the write lock until the loop comes round to its commit."""
        return self._connection is not None

    @property
    def _conn(self) -> sqlite3.Connection:
        # Opened here, in the caller's thread: aiosqlite looks up what to call before it hands it to its own.
        if self._connection is None and self._running:
            self._connection = self._connector()
            thread: Any = getattr(self, "_thread", self)
            thread.daemon = True  # a program that ends without a stop must not wait for it
            thread.start()  # up to 0.21 the connection is the thread
        return super()._conn

    async def _execute(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        _ = self._conn
        return await super()._execute(fn, *args, **kwargs)  # type: ignore[no-untyped-call]  # aiosqlite leaves it untyped

    async def close(self) -> None:
        """Close the connection where it was ever opened."""
        if self._connection is not None:
            await super().close()
        else:
            self._running = False


def plugin_connection(path: str, pragmas: SqlitePragmas) -> _LazyConnection:
    """Return a connection for plugins' own tables; its transactions begin IMMEDIATE, for a deferred one can be refused at once."""

    def connect() -> sqlite3.Connection:
        connection = open_connection(path, pragmas)
        connection.isolation_level = "IMMEDIATE"
        return connection

    return _LazyConnection(connect, iter_chunk_size=64)


class QuietEvents:
    """The event bus as a child has it: it takes subscriptions and delivers nothing, for the server's bus delivers everything once."""

    def __init__(self, store: SqliteStore) -> None:
        """Read history from the store."""
        self._store = store

    def on(self, pattern: str, handler: Callable[[Event], Any]) -> Callable[[], None]:
        """Accept a subscription that only the server serves; return what would end it."""
        return lambda: None

    async def history(
        self,
        pattern: str = "*",
        *,
        instance_id: str | None = None,
        after: int = 0,
        before: int | None = None,
        limit: int = 100,
        reverse: bool = False,
    ) -> list[Event]:
        """Return events from the store."""
        return await self._store.events(
            after, limit, pattern=pattern, instance_id=instance_id, before=before, backwards=reverse
        )

    async def subscribe(self, pattern: str = "*", **_options: Any) -> AsyncIterator[Event]:
        """Deliver nothing; subscribe in the server."""
        for event in list[Event]():
            yield event


class ChildCore:
    """`core` in a child."""

    role = "child"

    def __init__(
        self, *, store: SqliteStore, path: str, pragmas: SqlitePragmas, config: dict[str, Any], logger: StepLogger
    ) -> None:
        """Hold the parts; the plugins' connection opens at its first use."""
        self.config = config
        self.logger = logger
        self.events = QuietEvents(store)
        self.db = plugin_connection(path, pragmas)
        self.definitions: dict[str, Definition] = {}

    def register(self, definition: WorkflowLike, **_options: Any) -> None:
        """Know a workflow that a plugin brings."""
        found: Definition = definition_of(definition)
        self.definitions[found.name] = found

    def schedule(self, name: str, function: Callable[[], Any], *, every: Any = None, cron: str | None = None) -> None:
        """Do nothing: schedules run in the server only."""

    def action(self, function: Callable[..., Any], *, name: str | None = None) -> Action[Any, Any]:
        """Know an action that a plugin brings."""
        made = as_action(function, name)
        self.register(made.__paddock_definition__)
        return made
