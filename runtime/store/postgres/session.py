"""A connection that comes back: made when it is needed, dropped when it breaks, made again at the next need."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict

from ...base.errors import ConfigError, DatabaseDamaged, DatabaseUnavailable
from .connection import PostgresConnection
from .faults import redacted

__all__ = ["Session", "Target"]

#: Unless the URL says otherwise. A peer that is gone without a word is noticed within half a minute, on both sides.
_DEFAULTS: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
# A role's or a database's own settings must not end our transactions, nor wait for ever for a process that stands still in one.
_SETTINGS = """
SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = '60s'; SET extra_float_digits = 1;
SET standard_conforming_strings = on; SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;
"""
_NEVER_IDLE = "SET idle_session_timeout = 0; "
_NEVER_IDLE_FROM = 140_000
# FULL: an acknowledged commit is on the disk; where a stronger setting stands (a standby has it too) it stays.
_FULL = "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') IN ('off', 'local'); "
_RELAXED = "SET synchronous_commit = off; "
_SCHEMA = "SELECT current_schema()::regnamespace::oid::bigint"
_OLDEST = 130_000
_IDENTITY = "SELECT oid::bigint, current_schema() FROM pg_database WHERE datname = current_database()"
_CLUSTER = "SELECT system_identifier FROM pg_control_system()"


@dataclass(slots=True)
class Target:
    """A database that a URL names. Every session of this process to it shares one.

    Attributes:
        name: the database as messages name it: no password.
        identity: what tells it from every other, once a session has asked it (`Session.identify`).
    """

    url: str = field(repr=False)
    name: str = ""
    parameters: dict[str, Any] = field(default_factory=dict, repr=False)
    identity: str | None = None

    def __post_init__(self) -> None:
        """Read the URL; raises ConfigError."""
        try:
            self.parameters = dict(conninfo_to_dict(self.url))
        except psycopg.ProgrammingError as error:
            raise ConfigError(
                f"db={redacted(self.url)!r} is no PostgreSQL URL: {redacted(str(error).strip())}"
            ) from None
        self.name = _name(self.parameters)

    @property
    def place(self) -> str:
        """Return what names the database as far as its URL does."""
        found = self.parameters
        return "|".join(str(found.get(part, "")) for part in ("hostaddr", "host", "port", "dbname", "user", "options"))


def _name(found: dict[str, Any]) -> str:
    user = f"{quote(str(found['user']), safe='')}@" if found.get("user") else ""
    host, port = str(found.get("host") or found.get("hostaddr") or ""), found.get("port")
    database = quote(str(found.get("dbname") or found.get("user") or ""), safe="")
    if host.startswith("/"):
        return f"postgresql://{user}/{database}?host={host}" + (f"&port={port}" if port else "")
    return f"postgresql://{user}{host}{f':{port}' if port else ''}/{database}"


class Session:
    """One connection to a target at a time.

    Args:
        target: the database.
        relaxed: a commit is acknowledged before it is on the disk (`synchronous="NORMAL"`).
        application: what PostgreSQL shows it as.
    """

    def __init__(self, target: Target, *, relaxed: bool = False, application: str = "paddock") -> None:
        """Connect at the first need."""
        self.target = target
        self.relaxed = relaxed
        self.application = application
        #: Called with each new connection before anything else is done on it; what it raises closes the connection.
        self.arrived: Callable[[PostgresConnection], None] | None = None
        self._open: PostgresConnection | None = None

    @property
    def is_open(self) -> bool:
        """Tell whether there is a connection, as far as is known."""
        return self._open is not None and not self._open.raw.closed

    def connection(self) -> PostgresConnection:
        """Return the connection, made anew where there is none.

        Raises:
            psycopg.Error: it cannot be made.
            DatabaseUnavailable: there is no schema to work in.
        """
        if self._open is not None and not self._open.raw.closed:
            return self._open
        self._open = None
        options = {name: value for name, value in _DEFAULTS.items() if name not in self.target.parameters}
        made = PostgresConnection.open(
            self.target.url, client_encoding="UTF8", application_name=self.application, **options
        )
        try:
            self._set_up(made)
        except BaseException:
            made.close()
            raise
        self._open = made
        return made

    def _set_up(self, made: PostgresConnection) -> None:
        idle = _NEVER_IDLE if made.raw.info.server_version >= _NEVER_IDLE_FROM else ""
        row = made.script(_SETTINGS + idle + (_RELAXED if self.relaxed else _FULL) + _SCHEMA)
        if row[0] is None:
            raise DatabaseUnavailable(
                f"{self.target.name} has no schema to work in: make the one that search_path names"
            )
        made.namespace = int(row[0])
        if self.arrived is not None:
            self.arrived(made)

    def identify(self, made: PostgresConnection) -> None:
        """Learn which database this is; refuse one that is another than before.

        Raises:
            DatabaseUnavailable: it is too old, or does not keep texts as UTF-8.
            DatabaseDamaged: another database answers at the address of the one that was open.
        """
        name = self.target.name
        if made.raw.info.server_version < _OLDEST:
            raise DatabaseUnavailable(
                f"{name} is PostgreSQL {made.raw.info.server_version // 10_000}; Paddock needs 13 or later"
            )
        encoding = made.raw.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise DatabaseUnavailable(
                f"{name} has the encoding {encoding}; make a database with UTF8: createdb -E UTF8 -T template0"
            )
        number, schema = made.script(_IDENTITY)
        try:
            (cluster,) = made.script(_CLUSTER)
        except psycopg.errors.InsufficientPrivilege:
            cluster = hashlib.sha256(self.target.place.encode()).hexdigest()
        found = f"postgresql:{cluster}/{number}/{schema}"
        if self.target.identity not in (None, found):
            raise DatabaseDamaged(
                f"another database answers as {name} than before; nothing more is accepted. Bring the old one back, or restart the server."
            )
        self.target.identity = found

    def drop(self) -> None:
        """Close the connection, if there is one."""
        if self._open is not None:
            self._open.close()
            self._open = None
