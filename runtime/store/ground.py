"""The database's file as this process opened it: is it still the one under its name?

SQLite writes into the file that it opened, whatever happens to its name. Deleted, or replaced by a copy, the database would go on taking
commits that nobody finds again; with its `-wal` deleted under it, the next process begins another one, and the two overwrite each other.
So every transaction looks at both names before it commits. It is a look by name only: opening the file by any other means than SQLite
would drop this process's locks on it (fcntl(2), "Record locking").
"""

from __future__ import annotations

import os

from ..base.errors import DatabaseDamaged

__all__ = ["Ground"]

_Inode = tuple[int, int]


class Ground:
    """The files of one database, remembered right after SQLite has opened them."""

    def __init__(self, path: str) -> None:
        """Remember the file and its `-wal`, which an open connection keeps in being."""
        self._path = path
        self._wal_path = f"{path}-wal"
        self._file = _inode(path)
        self._wal = _inode(self._wal_path)

    def check(self) -> None:
        """Refuse to go on where the files are others now.

        Raises:
            DatabaseDamaged: the file was deleted, replaced or emptied, or its `-wal` was. Put back, all goes on.
        """
        if self._file is None:
            return
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            raise DatabaseDamaged(self._complaint("deleted")) from None
        except OSError as error:
            raise DatabaseDamaged(self._complaint(f"made unreachable ({error.strerror})")) from None
        if (found.st_dev, found.st_ino) != self._file:
            raise DatabaseDamaged(self._complaint("replaced by another file"))
        if found.st_size == 0:
            raise DatabaseDamaged(self._complaint("emptied"))
        if self._wal is not None and _inode(self._wal_path) != self._wal:
            raise DatabaseDamaged(self._complaint("robbed of its -wal, which holds the newest commits,"))

    def _complaint(self, what: str) -> str:
        return (
            f"{self._path} was {what} while it is in use; nothing more is accepted. Put the file back as it was, "
            "or stop the server, restore a backup and start it again."
        )


def _inode(path: str) -> _Inode | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
