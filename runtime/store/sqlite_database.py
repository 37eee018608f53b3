"""The kinds of database that need nothing but the standard library: a SQLite file, and one in memory."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

from ..base.config import SqlitePragmas
from ..base.errors import ConfigError
from .checkpoint import Checkpointer
from .database import Database, NoLock, ServerLock
from .reading import Reader, open_reader
from .space import low_space
from .sql_store import SqlStore
from .sqlite import MemoryStore, SqliteStore, real_path
from .transaction import Transaction
from .turn import LockFile, ServerNote, read_note

__all__ = ["MemoryDatabase", "SqliteDatabase"]


class SqliteDatabase(Database):
    """A file; a symlink or a relative path to it is that file.

    Args:
        url: ``"app.db"``, or ``"sqlite://app.db"``, ``"sqlite:///srv/app.db"``: what stands behind the two slashes is the path.
    """

    waits_open: ClassVar[bool] = True
    preload: ClassVar[tuple[str, ...]] = ("paddock.runtime.store.core_db",)

    def __init__(self, url: str | Path) -> None:
        """Hold the path; nothing is opened."""
        text = os.fspath(url)
        path = text.partition("://")[2] if "://" in text else text
        if not path:
            raise ConfigError(f"db={text!r} names no file")
        self.path = real_path(path)
        super().__init__(self.path)

    @property
    def rest(self) -> str:
        """Return the path."""
        return self.path

    @property
    def address(self) -> str:
        """Return the path; of a class that builds on this one, what names it too."""
        return self.path if type(self) is SqliteDatabase else super().address

    @property
    def name(self) -> str:
        """Return the path."""
        return self.path

    def lock(self, pragmas: SqlitePragmas) -> ServerLock:
        """Return the lock file beside it."""
        return LockFile.of(self.path)

    def open(self, pragmas: SqlitePragmas, lock: Any = None) -> SqlStore:
        """Make or open the file; raises DatabaseTooNew, DatabaseDamaged, DatabaseUnavailable."""
        return SqliteStore.open(self.path, pragmas)

    def upkeep(self, pragmas: SqlitePragmas) -> Checkpointer:
        """Return the one checkpointer."""
        return Checkpointer(self.path, pragmas, LockFile.of(self.path))

    def low_space(self) -> str | None:
        """Return a complaint where its disk is almost full."""
        return low_space(self.path)

    def open_child(self, pragmas: SqlitePragmas) -> SqlStore:
        """Open the file as it is; raises DatabaseDamaged, DatabaseUnavailable."""
        return SqliteStore(self.path, pragmas, child=True)

    def core_db(self, pragmas: SqlitePragmas) -> Any:
        """Return a connection of aiosqlite's, opened at its first use."""
        from .core_db import plugin_connection  # the command line looks at databases, and never needs it

        return plugin_connection(self.path, pragmas)

    def reader(self) -> AbstractContextManager[Reader]:
        """Open the file for reading only; raises DatabaseUnavailable, DatabaseDamaged, DatabaseTooNew."""
        return open_reader(self.path)

    def note(self) -> ServerNote | None:
        """Return what its lock file tells."""
        return read_note(self.path)

    def open_offline(self) -> SqlStore:
        """Open the file as it is, with one connection."""
        return SqliteStore(self.path, SqlitePragmas(), reader=False)

    def is_served(self, tx: Transaction) -> bool:
        """Tell whether a server holds the lock file."""
        return bool(LockFile.of(self.path).holder())

    def tidy(self) -> None:
        """Remove a lock file that this process has made."""
        LockFile.of(self.path).tidy()


class MemoryDatabase(Database):
    """One in memory, gone with its server: for inline work and for trying things out."""

    in_process: ClassVar[bool] = True

    def __init__(self, url: str = "memory://") -> None:
        """Make none yet."""
        super().__init__(url)
        self._store: MemoryStore | None = None

    @property
    def name(self) -> str:
        """Return what it is."""
        return ":memory:"

    @property
    def identity(self) -> str:
        """Return a name that no other has while this one lives."""
        return f":memory:{os.getpid()}:{id(self)}"

    def lock(self, pragmas: SqlitePragmas) -> ServerLock:
        """Return a lock on nothing: nobody else can reach it."""
        return NoLock()

    def open(self, pragmas: SqlitePragmas, lock: Any = None) -> SqlStore:
        """Make an empty one."""
        return MemoryStore()

    def open_child(self, pragmas: SqlitePragmas) -> SqlStore:
        """Refuse."""
        raise ConfigError('a database in memory has no other process; use launcher="inline", or a file')

    def core_db(self, pragmas: SqlitePragmas) -> Any:
        """Return a connection to another database in memory, the plugins' own."""
        from .core_db import plugin_connection

        return plugin_connection(":memory:", pragmas)
