"""What every child works with, whichever its instance is: its database, the table of beats, an event loop.

A standby makes it before its order; any other child, and one whose order says otherwise, when it needs it. Nothing of it is an effect:
the database is open, no transaction is, and no slot is written to.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

from ...watchdog.beats import BeatTable
from ..store.database import Database
from ..store.schemes import database_of
from ..store.sql_store import SqlStore
from .spec import ChildSpec, Needs

__all__ = ["Outfit"]


class Outfit:
    """One process's, made piece by piece.

    Args:
        needs: what is known of it before the order.
    """

    def __init__(self, needs: Needs | None = None) -> None:
        """Make nothing yet."""
        self._needs = needs
        self._database: tuple[Database, SqlStore] | None = None
        self._table: BeatTable | None = None
        self._runner: asyncio.Runner | None = None

    def make_ahead(self, statements: Iterable[str]) -> None:
        """Make what can be made before the order; what cannot be had now fails where it is needed, and says why there.

        `statements` are what will be executed on the database.
        """
        needs = self._needs
        if needs is None:
            return
        with contextlib.suppress(Exception):
            database = database_of(needs.database)
            if database.waits_open:
                store = database.open_child(needs.pragmas)
                self._database = database, store
                store.prepare(statements)
        with contextlib.suppress(Exception):
            self._table = BeatTable.open(needs.beats_path)
        self._runner = asyncio.Runner()
        self._runner.get_loop()

    def database(self, spec: ChildSpec) -> tuple[Database, SqlStore]:
        """Return the database and the store for one executor; raises DatabaseDamaged, DatabaseUnavailable."""
        made, self._database = self._database, None
        if made is not None and self._needs is not None:
            if (self._needs.database, self._needs.pragmas) == (spec.database, spec.pragmas):
                return made
            made[1].close()
        database = database_of(spec.database)
        return database, database.open_child(spec.pragmas)

    def table(self, spec: ChildSpec) -> BeatTable:
        """Return the table of beats; raises BeatTableError, OSError."""
        return self._table if self._table is not None else BeatTable.open(spec.beats_path)

    def runner(self) -> asyncio.Runner:
        """Return what runs the loop; it is never closed: that would wait for handlers that do not let themselves be cancelled."""
        return self._runner if self._runner is not None else asyncio.Runner()
