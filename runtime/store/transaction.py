"""What the statements of this package run on: a connection inside a transaction, whatever database is behind it.

Every function that decides takes one as `tx` and knows no more of it than this. `sqlite3.Connection` is one as it stands; another database
gives a thin object with the same few methods, and translates what it says differently (`postgres/dialect.py`). The statements are
SQLite's SQL, kept to what others say too: no function of SQLite's own where a common one does, a `CAST` where a parameter stands alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

__all__ = ["Cursor", "Transaction"]


class Cursor(Protocol):
    """What a statement gave."""

    @property
    def description(self) -> Any:
        """Describe each column; its name stands first."""
        ...

    @property
    def rowcount(self) -> int:
        """How many rows were changed."""
        ...

    @property
    def lastrowid(self) -> int | None:
        """The number of the row that was inserted last, in a table that numbers its rows."""
        ...

    def fetchone(self) -> Any:
        """Return the next row, or None."""
        ...

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""
        ...

    def __iter__(self) -> Iterator[Any]:
        """Go through the rows that are left."""
        ...


class Transaction(Protocol):
    """A connection, as the statements see it."""

    @property
    def in_transaction(self) -> bool:
        """Tell whether a transaction is open."""
        ...

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Cursor:
        """Run one statement; `?` or `?1`, `?2` … stand for the values."""
        ...

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]], /) -> Cursor:
        """Run one statement for each row of values."""
        ...
