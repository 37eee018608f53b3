"""The single checkpointer: the server, now and then, while it holds the write lock.

SQLite before 3.51.3 can damage a database when a checkpoint races a commit that resets the WAL. So automatic checkpoints are off on
every connection, and this one holds the write lock on a second connection while the first moves pages: no commit can come between.
A WAL that grows nevertheless means that some reader holds an old snapshot; that is reported.
"""

from __future__ import annotations

import os
import sqlite3

from ..base.config import SqlitePragmas
from ..base.probes import reach
from .turn import LockFile
from .worker import open_connection

__all__ = ["Checkpointer"]

_ALARM_BYTES = 256 * 2**20


class Checkpointer:
    """Move the WAL's pages into the database file."""

    def __init__(self, path: str, pragmas: SqlitePragmas, turn: LockFile) -> None:
        """Open two connections: one that holds the lock, one that moves the pages."""
        self._path = path
        self._turn = turn
        self._holder = open_connection(path, pragmas)
        self._mover = open_connection(path, pragmas)
        self.alarm: str | None = None

    def run(self, least_bytes: int = 2**20) -> bool:
        """Checkpoint where the WAL holds at least `least_bytes`; return whether it did. Blocking: call it in a thread.

        Raises:
            sqlite3.Error: the disk or a stranger's lock is in the way; the next run tries again.
        """
        size = self.wal_bytes()
        if size < least_bytes:
            return False
        with self._turn:
            self._holder.execute("BEGIN IMMEDIATE")
            try:
                reach("server.checkpoint")
                _busy, frames, moved = self._mover.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            finally:
                self._holder.execute("ROLLBACK")
        starved = frames > moved and size > _ALARM_BYTES
        self.alarm = f"the WAL has grown to {size >> 20} MiB: a reader holds an old snapshot" if starved else None
        return True

    def wal_bytes(self) -> int:
        """Return the size of the WAL file in bytes, by its name: only SQLite may open it (fcntl locks would be lost)."""
        try:
            return os.stat(self._path + "-wal").st_size
        except FileNotFoundError:
            return 0

    def close(self) -> None:
        """Close both connections."""
        for connection in (self._holder, self._mover):
            try:
                connection.close()
            except sqlite3.Error:
                continue
