"""The thread that owns one SQLite connection.

The writer joins transactions that wait at the same time into one commit (group commit), each in a savepoint of its own, so that one
caller's error is not its neighbours'. A transaction always begins IMMEDIATE: a deferred one that reads first and writes later is
refused at once when another has written meanwhile (SQLITE_BUSY_SNAPSHOT), whatever the busy timeout. A lock held by a stranger is
waited for, as long as it takes.

Who writes gives the write lock back before it waits for the disk, and nobody hands on what the disk does not have: `flush.py`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import quote

from ..base.config import SqlitePragmas
from ..base.errors import DatabaseDamaged, DatabaseUnavailable, MachineError, PaddockError
from ..base.probes import reach
from .events import last_event_id
from .flush import FlushPosition, Mark, count_quiet, read_mark
from .ground import Ground
from .protocol import WouldWait
from .thread import Call, ConnectionThread, Failed
from .turn import LockFile

__all__ = ["Worker", "explain", "open_connection"]

_RETRY_FIRST, _RETRY_LAST = 0.05, 1.0
_BRIEFLY_MS = 50
_JOURNAL_LIMIT = 64 * 2**20
_NOTHING_SEEN = Mark(0, 0)


def open_connection(path: str, pragmas: SqlitePragmas, *, read_only: bool = False) -> sqlite3.Connection:
    """Open the database the way every process of ours does.

    Automatic checkpoints are off: before SQLite 3.51.3 a checkpoint that races a commit which resets the WAL can damage the
    database, so the server alone checkpoints (`checkpoint.py`). `journal_size_limit` bounds the WAL that a checkpoint leaves.

    Raises:
        DatabaseDamaged: the file is not a database.
        DatabaseUnavailable: it cannot be opened.
    """
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(
            path
            if path == ":memory:"
            else f"file:{quote(path)}?mode=rw",  # never make one: a deleted database stays deleted
            uri=path != ":memory:",
            timeout=pragmas.busy_timeout,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.execute(f"PRAGMA busy_timeout = {int(pragmas.busy_timeout * 1000)}")
        if path != ":memory:" and not read_only:
            mode = connection.execute(f"PRAGMA journal_mode = {pragmas.journal_mode}").fetchone()[0]
            if mode.upper() != pragmas.journal_mode:
                raise DatabaseUnavailable(f"{path} cannot use journal mode {pragmas.journal_mode}; it stays in {mode}")
        connection.execute(f"PRAGMA synchronous = {pragmas.synchronous}")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_LIMIT}")
        connection.execute("PRAGMA foreign_keys = ON")
        if read_only:
            connection.execute("PRAGMA query_only = ON")
    except (sqlite3.Error, DatabaseUnavailable) as error:
        if connection is not None:
            connection.close()
        raise (explain(error, path) if isinstance(error, sqlite3.Error) else error) from None
    return connection


def explain(error: sqlite3.Error, path: str) -> PaddockError:
    """Return our error for one of SQLite's."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return DatabaseDamaged(
            f"{path} is not a database, or it is damaged ({error}). It was left as it is: restore a backup, "
            "or name another file."
        )
    advice = _strangers(path) if code == sqlite3.SQLITE_CANTOPEN else None
    advice = advice or _ADVICE.get(code)
    return DatabaseUnavailable(f"{path} cannot be used now: {error}" + (f" ({advice})" if advice else ""))


def _strangers(path: str) -> str | None:
    """Say whose a file is that this user may not write; None where that is not what is wrong."""
    with contextlib.suppress(OSError):
        owner = os.stat(path).st_uid
        if not os.access(path, os.R_OK | os.W_OK):
            return f"it belongs to the user with the id {owner}, and this is {os.geteuid()}: run this as that user"
    return None


#: What a person can do about it, by SQLite's code.
_ADVICE = {
    sqlite3.SQLITE_FULL: "make room on its disk; all goes on by itself then",
    sqlite3.SQLITE_READONLY: "its disk or file is read-only, or belongs to another user; all goes on when it can be written",
    sqlite3.SQLITE_IOERR: "its disk fails, is full, or a limit on the size of files was reached; see the system's log",
    sqlite3.SQLITE_CANTOPEN: "the file or its folder is gone, may not be entered, or there are no file descriptors left",
    sqlite3.SQLITE_BUSY: "another program holds its lock",
}


