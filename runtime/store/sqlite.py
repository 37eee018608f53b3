"""The SQLite store: a file, or one in memory."""

from __future__ import annotations

import os
import shlex
import sqlite3
from pathlib import Path

from ..base.config import SqlitePragmas
from ..base.errors import DatabaseDamaged, DatabaseUnavailable
from ..base.log import get_logger
from ..base.private import open_to_others
from .flush import FlushPosition
from .journal import Journal
from .migrations import migrate, read_version, tables
from .ops import Lease
from .sql_store import SqlStore
from .thread import ConnectionThread
from .turn import LockFile
from .worker import Worker, explain, open_connection

__all__ = ["BESIDE", "MemoryStore", "SqliteStore", "real_path"]

#: What SQLite keeps beside a database, with its mode.
BESIDE = ("-wal", "-shm")
#: How a connection is opened that `flush.py` syncs for; a rehearsal's "OFF" goes the same way, and waits for nothing.
_OPENED = {"FULL": "NORMAL", "EXTRA": "NORMAL", "OFF": "OFF"}
_log = get_logger("paddock.store")


def real_path(database: str | Path) -> str:
    """Return the one name of a database: a symlink or a relative path to it is that database."""
    return os.path.realpath(os.fspath(database))


class SqliteStore(SqlStore):
    """One database file, opened by one process.

    Args:
        path: the database's real path.
        pragmas: how it is opened.
        reader: have a second connection for reads, so that they never wait for the write lock (the server's way).
        child: have one connection, and wait while the disk is full instead of raising.
    """

    def __init__(self, path: str, pragmas: SqlitePragmas, *, reader: bool = True, child: bool = False) -> None:
        """Open the database; see `open_store` for the server's checks.

        Raises:
            DatabaseDamaged: it is not a database.
            DatabaseUnavailable: it cannot be opened.
        """
        is_file = path != ":memory:"
        level = _OPENED.get(pragmas.synchronous) if is_file else None
        self._pragmas = pragmas.model_copy(update={"synchronous": level}) if level else pragmas
        connection = open_connection(path, self._pragmas)
        self._position = FlushPosition(path, syncs=level == "NORMAL") if level else None
        turn = LockFile.of(path) if is_file else None
        self._sqlite = Worker(connection, path, turn=turn, position=self._position, patient=child)
        has_reader = reader and is_file and not child
        super().__init__(path, self._sqlite, self._open_reader(path) if has_reader else self._sqlite)
        if has_reader:
            self._follower = self._open_reader(path)  # its own: who reads on waits for nobody who waits for the disk

    @classmethod
    def open(cls, path: str, pragmas: SqlitePragmas) -> SqliteStore:
        """Make or open a database, bring its schema to this version, and check what it is. For the server.

        Raises:
            DatabaseTooNew: a later Paddock wrote it.
            DatabaseDamaged: it is not a database, or its structure is broken; the file is left as it is.
            DatabaseUnavailable: it cannot be made or opened.
        """
        _make_private(path)
        connection = open_connection(path, pragmas)
        try:
            _check(connection, path, read_version(connection, path))
            migrate(connection, path)
        except sqlite3.Error as error:
            raise explain(error, path) from None
        finally:
            connection.close()
        made = cls(path, pragmas)
        _warn_if_open_to_others(path)
        return made

    def load_now(self, lease: Lease, holder: tuple[int, int, str]) -> Journal:
        """Do it without waiting for the disk.

        Who holds a lease need outlive no power cut, for nobody does. The first commit takes it along to the disk.
        """
        with self._sqlite.unsynced():
            return super().load_now(lease, holder)

    def on_disk(self, event_id: int) -> None:
        """Hear that the disk has everything up to an event."""
        if self._position is not None:
            self._position.note(event_id)

    @property
    def _told_up_to(self) -> int | None:
        return self._position.up_to if self._position is not None else None

    def close(self) -> None:
        """Finish what is under way and close the connections."""
        super().close()
        if self._position is not None:
            self._position.close()

    def _open_reader(self, path: str) -> Worker:
        connection = open_connection(path, self._pragmas, read_only=True)
        return Worker(connection, path, turn=None, position=self._position, writer=self._sqlite)

    def _make_viewer(self) -> ConnectionThread:
        return self._open_reader(self.path)


class MemoryStore(SqliteStore):
    """The same store on a database in memory, for inline work and tests: nothing outlives the process."""

    def __init__(self) -> None:
        """Make an empty database."""
        super().__init__(":memory:", SqlitePragmas())
        self._writer.call_now(_migrate_memory)


def _migrate_memory(tx: sqlite3.Connection) -> None:
    tx.execute("COMMIT")
    migrate(tx, ":memory:")
    tx.execute("BEGIN IMMEDIATE")


def _make_private(path: str) -> None:
    """Create the file 0600 where it is missing: SQLite would leave it to the umask, and -wal and -shm follow its mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        raise DatabaseUnavailable(
            f"{path} cannot be created: {error.strerror}. Name a file in a folder that exists and is writable."
        ) from None


def _warn_if_open_to_others(path: str) -> None:
    """Warn of files that a restored backup has left open to others: what SQLite makes beside the database is as open as that.

    They are left as they are: somebody may want a group to read them.
    """
    if wide := open_to_others((path, *(path + suffix for suffix in BESIDE))):
        files = " ".join(map(shlex.quote, wide))
        _log.warning(
            "others on this machine may open the database, and all inputs and results in it",
            files=", ".join(f"{name} (mode {mode})" for name, mode in wide.items()),
            mend=f"chmod 600 {files}",
        )


def _check(connection: sqlite3.Connection, path: str, version: int) -> None:
    names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    missing = tables(version) - names
    if missing:
        raise DatabaseDamaged(f"{path} lacks {', '.join(sorted(missing))}: it was damaged. Restore a backup.")
