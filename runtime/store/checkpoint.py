"""The single checkpointer: the server, now and then, while it holds the write lock.

SQLite before 3.51.3 can damage a database when a checkpoint races a commit that resets the WAL. So automatic checkpoints are off on
every connection, and this one holds the write lock on a second connection while the first moves pages: no commit can come between.
A WAL that grows nevertheless means that some reader holds an old snapshot; that is reported.

How long the WAL file is decides what a commit costs. Where the file grows, its new size is part of what `fdatasync` must make durable,
which takes about as long again as the data itself. So the file is made long before anybody waits for a commit, and written back often
enough that the next commits fit into what is there: once all is moved, SQLite begins again at the front and keeps the file's length.
"""

from __future__ import annotations

import os
import sqlite3
import time

from ..base.config import SqlitePragmas
from ..base.errors import DatabaseDamaged
from ..base.probes import reach
from .ground import Ground
from .openers import openers
from .turn import LockFile
from .worker import open_connection

__all__ = ["Checkpointer"]

_ALARM_BYTES = 256 * 2**20
_ROOM = 2 * 2**20
_SPARE = 256 * 2**20
_PIECE = 60_000
_TICK = 50_000_000


class Checkpointer:
    """Move the WAL's pages into the database file."""

    def __init__(self, path: str, pragmas: SqlitePragmas, turn: LockFile) -> None:
        """Open two connections: one that holds the lock, one that moves the pages."""
        self._path = path
        self._pragmas = pragmas
        self._turn = turn
        self._holder = open_connection(path, pragmas)
        self._mover = open_connection(path, pragmas)
        self._ground = Ground(path)
        self._least = os.stat(path).st_size
        self._written_back: tuple[int, int] | None = None
        self.alarm: str | None = None

    def run(self, least_bytes: int = 2**20) -> bool:
        """Checkpoint where the WAL's file has at least `least_bytes` and something new in it; return whether it did.

        Blocking: call it in a thread.

        Raises:
            sqlite3.Error: the disk or a stranger's lock is in the way; the next run tries again.
            DatabaseDamaged: the file is another or a shorter one now; moving pages into it would ruin what is left.
        """
        size = self.wal_bytes()
        if size < least_bytes or self._written_back == self._stamp():
            return False
        with self._turn:
            self._holder.execute("BEGIN IMMEDIATE")
            try:
                self._ground.check()
                self._check_length()
                reach("server.checkpoint")
                _busy, frames, moved = self._mover.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                self._least = os.stat(self._path).st_size  # while nobody else writes: whatever is cut later shows
                self._written_back = self._settled_stamp() if frames == moved else None
            finally:
                self._holder.execute("ROLLBACK")
        starved = frames > moved and size > _ALARM_BYTES
        self.alarm = self._complaint(size) if starved else None
        return True

    def make_room(self) -> None:
        """Make the WAL's file as long as it will soon be, where the disk has room to spare. Blocking: call it in a thread.

        SQLite itself writes there: a transaction that is too large for its cache spills into the WAL, and is rolled back. Nothing of it is
        ever valid, as after a crash in the middle of one. What is written in vain reaches the disk here, not with somebody's commit.

        Raises:
            sqlite3.Error: the disk or a stranger's lock is in the way; all works without the room.
            OSError: the same.
        """
        if self.wal_bytes() >= _ROOM or not _has_spare(self._path):
            return
        filler = open_connection(self._path, self._pragmas)
        try:
            filler.execute("PRAGMA cache_size = 8")
            with self._turn:
                filler.execute("BEGIN IMMEDIATE")
                try:
                    self._ground.check()
                    filler.execute("CREATE TABLE paddock_room (filling)")
                    for _ in range((_ROOM - self.wal_bytes()) // _PIECE + 1):
                        filler.execute("INSERT INTO paddock_room VALUES (zeroblob(?))", (_PIECE,))
                    reach("server.room")
                finally:
                    if filler.in_transaction:  # a full disk has ended it already
                        filler.execute("ROLLBACK")
        finally:
            filler.close()
        descriptor = os.open(self._path + "-wal", os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)  # SQLite's locks lie on the database and on -shm: none is lost with this one

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
        """Return the size of the WAL file in bytes."""
        return self._stamp()[1]

    def _settled_stamp(self) -> tuple[int, int] | None:
        """Return the stamp, None where a write that comes now might leave it as it is: file systems count time in ticks."""
        stamp = self._stamp()
        return stamp if time.time_ns() - stamp[0] > _TICK else None

    def _stamp(self) -> tuple[int, int]:
        """Return when the WAL was written last, and its size: another stamp means another content."""
        try:
            found = os.stat(self._path + "-wal")
        except FileNotFoundError:
            return 0, 0
        return found.st_mtime_ns, found.st_size

    def close(self) -> None:
        """Close both connections."""
        for connection in (self._holder, self._mover):
            try:
                connection.close()
            except sqlite3.Error:
                continue


def _has_spare(path: str) -> bool:
    """Tell whether the disk is far from full: room is made for speed, and must not be what fills it."""
    found = os.statvfs(os.path.dirname(path))
    return found.f_bavail * found.f_frsize > _SPARE
