"""The write lock in this process's own hands, outside the store: asked for where a commit waits for it longer than it should.

The kernel's own table is read: SQLite's locks are POSIX record locks, and to ask for one's own by `fcntl` is no use, for a process is
never in its own way; opening the file for a look would drop them (fcntl(2), "Record locking").
"""

from __future__ import annotations

import contextlib
import gc
import os
import sqlite3

from .sql_store import SqlStore

__all__ = ["code_holds_write_lock", "roll_back"]

_TABLE = "/proc/locks"
_WAL_WRITE_BYTE = "120"  # WAL_WRITE_LOCK in the -shm file (the SQLite file format's page on WAL, "Locks")


def code_holds_write_lock(store: SqlStore, database: str) -> bool:
    """Tell whether a connection of this process other than the store's is in a write transaction.

    The store's own holds the lock for as long as the disk takes for a commit. One that has just begun or ended may be missed: ask twice.
    """
    return not store.writes and _holds_write_lock(database) and not store.writes


def _holds_write_lock(database: str) -> bool:
    """Tell whether a connection of this process is in a write transaction; False where the kernel does not tell (outside Linux)."""
    try:
        inode = str(os.stat(f"{database}-shm").st_ino)
        with open(_TABLE, encoding="ascii") as table:
            held = [line.split() for line in table]
    except OSError:
        return False
    pid = str(os.getpid())
    return any(
        words[1:4:2] == ["POSIX", "WRITE"]
        and words[4] == pid
        and words[5].rpartition(":")[2] == inode
        and words[6] == _WAL_WRITE_BYTE
        for words in held
        if words[1] != "->"  # one that waits
    )


def roll_back(database: str) -> None:
    """Roll back what connections of this process have left open on a database: their code is over.

    One that belongs to another thread cannot be reached.
    """
    for found in gc.get_objects():
        if isinstance(found, sqlite3.Connection):
            with contextlib.suppress(sqlite3.Error):
                if found.in_transaction and found.execute("PRAGMA database_list").fetchone()[2] == database:
                    found.rollback()
