"""The PostgreSQL store: SQLite's operations on PostgreSQL's connections."""

from __future__ import annotations

import psycopg

from ...base.config import SqlitePragmas
from ..sql_store import SqlStore
from . import schema
from .faults import explain
from .lock import PostgresLock
from .session import Session, Target
from .worker import BEGIN, WRITE_LOCK, PostgresWorker

__all__ = ["PostgresStore"]


class PostgresStore(SqlStore):
    """One database, opened by one process; use `open` or `open_child`."""

    def __init__(self, target: Target, writer: PostgresWorker, reader: PostgresWorker | None = None) -> None:
        """Hold the workers; reads go to the writer where there is no reader."""
        super().__init__(target.name, writer, reader or writer)
        self._target = target

    @classmethod
    def open(cls, target: Target, lock: PostgresLock | None = None) -> PostgresStore:
        """Open a database, bring its schema to this version, and check what it is. For the server.

        Its commits wait for the disk whatever `synchronous` says: a claim that is taken back would give its epoch away twice.

        Raises:
            DatabaseTooNew: a later Paddock wrote it.
            DatabaseDamaged: tables are missing, or are others.
            DatabaseUnavailable: it cannot be reached or used.
        """
        session = lock.session if lock is not None else Session(target)
        if lock is None:
            session.arrived = session.identify
        try:
            _prepare(session, lock)
        except BaseException as error:
            if lock is None:
                session.drop()
            if isinstance(error, psycopg.Error):
                raise explain(error, target.name) from None
            raise
        writer = PostgresWorker(session, writes=True, token=lock.token if lock is not None else None)
        if lock is not None:
            lock.writer = writer
        return cls(target, writer, PostgresWorker(Session(target), writes=False))

    @classmethod
    def open_child(cls, target: Target, pragmas: SqlitePragmas, *, patient: bool = True) -> PostgresStore:
        """Open a database for one executor: one connection, made at the first use, and waited for where `patient`."""
        session = Session(target, relaxed=pragmas.synchronous == "NORMAL", application="paddock-child")
        return cls(target, PostgresWorker(session, writes=True, patient=patient))

    def _make_viewer(self) -> PostgresWorker:
        return PostgresWorker(Session(self._target), writes=False)


def _prepare(session: Session, lock: PostgresLock | None) -> None:
    """Migrate, and sign as the server, in one transaction."""
    connection = session.connection()
    connection.script(BEGIN.format(key=connection.key(WRITE_LOCK)))
    try:
        schema.migrate(connection, session.target.name)
        if lock is not None:
            lock.sign(connection)
    except BaseException:
        if connection.in_transaction:
            connection.script("ROLLBACK")
        raise
    connection.commit()
