"""Up to which event the WAL is on the disk, where commits give the write lock back before they wait for that.

`synchronous=FULL` keeps the write lock for as long as `fdatasync` takes, and whoever would write next waits for the disk twice: for the
commit before, and for the own one. So who writes commits with NORMAL, gives the lock back, and calls `fdatasync` itself before the commit
returns. This is right because the WAL is a sequence: a sync that returns has taken along all that stood before, and a commit comes after what it
has seen. (A pre-committed transaction releases its locks: DeWitt et al., "Implementation techniques for main memory database systems",
SIGMOD 1984. What SQLite itself needs of the order, that the WAL is on the disk before its pages move into the database, and a new header
before what follows it, NORMAL keeps: sqlite.org/wal.html, "Performance considerations".)

Between the two a commit can be seen that a power cut may take back. So nothing that was read is handed on before the disk has it. How far a
snapshot reaches is told by its newest event, and by a count of the commits that told of none. The server publishes up to where children say
that they have synced, and who reads beyond what is known to be on the disk syncs first.

A sync that fails is not tried again as it was: the kernel takes the pages for written then, tells each descriptor of the failure once, and
says nothing at the next call (fsync(2), "EIO"; Rebello et al., "Can applications recover from fsync failures?", USENIX ATC 2020). The WAL
is written anew from what can be read of it, under the write lock, and synced.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["FlushPosition", "Mark", "count_quiet", "flush_once", "read_mark"]

# in SQLite's own table of the numbers that it has given; a row of another name is nobody's
_EVENTS, _QUIET = "paddock_events", "paddock_quiet"
_READ = "SELECT name, seq FROM sqlite_sequence WHERE name IN ('paddock_events', 'paddock_quiet')"
_COUNT = "UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'paddock_quiet'"
_FIRST = "INSERT INTO sqlite_sequence (name, seq) VALUES ('paddock_quiet', 1)"
_PIECE = 2**20
_fdatasync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)  # macOS has none


class Mark(NamedTuple):
    """How far a snapshot reaches: the id of its newest event, and how many commits had none. Of two, one is later in both or in one."""

    event_id: int
    quiet: int


def read_mark(connection: Any) -> Mark:
    """Return the mark of a connection's transaction, or of this moment."""
    found = dict(connection.execute(_READ).fetchall())
    return Mark(found.get(_EVENTS, 0), found.get(_QUIET, 0))


def count_quiet(connection: Any) -> None:
    """Count the open transaction as one without an event."""
    if not connection.execute(_COUNT).rowcount:
        connection.execute(_FIRST)


def flush_once(database: str) -> None:
    """Wait until the disk has what was read, for a look from outside; where the disk fails, a look is better than none."""
    with contextlib.suppress(OSError):
        descriptor = os.open(_wal_of(database), os.O_RDONLY | os.O_CLOEXEC)
        try:
            _fdatasync(descriptor)
        finally:
            os.close(descriptor)


def _wal_of(database: str) -> str:
    return f"{database}-wal"


class FlushPosition:
    """One database's, in one process; from any thread.

    Args:
        database: the path.
        syncs: whether the disk is waited for at all.

    Attributes:
        up_to: the id of the newest event that is known to be on the disk, with everything before it.
        doubtful: a sync has failed, and what was to be on the disk may not be there.
    """

    def __init__(self, database: str, *, syncs: bool = True) -> None:
        """Know nothing yet. The WAL is there while a connection is open; one that is not yet is opened when it is needed."""
        self._syncs = syncs
        self._path = _wal_of(database)
        self._descriptor: int | None = None
        with contextlib.suppress(OSError):
            self._wal()
        self._syncing = threading.Lock()
        self._noting = threading.Lock()
        self.up_to = self._quiet = 0
        self.doubtful = False

    def note(self, event_id: int, quiet: int = 0) -> None:
        """Hear that the disk has everything up to an event, or a mark; never waits for the disk."""
        with self._noting:
            self.up_to = max(self.up_to, event_id)
            self._quiet = max(self._quiet, quiet)

    def flush(self, mark: Mark) -> None:
        """Return once the disk has everything up to a mark that was read or committed; at once where that is known.

        Raises:
            OSError: a sync has failed, this one or one before: `write_anew`.
        """
        if self._has(mark):
            return
        with self._syncing:  # a failure is told once: not to one thread while another takes its own for a success
            if self._has(mark):
                return
            if self.doubtful:
                raise OSError(errno.EIO, "a sync of the WAL has failed")
            descriptor = self._wal()
            try:
                self._sync(descriptor)
            except OSError:
                self.doubtful = True
                raise
            self.note(*mark)

    def _has(self, mark: Mark) -> bool:
        return mark.event_id <= self.up_to and mark.quiet <= self._quiet

    def write_anew(self) -> None:
        """Write the WAL as it reads to the disk; whoever calls holds SQLite's write lock, so that nobody else writes there.

        Raises:
            OSError: the disk still fails.
        """
        with self._syncing:
            descriptor, place = self._wal(), 0
            while piece := os.pread(descriptor, _PIECE, place):
                place += os.pwrite(descriptor, piece, place)
            self._sync(descriptor)
            self.doubtful = False

    def close(self) -> None:
        """Let go of the WAL: SQLite's locks lie on the database and on -shm, none is lost with it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _sync(self, descriptor: int) -> None:
        if self._syncs:
            _fdatasync(descriptor)

    def _wal(self) -> int:
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        return self._descriptor
