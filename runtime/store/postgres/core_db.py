"""`core.db` on PostgreSQL: an asynchronous connection of psycopg's for plugins' own tables."""

from __future__ import annotations

from typing import Any

import psycopg

from .faults import explain
from .session import Target

__all__ = ["CoreDb"]


class CoreDb:
    """Connects at the first use, and again where the connection was lost: most children never touch it.

    It is used as on SQLite: `execute`, `executemany`, `commit`, `rollback`; placeholders are psycopg's (`%s`). `connection` gives psycopg's
    own, for all that it can beside. Transactions are the plugin's: they take no lock of Paddock's.
    """

    #: It never holds the writers' lock, so nobody need wait for what a plugin has open here.
    opened = False

    def __init__(self, target: Target) -> None:
        """Hold the target."""
        self._target = target
        self._made: psycopg.AsyncConnection[Any] | None = None

    async def connection(self) -> psycopg.AsyncConnection[Any]:
        """Return the connection, made where there is none.

        Raises:
            DatabaseUnavailable: it cannot be made.
        """
        if self._made is None or self._made.closed:
            try:
                self._made = await psycopg.AsyncConnection.connect(
                    self._target.url, client_encoding="UTF8", application_name="paddock-plugin"
                )
            except psycopg.Error as error:
                raise explain(error, self._target.name) from None
        return self._made

    async def execute(self, statement: Any, values: Any = None) -> psycopg.AsyncCursor[Any]:
        """Run a statement in the open transaction, or begin one; raises psycopg.Error."""
        return await (await self.connection()).execute(statement, values)

    async def executemany(self, statement: Any, rows: Any) -> psycopg.AsyncCursor[Any]:
        """Run a statement for each row of values; raises psycopg.Error."""
        cursor = (await self.connection()).cursor()
        await cursor.executemany(statement, rows)
        return cursor

    async def commit(self) -> None:
        """Commit the open transaction; raises psycopg.Error."""
        if self._made is not None:
            await self._made.commit()

    async def rollback(self) -> None:
        """Roll the open transaction back; raises psycopg.Error."""
        if self._made is not None:
            await self._made.rollback()

    async def close(self) -> None:
        """Close the connection where there is one; an open transaction is rolled back."""
        if self._made is not None:
            made, self._made = self._made, None
            await made.close()
