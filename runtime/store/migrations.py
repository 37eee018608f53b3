"""The schema, as numbered migrations. Each runs in one transaction; a database of a later version is refused.

All tables carry the prefix `paddock_`, because the database is also the application's and its plugins'. Rows refer to an instance
by the number of its row: short keys in every index. Payloads of an instance stand apart from its row, so that a change of status
does not rewrite megabytes. Nothing is rewritten as a journal grows: a step is one row, written when it begins and when it ends.
"""

from __future__ import annotations

import re
import sqlite3

from ..base.errors import DatabaseDamaged, DatabaseTooNew
from ..base.probes import reach

__all__ = ["MIGRATIONS", "SCHEMA_VERSION", "migrate", "read_version", "tables"]

_FIRST = """
CREATE TABLE paddock_instances (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    workflow_name TEXT NOT NULL,
    status TEXT NOT NULL,
    priority INTEGER NOT NULL DEFAULT 0,
    limit_key TEXT,
    error TEXT,
    created_at REAL NOT NULL,
    started_at REAL,
    completed_at REAL,
    wake_at REAL,
    deadline_at REAL,
    executions INTEGER NOT NULL DEFAULT 0,
    epoch INTEGER NOT NULL DEFAULT 0,
    parent_id TEXT,
    parent_key TEXT,
    version TEXT,
    pause_wanted INTEGER NOT NULL DEFAULT 0,
    crash_step TEXT,
    crash_mark INTEGER NOT NULL DEFAULT 0,
    crash_count INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX paddock_queue ON paddock_instances (workflow_name, priority DESC, seq)
    WHERE status = 'pending' AND wake_at IS NULL;
CREATE INDEX paddock_alarms ON paddock_instances (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX paddock_deadlines ON paddock_instances (deadline_at) WHERE deadline_at IS NOT NULL AND completed_at IS NULL;
CREATE INDEX paddock_by_name ON paddock_instances (workflow_name, status, id);
CREATE INDEX paddock_by_status ON paddock_instances (status, id);
CREATE INDEX paddock_children ON paddock_instances (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX paddock_ended ON paddock_instances (completed_at) WHERE completed_at IS NOT NULL;

CREATE TABLE paddock_payloads (
    instance INTEGER NOT NULL REFERENCES paddock_instances (seq) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (instance, kind)
);

CREATE TABLE paddock_leases (
    instance INTEGER PRIMARY KEY REFERENCES paddock_instances (seq) ON DELETE CASCADE,
    workflow_name TEXT NOT NULL,
    limit_key TEXT,
    isolated INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    slot INTEGER,
    pid INTEGER,
    pid_start INTEGER,
    boot_id TEXT,
    claimed_at REAL NOT NULL,
    out_position INTEGER NOT NULL DEFAULT 0,
    err_position INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX paddock_held ON paddock_leases (workflow_name, limit_key);

CREATE TABLE paddock_steps (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    instance INTEGER NOT NULL REFERENCES paddock_instances (seq) ON DELETE CASCADE,
    key TEXT NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    status TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    input TEXT,
    output TEXT,
    error TEXT,
    started_at REAL,
    completed_at REAL,
    wake_at REAL,
    deadline_at REAL,
    poll_count INTEGER NOT NULL DEFAULT 0,
    loop_count INTEGER NOT NULL DEFAULT 0,
    event_name TEXT,
    schema TEXT,
    child_id TEXT,
    UNIQUE (instance, key)
);

CREATE INDEX paddock_awaited_children ON paddock_steps (child_id) WHERE child_id IS NOT NULL AND status = 'waiting';

CREATE TABLE paddock_events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    instance INTEGER NOT NULL REFERENCES paddock_instances (seq) ON DELETE CASCADE,
    name TEXT NOT NULL,
    created_at REAL NOT NULL,
    data TEXT,
    ref INTEGER,
    payload INTEGER,
    level INTEGER
);
CREATE INDEX paddock_events_of ON paddock_events (instance, id);
CREATE INDEX paddock_logs_of ON paddock_events (instance, id) WHERE level IS NOT NULL;
CREATE INDEX paddock_kills ON paddock_events (id) WHERE name = 'workflow.watchdog.killed';

CREATE TABLE paddock_starts (
    workflow_name TEXT NOT NULL,
    at REAL NOT NULL
);
CREATE INDEX paddock_starts_of ON paddock_starts (workflow_name, at);

CREATE TABLE paddock_schedules (
    id TEXT PRIMARY KEY,
    workflow_name TEXT NOT NULL,
    cron TEXT,
    every REAL,
    tz TEXT NOT NULL,
    catch_up TEXT NOT NULL,
    input TEXT NOT NULL,
    created_at REAL NOT NULL,
    next_at REAL NOT NULL,
    last_at REAL,
    last_instance_id TEXT
);
CREATE INDEX paddock_schedules_due ON paddock_schedules (next_at);

CREATE TABLE paddock_metadata (
    instance INTEGER NOT NULL REFERENCES paddock_instances (seq) ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (instance, key)
);

CREATE TABLE paddock_signals (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    instance INTEGER NOT NULL REFERENCES paddock_instances (seq) ON DELETE CASCADE,
    name TEXT NOT NULL,
    payload TEXT NOT NULL,
    created_at REAL NOT NULL,
    taken_by TEXT
);
CREATE INDEX paddock_signals_of ON paddock_signals (instance, name, id) WHERE taken_by IS NULL;
"""

