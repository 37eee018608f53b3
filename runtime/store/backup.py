"""A copy of a SQLite database that may be in use: whole, checked, for its owner alone, and there at once or not at all.

SQLite itself copies, page by page, as of one moment: a reading transaction, which holds up no writer. It is written beside the place where it
belongs and renamed when it is on the disk, so a power cut or a full disk leaves no half of a copy under the name of a whole one.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

from ..base.errors import ConfigError, DatabaseDamaged, DatabaseUnavailable
from .reading import open_reader
from .worker import explain

__all__ = ["back_up"]

_BUSY = 30_000


def back_up(path: str, target: Path) -> int:
    """Copy a database (its real path) to a file that is not there yet, and return its size in bytes.

    Raises:
        ConfigError: there is a file of that name already.
        DatabaseDamaged: what was copied is not sound; nothing is left.
        DatabaseUnavailable: it cannot be read, or the copy cannot be written; nothing is left.
        DatabaseTooNew: a later version has written it.
    """
    with open_reader(path):  # ours, and of a version that we know
        pass
    if os.path.lexists(target):
        raise ConfigError(f"{target} is there already; name a file that is not, or remove it")
    part = target.with_name(f"{target.name}.part-{os.getpid()}")
    try:
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        _copy(path, part)
        os.rename(part, target)
        _sync(target.parent)
    except OSError as error:
        raise DatabaseUnavailable(f"{target} cannot be written: {error.strerror or error}") from None
    finally:
        for name in (part, f"{part}-wal", f"{part}-shm", f"{part}-journal"):
            with contextlib.suppress(OSError):
                os.unlink(name)
    return target.stat().st_size


def _copy(path: str, part: Path) -> None:
    try:
        with (
            contextlib.closing(
                sqlite3.connect(f"file:{quote(path)}?mode=rw", uri=True, isolation_level=None)
            ) as source,
            contextlib.closing(sqlite3.connect(part, isolation_level=None)) as copy,
        ):
            source.execute(f"PRAGMA busy_timeout = {_BUSY}")
            source.execute("PRAGMA wal_autocheckpoint = 0")  # the server alone makes checkpoints
            source.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # one file; the server that it is given to turns the WAL on
            found = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        raise explain(error, path) from None
    if found != "ok":
        raise DatabaseDamaged(
            f"{path} is damaged ({found.splitlines()[-1]}); no backup was made of it. Restore an earlier one."
        )


def _sync(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
