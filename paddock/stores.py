"""Bring a store of your own: what it is made of, and what there is to build on. Hold it to its promises with `paddock.testing.exercise_store`."""

from typing import TYPE_CHECKING, Any

from paddock.runtime.store.database import Database, NoLock, Remark, ServerLock, Upkeep
from paddock.runtime.store.reading import Reader
from paddock.runtime.store.schemes import database_of
from paddock.runtime.store.sql_store import SqlStore
from paddock.runtime.store.sqlite import MemoryStore, SqliteStore
from paddock.runtime.store.sqlite_database import MemoryDatabase, SqliteDatabase
from paddock.runtime.store.thread import Call, ConnectionThread, Failed
from paddock.runtime.store.transaction import Cursor, Transaction
from paddock.runtime.store.turn import ServerNote
from paddock.runtime.store.window import Window

if TYPE_CHECKING:
    from paddock.runtime.store.postgres.database import PostgresDatabase

__all__ = [
    "Call",
    "ConnectionThread",
    "Cursor",
    "Database",
    "Failed",
    "MemoryDatabase",
    "MemoryStore",
    "NoLock",
    "PostgresDatabase",
    "Reader",
    "Remark",
    "ServerLock",
    "ServerNote",
    "SqlStore",
    "SqliteDatabase",
    "SqliteStore",
    "Transaction",
    "Upkeep",
    "Window",
    "database_of",
]


def __getattr__(name: str) -> Any:
    """Import what needs psycopg when it is asked for."""
    if name != "PostgresDatabase":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from paddock.runtime.store.postgres.database import PostgresDatabase

    return PostgresDatabase
