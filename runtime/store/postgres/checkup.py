"""What `paddock doctor` looks at in PostgreSQL itself: what its settings mean for us. Reads only."""

from __future__ import annotations

from collections.abc import Iterator

from ..database import Remark
from ..transaction import Transaction

__all__ = ["check_up"]

_SETTINGS = "SELECT name, setting FROM pg_settings WHERE name IN ('server_version', 'fsync', 'full_page_writes', 'synchronous_commit', 'max_connections')"
_STATE = """
SELECT pg_is_in_recovery(), (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
       coalesce((SELECT max(extract(epoch FROM now() - xact_start)) FROM pg_stat_activity
                 WHERE datname = current_database() AND state LIKE 'idle in transaction%'), 0)
"""
_LONG = 300
_FEW = 20


def check_up(tx: Transaction) -> Iterator[Remark]:
    """Say how the server that keeps the database is set up."""
    settings = dict(tx.execute(_SETTINGS).fetchall())
    standby, connections, idle = tx.execute(_STATE).fetchone()
    yield Remark("ok", f"PostgreSQL {settings['server_version']}")
    for name in ("fsync", "full_page_writes"):
        if settings[name] != "on":
            yield Remark("problem", f"{name} is off: a power cut may damage the database", f"set {name} = on")
    if settings["synchronous_commit"] == "off":
        yield Remark(
            "note", "synchronous_commit is off here; Paddock sets it on for its own commits, unless told NORMAL"
        )
    if standby:
        yield Remark("problem", "it is a standby, and read-only", "name the primary")
    most = int(settings["max_connections"])
    if most - connections < _FEW:
        yield Remark(
            "problem",
            f"{connections} of {most} connections are in use; each child takes one, the server three",
            "raise max_connections, or lower max_processes",
        )
    if idle > _LONG:
        yield Remark(
            "note",
            f"somebody's transaction has been idle for {idle:.0f}s; it keeps dead rows from being cleaned up",
            "see pg_stat_activity, and end it",
        )
