"""The single checkpointer: the server, now and then, while it holds the write lock.

SQLite before 3.51.3 can damage a database when a checkpoint races a commit that resets the WAL. So automatic checkpoints are off on
every connection, and this one holds the write lock on a second connection while the first moves pages: no commit can come between.
A WAL that grows nevertheless means that some reader holds an old snapshot; that is reported.
"""

from __future__ import annotations

import os
import sqlite3

from ..base.config import SqlitePragmas
from ..base.errors import DatabaseDamaged
from ..base.probes import reach
from .ground import Ground
from .openers import openers
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
        self._ground = Ground(path)
        self._least = os.stat(path).st_size
        self.alarm: str | None = None

    def run(self, least_bytes: int = 2**20) -> bool:
        """Checkpoint where the WAL holds at least `least_bytes`; return whether it did. Blocking: call it in a thread.

        Raises:
            sqlite3.Error: the disk or a stranger's lock is in the way; the next run tries again.
            DatabaseDamaged: the file is another or a shorter one now; moving pages into it would ruin what is left.
        """
        size = self.wal_bytes()
        if size < least_bytes:
            return False
        with self._turn:
            self._holder.execute("BEGIN IMMEDIATE")
            try:
                self._ground.check()
                self._check_length()
                reach("server.checkpoint")
                _busy, frames, moved = self._mover.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            finally:
                self._holder.execute("ROLLBACK")
        self._least = os.stat(self._path).st_size
        starved = frames > moved and size > _ALARM_BYTES
        self.alarm = self._complaint(size) if starved else None
        return True

    def _check_length(self) -> None:
        """Refuse a file that was cut. One that a VACUUM has shortened has fewer pages too."""
        size = os.stat(self._path).st_size
        if size < self._least:
            pages, page_size = (
                self._holder.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size")
            )
            if size < min(self._least, pages * page_size):
                raise DatabaseDamaged(
                    f"{self._path} was cut to {size:,} bytes while it is in use; stop the server, restore a backup and start it again."
                )

    def _complaint(self, size: int) -> str:
        others = {pid: command for pid, command in openers(self._path).items() if pid != os.getpid()}
        named = "; ".join(f"{pid} ({command})" for pid, command in others.items()) or "nobody else that we may see"
        return (
            f"the WAL has grown to {size >> 20} MiB: a reader holds an old snapshot, so it cannot be written back. "
            f"The database is open in: {named}. End the reading transaction, or the process"
        )

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
