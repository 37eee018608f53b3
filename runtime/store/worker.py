"""One thread that owns one SQLite connection; a whole transaction is one hop to it.

The writer joins transactions that wait at the same time into one commit (group commit), each in a savepoint of its own, so that one
caller's error is not its neighbours'. A transaction always begins IMMEDIATE: a deferred one that reads first and writes later is
refused at once when another has written meanwhile (SQLITE_BUSY_SNAPSHOT), whatever the busy timeout. A lock held by a stranger is
waited for, as long as it takes.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from ..base.config import SqlitePragmas
from ..base.errors import DatabaseDamaged, DatabaseUnavailable, MachineError, PaddockError
from ..base.probes import reach
from .ground import Ground
from .turn import LockFile

__all__ = ["Worker", "explain", "open_connection"]

_JOIN_AT_MOST = 64
_RETRY_FIRST, _RETRY_LAST = 0.05, 1.0
_JOURNAL_LIMIT = 64 * 2**20

Call = tuple[Callable[[sqlite3.Connection], Any], "asyncio.AbstractEventLoop | None", "asyncio.Future[Any] | None"]


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
    advice = _ADVICE.get(code)
    return DatabaseUnavailable(f"{path} cannot be used now: {error}" + (f" ({advice})" if advice else ""))


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


class Worker:
    """Own a connection in a thread of its own.

    Args:
        connection: opened with `open_connection`.
        path: for messages.
        turn: the writers' turn; None for a reader or a database in memory.
        patient: wait while the disk is full instead of raising (a child has nobody to tell).

    Attributes:
        trouble: what the last call failed of, when it was the disk's or the database's doing.
        damage: the first damage that SQLite has found; it stays.
    """

    def __init__(
        self, connection: sqlite3.Connection, path: str, *, turn: LockFile | None, patient: bool = False
    ) -> None:
        """Hold the connection; the thread starts with the first call."""
        self._connection = connection
        self._path = path
        self._turn = turn
        self._patient = patient
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._in_use = threading.Lock()
        self._closed = False
        self._ground = Ground(path) if path != ":memory:" else None
        self.trouble: str | None = None
        self.committed: Callable[[float], None] | None = None
        self.damage: str | None = None

    async def call(self, function: Callable[[sqlite3.Connection], Any]) -> Any:
        """Run `function(connection)` in the thread, in a transaction where this is a writer, and return its result.

        A cancelled caller does not cancel the transaction: it commits or not as if nobody had looked.

        Raises:
            DatabaseUnavailable: nothing was committed, or the commit's fate is unknown; read again before doing it again.
        """
        if self._closed:
            raise DatabaseUnavailable(f"{self._path} is closed here")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._calls.put((function, loop, future))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="paddock-store", daemon=True)
            self._thread.start()
        return await asyncio.shield(future)

    def call_now(self, function: Callable[[sqlite3.Connection], Any]) -> Any:
        """Run `function` in the calling thread, which waits for the connection and for the write lock.

        For a child, whose loop has nothing else to do then: it saves two switches of threads.
        """
        if self._closed:
            raise DatabaseUnavailable(f"{self._path} is closed here")
        return self._run([(function, None, None)])[0]

    def close(self) -> None:
        """End the thread once what was asked of it is done, and close the connection."""
        if self._closed:
            return
        self._closed = True
        if self._thread is not None:
            self._calls.put(None)
            self._thread.join()
        self._connection.close()

    @property
    def _reads_only(self) -> bool:
        return self._turn is None and self._path != ":memory:"

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            batch, last = [call], False
            while not self._reads_only and len(batch) < _JOIN_AT_MOST:
                try:
                    more = self._calls.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    last = True
                    break
                batch.append(more)
            self._answer(batch, self._run(batch))
            if last:
                return

    @staticmethod
    def _answer(batch: list[Call], results: list[Any]) -> None:
        """Wake each caller's loop once."""
        loops: dict[Any, list[tuple[Any, Any]]] = {}
        for (_, loop, future), result in zip(batch, results, strict=True):
            loops.setdefault(loop, []).append((future, result))
        for loop, answers in loops.items():
            try:
                loop.call_soon_threadsafe(_resolve, answers)
            except RuntimeError:  # its loop is closed: nobody waits any more
                continue

    def _run(self, batch: list[Call]) -> list[Any]:
        """Run a batch; a result is a value or an `_Error`. With `call_now` an error is raised."""
        with self._in_use:
            return self._run_alone(batch)

    def _run_alone(self, batch: list[Call]) -> list[Any]:
        try:
            results = self._read(batch) if self._reads_only else self._write(batch)
            self.trouble = None
        except (sqlite3.Error, OSError, MachineError) as error:
            failure = self._explain(error)
            self.trouble = str(failure)
            results = [_Error(failure)] * len(batch)
        except Exception as error:  # noqa: BLE001  whatever it is, this thread must live: every caller waits for it
            results = [_Error(error)] * len(batch)
        if batch[0][1] is None and isinstance(results[0], _Error):
            raise results[0].error
        return results

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
        return [_outcome(function, self._connection) for function, _, _ in batch]

    def _write(self, batch: list[Call]) -> list[Any]:
        pause = _RETRY_FIRST
        while True:
            try:
                if self._turn is None:
                    return self._transaction(batch)
                with self._turn:
                    return self._transaction(batch)
            except sqlite3.Error as error:
                if not (_is_passing(error) or (self._patient and _is_full(error))) or self._closed:
                    raise
                self.trouble = str(explain(error, self._path))
            time.sleep(pause)
            pause = min(pause * 2, _RETRY_LAST)

    def _transaction(self, batch: list[Call]) -> list[Any]:
        connection = self._connection
        began = time.monotonic()
        connection.execute("BEGIN IMMEDIATE")
        try:
            if self._ground is not None:
                self._ground.check()
            if len(batch) == 1:
                results = [batch[0][0](connection)]
            else:
                results = [self._savepoint(function) for function, _, _ in batch]
            reach("child.commit.inside")
            connection.execute("COMMIT")
            if self.committed is not None:
                self.committed(time.monotonic() - began)
        except BaseException as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if len(batch) > 1 or isinstance(error, OSError | MachineError) or _is_disks(error):
                raise
            return [_Error(error)]
        return results

    def _savepoint(self, function: Callable[[sqlite3.Connection], Any]) -> Any:
        self._connection.execute("SAVEPOINT one")
        outcome = _outcome(function, self._connection)
        if isinstance(outcome, _Error):
            self._connection.execute("ROLLBACK TO one")
        self._connection.execute("RELEASE one")
        return outcome


class _Error:
    """An outcome that is to be raised where it was asked for."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _outcome(function: Callable[[sqlite3.Connection], Any], connection: sqlite3.Connection) -> Any:
    try:
        return function(connection)
    except Exception as error:
        if _is_disks(error):
            raise
        return _Error(error)  # handed to the caller


def _resolve(answers: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, result in answers:
        if future.done():
            continue
        if isinstance(result, _Error):
            future.set_exception(result.error)
        else:
            future.set_result(result)
