"""A psycopg connection as the statements of the store see it: see `transaction.py`.

Values go with a type of their own, text, bigint or double precision, so that what a parameter is never hangs on how big it is; what is
summed up comes back as a number of Python's, and not as a Decimal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import psycopg
from psycopg.adapt import AdaptersMap, Loader
from psycopg.pq import TransactionStatus
from psycopg.types.numeric import Int8Dumper
from psycopg.types.string import StrDumper

from ...base.errors import InvalidInput
from ..transaction import Cursor
from .dialect import translate

__all__ = ["PostgresConnection"]


#: "padd", the upper half of our advisory locks' keys
_LOCKS = 0x70616464 << 32


class _NumberLoader(Loader):
    def load(self, data: Any) -> int | float:
        text = bytes(data).decode()
        return int(text) if text.lstrip("-").isdigit() else float(text)


_ADAPTERS = AdaptersMap(psycopg.adapters)
_ADAPTERS.register_dumper(str, StrDumper)
_ADAPTERS.register_dumper(int, Int8Dumper)
_ADAPTERS.register_loader("numeric", _NumberLoader)


class _Context:
    """What a connection takes its adapters from."""

    adapters = _ADAPTERS
    connection = None


class _Cursor:
    """What a statement gave."""

    __slots__ = ("_cursor", "_number", "_numbers")

    def __init__(self, cursor: psycopg.Cursor[Any], *, numbers: bool = False, number: int | None = None) -> None:
        self._cursor = cursor
        self._numbers = numbers
        self._number = number

    @property
    def description(self) -> Any:
        return self._cursor.description

    @property
    def rowcount(self) -> int:
        return self._cursor.rowcount

    @property
    def lastrowid(self) -> int | None:
        if self._numbers and self._number is None:
            self._number = int((self._cursor.fetchone() or (0,))[0])
        return self._number

    def fetchone(self) -> Any:
        return self._cursor.fetchone()

    def fetchall(self) -> list[Any]:
        return self._cursor.fetchall()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._cursor)


class _Known:
    """The answer to what needs no asking: one row."""

    description = None
    rowcount = -1
    lastrowid = None

    def __init__(self, row: tuple[Any, ...]) -> None:
        self._rows = [row]

    def fetchone(self) -> Any:
        return self._rows.pop() if self._rows else None

    def fetchall(self) -> list[Any]:
        rows, self._rows = self._rows, []
        return rows

    def __iter__(self) -> Iterator[Any]:
        return iter(self.fetchall())


class PostgresConnection:
    """Runs statements of the store on a psycopg connection. Transactions begin and end by statements, as on SQLite's."""

    @classmethod
    def open(cls, conninfo: str, **more: Any) -> PostgresConnection:
        """Connect; raises psycopg.Error."""
        raw = psycopg.connect(conninfo, autocommit=True, context=_Context(), cursor_factory=psycopg.RawCursor, **more)
        return cls(raw)

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        """Hold the connection."""
        self.raw = connection
        #: The number of the newest event, within a transaction that holds the writers' lock: nobody else makes one meanwhile.
        self.last_event: int | None = None
        #: The number of the schema that our tables lie in.
        self.namespace = 0

    def key(self, number: int) -> int:
        """Return the key of one of our advisory locks: those of this schema, so that two schemas of a database do not meet."""
        return _LOCKS + self.namespace * 4 + number

    @property
    def in_transaction(self) -> bool:
        """Tell whether a transaction is open, be it one that failed."""
        return self.raw.info.transaction_status != TransactionStatus.IDLE

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Cursor:
        """Run one statement of ours.

        Raises:
            InvalidInput: a text holds a NUL character, which PostgreSQL cannot store.
            psycopg.Error: what PostgreSQL refused.
        """
        told = translate(statement)
        number = None
        if told.asks_last and self.last_event is not None:
            return _Known((self.last_event,))
        if told.is_event:
            number = self.last_event = (self.last_event or 0) + 1
            values = (*values, number)
        cursor = self.raw.cursor()
        try:
            cursor.execute(told.text, values)
        except psycopg.DataError as error:
            raise _without_nul(error) from None
        return _Cursor(cursor, numbers=told.numbers, number=number)

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]], /) -> _Cursor:
        """Run one statement for each row of values; raises as `execute`."""
        cursor = self.raw.cursor()
        try:
            cursor.executemany(translate(statement).text, rows)
        except psycopg.DataError as error:
            raise _without_nul(error) from None
        return _Cursor(cursor)

    def script(self, text: str) -> Any:
        """Run statements of PostgreSQL's own in one go, without values; return the last row that came of them."""
        cursor = self.raw.execute(text, prepare=False)
        row = None
        while True:
            if cursor.description is not None:
                row = cursor.fetchone()
            if not cursor.nextset():
                return row

    def commit(self, before: str = "") -> None:
        """Commit, in one go with a statement before it.

        Raises:
            psycopg.Error: the transaction is not committed, or nobody knows (`faults.is_lost`).
        """
        cursor = self.raw.execute(f"{before}COMMIT", prepare=False)
        while cursor.nextset():
            continue
        if cursor.statusmessage != "COMMIT":  # a transaction that has failed commits as a ROLLBACK, without an error
            raise psycopg.InternalError(f"the transaction was rolled back ({cursor.statusmessage})")

    def close(self) -> None:
        """Close it."""
        self.raw.close()


def _without_nul(error: psycopg.DataError) -> Exception:
    if "NUL" not in str(error):
        return error
    return InvalidInput("a name or a key holds a NUL character, which PostgreSQL cannot store; leave it out")
