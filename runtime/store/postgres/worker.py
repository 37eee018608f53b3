"""The thread that owns one PostgreSQL connection.

**Writers take turns.** Every transaction that writes begins with one advisory lock, held until it has ended, so that there is one writer at
a time, as there is on SQLite. All that the store decides rests on that: a claim counts what runs and no other claim comes in between; the
ids of events, which a sequence hands out at the insert, rise in the order of the commits, so that a subscriber that has seen 812 will
never find an 811 that was committed late. Row locks, or SERIALIZABLE with its retries, would give the first and not the second. The
transaction is READ COMMITTED on purpose: each statement sees what was committed before it began. With one snapshot for all, taken by the
statement that waits for the lock, it would see what was there before the wait.

The cost: while one commits, the others wait, the flush of its commit to the disk included, so a database takes about as many transactions
in a second as its disk flushes. A server's calls that wait at the same time go in one transaction.

**A connection that breaks.** Before the COMMIT was sent, nothing is there: the transaction is run again on a new connection; a server's caller
is told that the database is away, a child waits. At the COMMIT itself nobody knows. A server that holds the server's lock finds out: the
commit has written a number into the server's row, and the lock, which it has to take again first, is free only once the old connection has
come to its end. A child cannot, and ends: its instance goes on from the journal, which is the truth.

**`synchronous="NORMAL"`** lets a child's commits be acknowledged before they are on the disk. A crash of PostgreSQL itself may take the last of them
back, under a child that lives on and knows better. So such a child ends where its connection is lost once it has committed anything, and the
instance goes on from what is there. A server's commits always wait for the disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg

from ...base.errors import DatabaseDamaged, DatabaseUnavailable, MachineError
from ...base.probes import reach
from ..thread import Call, ConnectionThread, Failed
from .connection import PostgresConnection
from .faults import explain, is_lost, is_passing, is_refusal
from .session import Session

__all__ = ["WRITE_LOCK", "PostgresWorker"]

_RETRY_FIRST, _RETRY_LAST = 0.05, 1.0
_AGAIN = ("40001", "40P01")  # a plugin's transaction and ours have met; PostgreSQL has chosen ours to begin again
#: The number of the writers' lock among ours; 0 is the server's.
WRITE_LOCK = 1
BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE; SELECT pg_advisory_xact_lock({key})"
_LAST = "; SELECT number FROM paddock_last_event"
_NUMBERED = "UPDATE paddock_last_event SET number = {number}; "
_MARK = "UPDATE paddock_server SET serial = {serial} WHERE pg_current_xact_id_if_assigned() IS NOT NULL; "
_MARKED = "SELECT token, serial FROM paddock_server"


class _InDoubt(Exception):
    """The connection was lost at the COMMIT."""

    def __init__(self, results: list[Any]) -> None:
        super().__init__()
        self.results = results


class PostgresWorker(ConnectionThread):
    """Own a session in a thread of its own.

    Args:
        session: the connection.
        writes: run each batch as one transaction under the write lock; else each call by itself, outside any.
        patient: wait while the database is away, full or read-only instead of raising (a child has nobody to tell).
        token: of the server's row, where this writer is the server's.
    """

    errors = (psycopg.Error, OSError, MachineError)

    def __init__(self, session: Session, *, writes: bool, patient: bool = False, token: str | None = None) -> None:
        """Hold the session; the thread starts with the first call."""
        super().__init__(session.target.name, joins=writes)
        self._session = session
        self._writes = writes
        self._patient = patient
        self._token = token
        self._serial = 0

    def _perform(self, batch: list[Call]) -> list[Any]:
        if self._writes:
            return self._write(batch)
        return [self._read(call.function) for call in batch]

    def _disconnect(self) -> None:
        if self._token is None:
            self._session.drop()  # the server's goes with its lock

    def _explain(self, error: Exception) -> Exception:
        found: Exception = error
        if isinstance(error, OSError):
            found = DatabaseUnavailable(f"{self._name} cannot be used now: {error}")
        elif isinstance(error, psycopg.Error):
            found = explain(error, self._name)
            if isinstance(found, DatabaseDamaged) and self.damage is None:
                self.damage = str(found)
        return found

    # --- reading ---

    def _read(self, function: Callable[[PostgresConnection], Any]) -> Any:
        while True:
            stale = self._session.is_open
            try:
                return self._outcome(function, self._session.connection())
            except psycopg.Error as error:
                if not is_lost(error):
                    raise
                self._session.drop()
                if not stale:
                    raise

    @staticmethod
    def _outcome(function: Callable[[PostgresConnection], Any], connection: PostgresConnection) -> Any:
        try:
            return function(connection)
        except psycopg.Error as error:
            if is_refusal(error):
                return Failed(error)
            raise
        except Exception as error:  # noqa: BLE001  handed to the caller
            return Failed(error)

    # --- writing ---

    def _write(self, batch: list[Call]) -> list[Any]:
        pause = _RETRY_FIRST
        while True:
            stale = self._session.is_open
            try:
                return self._transaction(batch)
            except _InDoubt as doubt:
                self._session.drop()
                if self._was_committed():
                    return doubt.results
                continue
            except psycopg.Error as error:
                if is_lost(error):
                    self._session.drop()
                if is_lost(error) and self._session.relaxed and self._serial:
                    raise
                if (stale and is_lost(error)) or error.sqlstate in _AGAIN:
                    continue
                if not (self._patient and is_passing(error)) or self._closed:
                    raise
                self.trouble = str(explain(error, self._name))
            time.sleep(pause)
            pause = min(pause * 2, _RETRY_LAST)

    def _transaction(self, batch: list[Call]) -> list[Any]:
        connection = self._session.connection()
        began = time.monotonic()
        try:
            first = connection.script(BEGIN.format(key=connection.key(WRITE_LOCK)) + _LAST)[0]
            connection.last_event = first
            if len(batch) == 1:
                results = [batch[0].function(connection)]
            else:
                results = [self._savepoint(call.function, connection) for call in batch]
            reach("child.commit.inside")
        except BaseException as error:
            connection.last_event = None
            self._roll_back(connection)
            if len(batch) > 1 or isinstance(error, OSError | MachineError) or self._is_databases(error):
                raise
            return [Failed(error)]
        self._commit(connection, results, first)
        if self.committed is not None:
            self.committed(time.monotonic() - began)
        return results

    def _savepoint(self, function: Callable[[PostgresConnection], Any], connection: PostgresConnection) -> Any:
        connection.script("SAVEPOINT one")
        before = connection.last_event
        outcome = self._outcome(function, connection)
        if isinstance(outcome, Failed):
            connection.last_event = before
        connection.script("ROLLBACK TO one; RELEASE one" if isinstance(outcome, Failed) else "RELEASE one")
        return outcome

    @staticmethod
    def _is_databases(error: BaseException) -> bool:
        return isinstance(error, psycopg.Error) and not is_refusal(error)

    def _roll_back(self, connection: PostgresConnection) -> None:
        try:
            if connection.in_transaction:
                connection.script("ROLLBACK")
        except psycopg.Error:
            self._session.drop()

    def _commit(self, connection: PostgresConnection, results: list[Any], first: int) -> None:
        """Commit, and in the same breath write what goes with it: the newest event's number, this commit's own."""
        self._serial += 1
        last, connection.last_event = connection.last_event, None
        numbered = _NUMBERED.format(number=last) if last != first else ""
        mark = _MARK.format(serial=self._serial) if self._token is not None else ""
        try:
            connection.commit(numbered + mark)
        except psycopg.Error as error:
            if is_lost(error):
                raise _InDoubt(results) from error
            raise

    def _was_committed(self) -> bool:
        """Find out whether the last transaction was committed; wait for the database as long as that takes.

        Raises:
            DatabaseUnavailable: nobody can tell.
        """
        unknown = DatabaseUnavailable(
            f"the connection to {self._name} was lost in the middle of a commit, whose fate is unknown; "
            "read again before doing it again"
        )
        if self._token is None:
            raise unknown
        pause = _RETRY_FIRST
        while not self._closed:
            try:
                row = self._session.connection().script(_MARKED)
            except (psycopg.Error, OSError) as error:
                self._session.drop()
                self.trouble = str(self._explain(error))
            else:
                if row is None or row[0] != self._token:  # another server has come and gone meanwhile
                    raise unknown
                return int(row[1]) == self._serial
            time.sleep(pause)
            pause = min(pause * 2, _RETRY_LAST)
        raise unknown