#: What SQLite refuses because of what it was asked, not because of the state of the disk: an error of one caller.
_REFUSALS = (
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.NotSupportedError,
    sqlite3.ProgrammingError,
)


def _is_disks(error: BaseException) -> bool:
    return isinstance(error, sqlite3.Error) and not isinstance(error, _REFUSALS)


def _is_passing(error: sqlite3.Error) -> bool:
    """Tell whether waiting may help: a stranger's lock."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _is_full(error: sqlite3.Error) -> bool:
    """Tell whether the disk refused the write before the commit: nothing of it is there."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY)


class Worker(ConnectionThread):
    """Own a connection in a thread of its own.

    Args:
        connection: opened with `open_connection`.
        path: for messages.
        turn: the writers' turn; None for a reader or a database in memory.
        position: what waits for the disk, in SQLite's place: the connection is to be opened with `synchronous=NORMAL`. None to wait for nothing
            that SQLite does not wait for.
        patient: wait while the disk is full instead of raising (a child has nobody to tell).
        writer: of a reader, who writes to the same database in this process.
    """

    errors = (sqlite3.Error, OSError, MachineError)

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: str,
        *,
        turn: LockFile | None,
        position: FlushPosition | None = None,
        patient: bool = False,
        writer: Worker | None = None,
    ) -> None:
        """Hold the connection; the thread starts with the first call."""
        super().__init__(path, joins=turn is not None or path == ":memory:")
        self._connection = connection
        self._path = path
        self._turn = turn
        self._position = position
        self._patient = patient
        self._writer = writer
        self._seen = _NOTHING_SEEN
        self._unsynced = False
        self._ground = Ground(path) if path != ":memory:" else None
        self._changes = 0
        self._waits_ms = self._long_ms = connection.execute("PRAGMA busy_timeout").fetchone()[0]

    @property
    def _reads_only(self) -> bool:
        return self._turn is None and self._path != ":memory:"

    @property
    def near(self) -> bool:
        """Tell whether this reads a file: with a WAL, reading waits for no writer."""
        return self._reads_only

    def note_statements(self, noted: dict[str, None]) -> None:
        """Note every statement that is executed from now on."""
        self._connection = _Noting(self._connection, noted)  # type: ignore[assignment]  # all that is called on it

    def prepare(self, statements: Iterable[str]) -> None:
        """Have SQLite read the schema and compile statements, whose programs the connection keeps; nothing is executed.

        `executemany` compiles first, and looks then at what it was given: nothing, or no DML.
        """
        for statement in statements:
            with contextlib.suppress(sqlite3.Error):
                self._connection.executemany(statement, ())

    @contextlib.contextmanager
    def unsynced(self) -> Iterator[None]:
        """Let the commits in here come to the disk with the next one that is synced, of whatever process."""
        self._unsynced = True
        try:
            yield
        finally:
            self._unsynced = False

    def _perform(self, batch: list[Call]) -> list[Any]:
        return self._read(batch) if self._reads_only else self._write(batch)

    def _proves(self) -> bool:
        # a transaction that has changed nothing has not touched the disk, which may be as full as it was
        return self._reads_only or self._connection.total_changes != self._changes

    def _disconnect(self) -> None:
        self._connection.close()

    def _explain(self, error: Exception) -> Exception:
        if isinstance(error, OSError):
            return DatabaseUnavailable(f"{self._path} cannot be used now: {error}")
        if not isinstance(error, sqlite3.Error):
            return error
        if self._ground is not None:
            try:
                self._ground.check()
            except DatabaseDamaged as cause:  # SQLite stumbles over what was done to the file; say what was done
                return cause
        found = explain(error, self._path)
        if isinstance(found, DatabaseDamaged) and self.damage is None:
            self.damage = str(found)
        return found

    def _read(self, batch: list[Call]) -> list[Any]:
        results = [_outcome(call.function, self._connection) for call in batch]
        if self._position is not None and not self._hasty:
            self._await_disk(self._position, read_mark(self._connection))
        return results

    def _write(self, batch: list[Call]) -> list[Any]:
        try:
            results = self._commit(batch)
            if self._position is not None and not self._unsynced:
                self._answer_early(batch, results)
                reach("child.commit.unsynced")
                self._await_disk(self._position, self._seen)
        finally:
            self.writes = False
        return results

    def _answer_early(self, batch: list[Call], results: list[Any]) -> None:
        """Answer who need not wait for the disk; the answer that comes when it has the commit finds it answered."""
        if early := [number for number, call in enumerate(batch) if call.early]:
            self._answer([batch[number] for number in early], [results[number] for number in early])

    def _commit(self, batch: list[Call]) -> list[Any]:
        pause, again = _RETRY_FIRST, True
        if (wanted := _BRIEFLY_MS if self._brief else self._long_ms) != self._waits_ms:
            self._connection.execute(f"PRAGMA busy_timeout = {wanted}")
            self._waits_ms = wanted
        while True:
            try:
                if self._position is not None and self._position.doubtful:
                    self._write_wal_anew(self._position)
                with self._turn or contextlib.nullcontext():
                    return self._transaction(batch)
            except sqlite3.Error as error:
                self.writes = False
                if again and getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_IOERR_FSYNC:
                    again = False  # a sync of SQLite's own, of a WAL that begins anew: nothing is committed, and it writes all of it again
                    continue
                if not (_is_passing(error) or (self._patient and _is_full(error))) or self._closed:
                    raise
                if self._brief and _is_passing(error):
                    raise WouldWait from None
                self.trouble = str(explain(error, self._path))
            time.sleep(pause)
            pause = min(pause * 2, _RETRY_LAST)

    def _transaction(self, batch: list[Call]) -> list[Any]:
        connection = self._connection
        began, self._changes, self._seen = time.monotonic(), connection.total_changes, _NOTHING_SEEN
        connection.execute("BEGIN IMMEDIATE")
        self.writes = True
        try:
            if self._ground is not None:
                self._ground.check()
            before = last_event_id(connection) if self._position is not None else 0
            if len(batch) == 1:
                results = [batch[0].function(connection)]
            else:
                results = [self._savepoint(call.function) for call in batch]
            if self._position is not None and not self._unsynced:
                self._seen = self._mark(before)
            reach("child.commit.inside")
            connection.execute("COMMIT")
            if self.committed is not None:
                self.committed(time.monotonic() - began)
        except BaseException as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if len(batch) > 1 or isinstance(error, OSError | MachineError) or _is_disks(error):
                raise
            return [Failed(error)]
        return results

    def _mark(self, before: int) -> Mark:
        """Return how far the open transaction reaches, as the next reader will see it; `before` is the newest event that it has found."""
        connection = self._connection
        newest = last_event_id(connection)
        if newest > before:
            return Mark(newest, 0)  # which was made here, so nobody can know yet that the disk has it
        if connection.total_changes != self._changes:
            count_quiet(connection)
        return read_mark(connection)

    def _await_disk(self, position: FlushPosition, mark: Mark) -> None:
        """Return once the disk has everything up to a mark; raises OSError, sqlite3.Error, DatabaseUnavailable."""
        try:
            position.flush(mark)
        except OSError:
            if self._writer is not None:
                self._writer.call_now(_nothing)
            else:
                self._write_wal_anew(position)
            position.note(*mark)

    def _write_wal_anew(self, position: FlushPosition) -> None:
        """Have all of the WAL on the disk after a sync that failed; raises OSError, sqlite3.Error."""
        with self._turn or contextlib.nullcontext():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                position.write_anew()
            finally:
                self._connection.execute("ROLLBACK")

    def _savepoint(self, function: Callable[[sqlite3.Connection], Any]) -> Any:
        self._connection.execute("SAVEPOINT one")
        outcome = _outcome(function, self._connection)
        if isinstance(outcome, Failed):
            self._connection.execute("ROLLBACK TO one")
        self._connection.execute("RELEASE one")
        return outcome


def _nothing(_connection: sqlite3.Connection) -> None:
    """Read and write nothing: a transaction for what comes before it."""


class _Noting:
    """A connection that notes what is executed on it."""

    def __init__(self, connection: sqlite3.Connection, noted: dict[str, None]) -> None:
        self._connection = connection
        self._noted = noted

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        self._noted[statement] = None
        return self._connection.execute(statement, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def _outcome(function: Callable[[sqlite3.Connection], Any], connection: sqlite3.Connection) -> Any:
    try:
        return function(connection)
    except Exception as error:
        if _is_disks(error):
            raise
        return Failed(error)  # handed to the caller
