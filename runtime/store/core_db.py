"""`core.db` on SQLite: a connection for plugins' own tables."""

from __future__ import annotations

import sqlite3
from typing import Any

import aiosqlite

from ..base.config import SqlitePragmas
from .worker import open_connection

__all__ = ["plugin_connection"]


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
