"""The schema in PostgreSQL: the migrations of `migrations.py`, table for table, with its own types; all of them in one transaction."""

from __future__ import annotations

from ...base.errors import DatabaseDamaged, DatabaseTooNew
from ...base.probes import reach
from .. import migrations
from ..transaction import Transaction
from .dialect import schema

__all__ = ["check_version", "migrate", "read_version"]

_HAS = "SELECT 1 FROM pg_class WHERE relname = 'paddock_schema' AND relnamespace = current_schema()::regnamespace"
_TABLES = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace"

#: What SQLite keeps otherwise, one row each: what the server notes of itself (`lock.py`), and the number of the newest event.
_ROWS = {
    "paddock_server": """CREATE TABLE paddock_server (
        only_row BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (only_row),
        token TEXT NOT NULL, serial BIGINT NOT NULL, pid BIGINT NOT NULL, host TEXT NOT NULL, run_dir TEXT, address TEXT
    )""",
    "paddock_last_event": """CREATE TABLE paddock_last_event (
        only_row BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (only_row), number BIGINT NOT NULL
    )""",
}


def read_version(tx: Transaction, name: str) -> int:
    """Return the schema version that the database holds, 0 for none.

    Raises:
        DatabaseDamaged: our table of versions is there but cannot be read.
    """
    if tx.execute(_HAS).fetchone() is None:
        return 0
    row = tx.execute("SELECT max(version) FROM paddock_schema").fetchone()
    if row[0] is None:
        raise DatabaseDamaged(f"the table paddock_schema of {name} is empty: it was damaged. Restore a backup.")
    return int(row[0])


def check_version(version: int, name: str) -> None:
    """Refuse a database that a later Paddock wrote; raises DatabaseTooNew."""
    if version > migrations.SCHEMA_VERSION:
        raise DatabaseTooNew(
            f"{name} has schema version {version}; this Paddock knows up to {migrations.SCHEMA_VERSION}. "
            "Upgrade Paddock, or open a copy from before the upgrade."
        )


def migrate(tx: Transaction, name: str) -> int:
    """Check the tables and bring them to this version, in the open transaction; return the version found.

    Raises:
        DatabaseTooNew: a later Paddock wrote it.
        DatabaseDamaged: tables are missing.
    """
    version = read_version(tx, name)
    check_version(version, name)
    found = {row[0] for row in tx.execute(_TABLES)}
    missing = migrations.tables(version) - found
    if missing:
        raise DatabaseDamaged(f"{name} lacks {', '.join(sorted(missing))}: it was damaged. Restore a backup.")
    for number, script in enumerate(migrations.MIGRATIONS[version:], start=version + 1):
        for statement in filter(str.strip, schema(script).split(";")):
            tx.execute(statement)
        if number == 1:
            tx.execute("CREATE TABLE paddock_schema (version BIGINT PRIMARY KEY)")
        tx.execute("INSERT INTO paddock_schema VALUES (?)", (number,))
        reach("server.migrate")
    for table, statement in _ROWS.items():
        if table not in found:  # the right to make tables is not needed where there is nothing to make
            tx.execute(statement)
            if table == "paddock_last_event":
                tx.execute("INSERT INTO paddock_last_event SELECT TRUE, coalesce(max(id), 0) FROM paddock_events")
    return version
