"""Read a database from outside: with or without a server on it, never changing it, never making one.

A look needs no thread, no turn at the write lock and no migration, so this is a plain connection, not a `SqliteStore`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import quote

from ..base.errors import DatabaseDamaged, DatabaseTooNew, DatabaseUnavailable, PaddockError
from ..base.records import Instance, Status
from . import instances, journal
from .flush import flush_once
from .journal import Journal
from .migrations import SCHEMA_VERSION, read_version
from .transaction import Transaction
from .worker import explain

__all__ = ["Reader", "open_reader"]

P = ParamSpec("P")
T = TypeVar("T")

_BUSY_MS = 5000
_UNFINISHED = """
SELECT seq, status FROM paddock_instances WHERE completed_at IS NULL AND (CAST(?1 AS TEXT) IS NULL OR id = ?1) ORDER BY seq
"""


class Reader:
    """A read-only look at a database; use `open_reader`."""

    def __init__(
        self,
        connection: Transaction,
        path: str,
        version: int,
        errors: type[Exception] = sqlite3.Error,
        explain: Callable[[Any, str], PaddockError] = explain,
        flush: Callable[[str], None] = lambda _path: None,
    ) -> None:
        """Hold a connection that is open and checked, with what its library raises and what that means.

        `flush` waits until the disk has what can be read.
        """
        self._connection = connection
        self._path = path
        #: The schema's version.
        self.version = version
        self._errors = errors
        self._explain = explain
        self._flush = flush

    def get(self, instance_id: str) -> Instance | None:
        """Return one instance with its steps, or None."""
        found = self._load("WHERE i.id = ?", (instance_id,))
        return found[0] if found else None

    def newest(self, *, name: str | None = None, status: Status | None = None, limit: int = 20) -> list[Instance]:
        """Return the instances that were started last, the newest first."""
        clauses, values = ["1 = 1"], []
        for clause, value in (("i.workflow_name = ?", name), ("i.status = ?", status)):
            if value is not None:
                clauses.append(clause)
                values.append(value)
        return self._load(f"WHERE {' AND '.join(clauses)} ORDER BY i.seq DESC LIMIT ?", (*values, limit))

    def unfinished(self, instance_id: str | None = None) -> list[tuple[int, Status]]:
        """Return row and status of every instance that has not ended, the oldest first; or of one, where it has not."""
        found = self.read(lambda tx: tx.execute(_UNFINISHED, (instance_id,)).fetchall())
        return [(row[0], Status(row[1])) for row in found]

    def journal(self, seq: int) -> Journal | None:
        """Return the journal of an instance by its row, None where it is gone."""
        return self.read(lambda tx: journal.read(tx, seq))

    def _load(self, where: str, values: tuple[Any, ...]) -> list[Instance]:
        return self.read(instances.load_instances, where, values)

    def read(self, function: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run one of this package's reading functions, as of one moment."""
        try:
            self._connection.execute("BEGIN")  # several tables as of one moment
            try:
                found = function(self._connection, *args, **kwargs)
            finally:
                self._connection.execute("ROLLBACK")
            self._flush(self._path)
        except self._errors as error:
            raise self._explain(error, self._path) from None
        return found


@contextlib.contextmanager
def open_reader(path: str) -> Iterator[Reader]:
    """Open a database for reading only.

    Raises:
        DatabaseUnavailable: there is none, or it cannot be read.
        DatabaseDamaged: the file is no database of ours.
        DatabaseTooNew: a later Paddock wrote it.
    """
    if not os.path.isfile(path):
        raise DatabaseUnavailable(f"there is no database {path}")
    # Where no -wal lies beside it nobody has it open; a look that says so to SQLite leaves no -wal and -shm behind.
    alone = "" if os.path.exists(f"{path}-wal") else "&immutable=1"
    try:
        connection = sqlite3.connect(f"file:{quote(path)}?mode=ro{alone}", uri=True, isolation_level=None)
    except sqlite3.Error as error:
        raise explain(error, path) from None
    try:
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
        version = read_version(connection, path)
        if version == 0:
            raise DatabaseDamaged(f"{path} is no database of Paddock's: no server has run on it")
        if version > SCHEMA_VERSION:
            raise DatabaseTooNew(
                f"{path} has schema version {version}; this Paddock knows up to {SCHEMA_VERSION}. Upgrade Paddock."
            )
        yield Reader(connection, path, version, flush=flush_once)
    except sqlite3.Error as error:
        raise explain(error, path) from None
    finally:
        connection.close()
