"""The lock that makes one server per database, and the note by which others find that server.

The lock is an advisory lock of the session in which the server writes. So a write that is committed was made while the lock was held; a
server whose connection broke takes the lock again before anything else, and is refused where another server has come meanwhile. Who
holds it is read off that session's name in `pg_stat_activity`: it bears pid, machine and a token of this start.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import time
from typing import Any

import psycopg

from ...base.errors import DatabaseUnavailable, ServerAlreadyRunning
from ..turn import ServerNote
from .connection import PostgresConnection
from .faults import explain
from .session import Session, Target

__all__ = ["PostgresLock", "is_held", "read_note"]

_SERVER_LOCK = 0
_ALIVE, _DYING, _PAUSE = 0.2, 10.0, 0.02
_APPLICATION = "paddock-server {pid} {host} {token}"
_HELD_BY = re.compile(r"paddock-server (\d+) (\S+) (\w+)")
_HOLDER = """
SELECT a.pid, a.application_name FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.classid::bigint = {high} AND l.objid::bigint = {low}
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_SIGN = """
INSERT INTO paddock_server (token, serial, pid, host) VALUES (?1, 0, ?2, ?3)
ON CONFLICT (only_row) DO UPDATE SET token = ?1, serial = 0, pid = ?2, host = ?3, run_dir = NULL, address = NULL
"""
_NOTE = "UPDATE paddock_server SET pid = ?, run_dir = ?, address = ?"
_NOTED = "SELECT pid, run_dir, address, host FROM paddock_server"
_LEAVE = "DELETE FROM paddock_server WHERE token = ?"


class PostgresLock:
    """The server's lock on one database, with the session that holds it."""

    def __init__(self, target: Target) -> None:
        """Hold the parts; `serve` takes the lock."""
        self.token = secrets.token_hex(4)
        self._target = target
        self._pid = os.getpid()
        self._host = _this_machine()
        name = _APPLICATION.format(pid=self._pid, host=self._host, token=self.token)
        self.session = Session(target, application=name)
        self.session.arrived = self._arrived
        self.writer: Any = None

    def serve(self, pid: int, **facts: object) -> None:
        """Take the server's lock for the life of this session.

        Raises:
            ServerAlreadyRunning: another server holds it; its pid is named, and its machine where that is another.
            DatabaseUnavailable: the database cannot be reached.
        """
        try:
            self.session.connection()
        except psycopg.Error as error:
            raise explain(error, self._target.name) from None

    def _arrived(self, made: PostgresConnection) -> None:
        self.session.identify(made)
        key = made.key(_SERVER_LOCK)
        began = time.monotonic()
        while not made.script(f"SELECT pg_try_advisory_lock({key})")[0]:
            backend, name = _holder(made, key)
            found = _HELD_BY.match(name or "")
            pid, host, token = (int(found[1]), found[2], found[3]) if found else (0, "", "")
            if token == self.token:  # our own connection, of which PostgreSQL does not know yet that it broke
                made.script(f"SELECT pg_terminate_backend({backend})")
            elif backend is not None and time.monotonic() - began > (_DYING if self._has_died(pid, host) else _ALIVE):
                elsewhere = f" (it is on the machine {host})" if host not in ("", self._host) else ""
                raise ServerAlreadyRunning(f"{self._target.name}{elsewhere}", pid)
            time.sleep(_PAUSE)

    def _has_died(self, pid: int, host: str) -> bool:
        """Tell whether the holder is a process of this machine that is gone: its lock follows it in a moment."""
        if host != self._host or not pid:
            return False
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return False

    def sign(self, tx: Any) -> None:
        """Write this server's row; in the transaction that migrates."""
        tx.execute(_SIGN, (self.token, self._pid, self._host))

    def note(self, *, pid: int, run_dir: str | None = None, address: str | None = None) -> None:
        """Write down what others need to find this server.

        Raises:
            OSError: it cannot be written now.
        """
        try:
            self.writer.call_now(lambda tx: tx.execute(_NOTE, (pid, run_dir, address)) and None)
        except DatabaseUnavailable as error:
            raise OSError(0, str(error)) from None

    def leave(self, *, remove: bool = True) -> None:
        """Give the lock back with its session; the note goes too, unless the next server is to find it."""
        try:
            if self.session.is_open:
                connection = self.session.connection()
                if remove:
                    connection.execute(_LEAVE, (self.token,))
                # said, and not left to the end of the session, of which PostgreSQL takes note a moment later
                connection.script(f"SELECT pg_advisory_unlock({connection.key(_SERVER_LOCK)})")
        except psycopg.Error:
            pass  # the next server writes its own over it
        finally:
            self.session.drop()


def read_note(session: Session) -> ServerNote | None:
    """Return who serves a database; None for nobody ever. `pid` is 0 where that server is gone.

    Raises:
        psycopg.Error: the database cannot be read.
    """
    connection = session.connection()
    _, name = _holder(connection, connection.key(_SERVER_LOCK))
    found = _HELD_BY.match(name or "")
    pid, host = (int(found[1]), found[2]) if found else (0, "")
    try:
        row = connection.script(_NOTED)
    except psycopg.errors.UndefinedTable:
        row = None
    if row is None:
        return ServerNote(pid, host=_elsewhere(host)) if pid else None
    noted_pid, run_dir, address, noted_host = row
    if pid and (noted_pid, noted_host) != (pid, host):  # it has just come, and has not written its own yet
        return ServerNote(pid, host=_elsewhere(host))
    return ServerNote(pid, run_dir, address, _elsewhere(noted_host))


def is_held(tx: Any) -> bool:
    """Tell, within a transaction of a store, whether a server holds the lock."""
    return _holder(tx, tx.key(_SERVER_LOCK))[0] is not None


def _holder(connection: PostgresConnection, key: int) -> tuple[int | None, str | None]:
    row = connection.script(_HOLDER.format(high=key >> 32, low=key & 0xFFFFFFFF))
    return (row[0], row[1]) if row else (None, None)


def _this_machine() -> str:
    return re.sub(r"\s", "-", socket.gethostname())[:24] or "localhost"


def _elsewhere(host: str) -> str | None:
    return host if host not in ("", _this_machine()) else None
