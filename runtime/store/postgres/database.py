"""PostgreSQL as a kind of database."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import ClassVar

import psycopg

from ...base.config import SqlitePragmas
from ...base.errors import DatabaseDamaged
from ..database import Database, Remark
from ..reading import Reader
from ..sql_store import SqlStore
from ..transaction import Transaction
from ..turn import ServerNote
from . import schema
from .checkup import check_up
from .core_db import CoreDb
from .faults import explain
from .lock import PostgresLock, is_held, read_note
from .session import Session, Target
from .store import PostgresStore

__all__ = ["PostgresDatabase"]


class PostgresDatabase(Database):
    """A PostgreSQL database: ``"postgresql://user:password@host/name"``, or whatever libpq takes as a URL.

    What the URL leaves out libpq takes from its environment (`PGPASSWORD`, `PGSERVICE`, …) and from `~/.pgpass`.
    """

    preload: ClassVar[tuple[str, ...]] = ("psycopg", "paddock.runtime.child.process")

    def __init__(self, url: str) -> None:
        """Read the URL; raises ConfigError."""
        super().__init__(url)
        scheme, _, rest = url.partition("://")
        self.target = Target(url if ":" not in scheme else f"postgresql://{rest}")

    @property
    def address(self) -> str:
        """Return the URL; of a class that builds on this one, what names it too."""
        return self.url if type(self) is PostgresDatabase else super().address

    @property
    def name(self) -> str:
        """Return the URL without its password."""
        return self.target.name

    @property
    def label(self) -> str:
        """Return the database's own name."""
        return str(self.target.parameters.get("dbname") or "postgresql")

    @property
    def identity(self) -> str:
        """Return which database of which cluster it is, whatever the URL calls its host."""
        if self.target.identity is None:
            with self._look() as session:
                session.identify(session.connection())
        return str(self.target.identity)

    @contextlib.contextmanager
    def _look(self) -> Iterator[Session]:
        session = Session(self.target, application="paddock")
        try:
            yield session
        except psycopg.Error as error:
            raise explain(error, self.name) from None
        finally:
            session.drop()

    # --- the server's side ---

    def lock(self, pragmas: SqlitePragmas) -> PostgresLock:
        """Return the server's lock; raises nothing yet."""
        return PostgresLock(self.target)

    def open(self, pragmas: SqlitePragmas, lock: PostgresLock | None = None) -> PostgresStore:
        """Make or open the tables; raises DatabaseTooNew, DatabaseDamaged, DatabaseUnavailable."""
        return PostgresStore.open(self.target, lock)

    # --- the child's side ---

    def open_child(self, pragmas: SqlitePragmas) -> PostgresStore:
        """Connect at the first use, as often as that takes."""
        return PostgresStore.open_child(self.target, pragmas)

    def core_db(self, pragmas: SqlitePragmas) -> CoreDb:
        """Return a connection of psycopg's, made at its first use."""
        return CoreDb(self.target)

    # --- people ---

    @contextlib.contextmanager
    def reader(self) -> Iterator[Reader]:
        """Open it for reading only; raises DatabaseUnavailable, DatabaseDamaged, DatabaseTooNew."""
        with self._look() as session:
            connection = session.connection()
            version = schema.read_version(connection, self.name)
            if version == 0:
                raise DatabaseDamaged(f"{self.name} is no database of Paddock's: no server has run on it")
            schema.check_version(version, self.name)
            yield Reader(connection, self.name, version, psycopg.Error, explain)

    def note(self) -> ServerNote | None:
        """Return who serves it, or was the last to; raises DatabaseUnavailable."""
        with self._look() as session:
            return read_note(session)

    def check_up(self, tx: Transaction) -> Iterator[Remark]:
        """Say how its server is set up."""
        return check_up(tx)

    def open_offline(self) -> SqlStore:
        """Open the tables as they are; raises DatabaseUnavailable."""
        return PostgresStore.open_child(self.target, SqlitePragmas(), patient=False)

    def is_served(self, tx: Transaction) -> bool:
        """Tell whether a server's session holds the lock."""
        return is_held(tx)