#: Log records by level, of all instances: those of a level are found among millions of events, from either end.
_LOGS = """
CREATE INDEX paddock_logs ON paddock_events (level, id) WHERE level IS NOT NULL;
"""

#: What is looked at first: what was queued again, what is tried again, what has ended badly and was not forked since. The statuses stand
#: in the indices beside their conditions, for without them SQLite thinks more of the index by status.
_NOW = """
ALTER TABLE paddock_instances ADD COLUMN forked_from INTEGER;
CREATE INDEX paddock_forks ON paddock_instances (forked_from) WHERE forked_from IS NOT NULL;
CREATE INDEX paddock_queued_again ON paddock_instances (status, started_at, id) WHERE status = 'pending' AND started_at IS NOT NULL;
CREATE INDEX paddock_broken ON paddock_instances (status, completed_at) WHERE status IN ('failed', 'timed_out');
CREATE INDEX paddock_retrying ON paddock_steps (status, wake_at) WHERE status = 'retrying' AND wake_at IS NOT NULL;
"""

#: Each migration brings a database from the version of its position to the next.
MIGRATIONS: tuple[str, ...] = (_FIRST, _LOGS, _NOW)
SCHEMA_VERSION = len(MIGRATIONS)


def tables(version: int) -> set[str]:
    """Return the names of the tables that a database of a version has."""
    return set(re.findall(r"CREATE TABLE (\w+)", "".join(MIGRATIONS[:version])))


def read_version(connection: sqlite3.Connection, path: str) -> int:
    """Return the schema version that the database holds, 0 for none.

    Raises:
        DatabaseDamaged: our table of versions is there but cannot be read.
    """
    found = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'paddock_schema'").fetchone()
    if not found[0]:
        return 0
    row = connection.execute("SELECT max(version) FROM paddock_schema").fetchone()
    if row[0] is None:
        raise DatabaseDamaged(f"the table paddock_schema of {path} is empty: it was damaged. Restore a backup.")
    return int(row[0])


def migrate(connection: sqlite3.Connection, path: str) -> int:
    """Bring the database to this version, all migrations in one IMMEDIATE transaction; return the version found.

    One that has it already is only read: whoever holds the write lock is waited for where there is something to write.

    Raises:
        DatabaseTooNew: a later Paddock wrote it.
    """
    if read_version(connection, path) == SCHEMA_VERSION:
        return SCHEMA_VERSION
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = read_version(connection, path)
        if version > SCHEMA_VERSION:
            raise DatabaseTooNew(
                f"{path} has schema version {version}; this Paddock knows up to {SCHEMA_VERSION}. "
                "Upgrade Paddock, or open a copy from before the upgrade."
            )
        for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
            for statement in filter(str.strip, script.split(";")):
                connection.execute(statement)
            connection.execute("CREATE TABLE IF NOT EXISTS paddock_schema (version INTEGER PRIMARY KEY)")
            connection.execute("INSERT INTO paddock_schema VALUES (?)", (number,))
            reach("server.migrate")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return version
