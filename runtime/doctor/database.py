"""A database: the file, what SQLite says of it, and the work in it. Read-only, and by the SQLite library alone.

Opening the file by any other means, in the process of its server, would drop the server's locks on it (fcntl(2), "Record locking").
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from urllib.parse import quote

from ...watchdog.identity import ProcessIdentity, is_alive
from ..base.errors import PaddockError
from ..base.private import open_to_others
from ..base.records import Status
from ..store.migrations import SCHEMA_VERSION, read_version, tables
from ..store.openers import openers
from ..store.space import low_space
from ..store.sqlite import BESIDE
from ..store.transaction import Transaction
from ..store.worker import explain
from .finding import Finding, Level, note, ok, problem

__all__ = ["examine_database", "leases", "schema_version", "work"]

_AREA = "database"
_CHECK_SECONDS = 60.0
_CHECK_STEPS = 10_000
_LARGE_WAL = 256 * 2**20
_RESTORE = "stop the server, put a backup in its place (without -wal and -shm), and start the server"
_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "vboxsf", "afs", "ceph", "glusterfs", "fuse.sshfs", "virtiofs"}
)
_GOING, _RESTING = (Status.PENDING, Status.RUNNING), (Status.SLEEPING, Status.WAITING, Status.PAUSED)

_COUNTS = "SELECT status, count(*) FROM paddock_instances GROUP BY status"
_BLOCKED = (
    "SELECT id, json_extract(error, '$.message') FROM paddock_instances WHERE status = 'blocked' ORDER BY seq LIMIT 1"
)
_LEASES = """
SELECT i.id, l.pid, l.pid_start, l.boot_id, l.isolated, l.claimed_at FROM paddock_leases l JOIN paddock_instances i ON i.seq = l.instance
"""


def examine_database(path: str, server: int | None) -> list[Finding]:
    """Look at a database (its real path), whose server has the pid `server`, or that has none."""
    found = list(_file(path))
    if os.path.isfile(path) and os.path.getsize(path):
        found += _inside(path, server)
    return found


# --- the file ---


def _file(path: str) -> Iterator[Finding]:
    try:
        seen = os.stat(path)
    except OSError as error:
        yield problem(
            _AREA, f"there is no {path}: {error.strerror}", "name the database that the server was started with"
        )
        return
    if not stat.S_ISREG(seen.st_mode):
        yield problem(_AREA, f"{path} is no file", "name the database that the server was started with")
        return
    if seen.st_size == 0:
        yield problem(
            _AREA,
            f"{path} is empty: no server has run on it, or somebody has emptied it",
            f"if it held anything: {_RESTORE}",
        )
        return
    files = [path, *(path + suffix for suffix in BESIDE)]
    for name, mode in open_to_others(files).items():
        yield problem(_AREA, f"others may open {name} (mode {mode})", f"chmod 600 {name}")
    for name in files:
        with contextlib.suppress(OSError):
            yield from _ownership(name, os.stat(name))
    kind = _file_system(path)
    if kind in _NETWORK:
        yield problem(
            _AREA,
            f"{path} lies on a network file system ({kind}), whose locks do not hold what SQLite needs",
            "move it to a local disk",
        )
    if complaint := low_space(path):
        yield problem(_AREA, complaint, "until then nothing is accepted; all goes on by itself afterwards")
    elif os.statvfs(path).f_flag & os.ST_RDONLY:
        yield problem(
            _AREA,
            f"the disk of {path} is mounted read-only",
            "mount it for writing; look into the system's log for why it is not",
        )
    else:
        yield ok(_AREA, f"{path}: {seen.st_size / 2**20:.1f} MiB")


def _ownership(path: str, seen: os.stat_result) -> Iterator[Finding]:
    if os.geteuid() not in (0, seen.st_uid):
        yield problem(
            _AREA, f"{path} belongs to user {seen.st_uid}, you are {os.geteuid()}", "run server and doctor as that user"
        )


def _file_system(path: str) -> str:
    """Return the type of file system under a path, as /proc/mounts has it; empty where there is none."""
    best, kind = "", ""
    with contextlib.suppress(OSError), open("/proc/mounts", encoding="utf-8", errors="replace") as file:
        for line in file:
            point, name = line.split()[1:3]
            if len(point) >= len(best) and (path.startswith(point.rstrip("/") + "/") or point == "/"):
                best, kind = point, name
    return kind


# --- what is in it ---


def _inside(path: str, server: int | None) -> list[Finding]:
    # Where no -wal lies beside it nobody has it open; a look that says so to SQLite leaves no -wal and -shm behind.
    alone = "" if os.path.exists(f"{path}-wal") else "&immutable=1"
    try:
        connection = sqlite3.connect(f"file:{quote(path)}?mode=ro{alone}", uri=True, isolation_level=None)
    except sqlite3.Error as error:
        return [_refusal(error, path)]
    found: list[Finding] = []
    try:
        connection.execute("PRAGMA busy_timeout = 5000")
        found += _schema(connection, path)
        if not any(finding.level is Level.PROBLEM for finding in found):
            found += _pages(connection, path)
            found += _wal(path, server)
            found += work(connection, server)
            found += leases(connection, server)
    except (sqlite3.Error, PaddockError) as error:
        found.append(_refusal(error, path))
    finally:
        connection.close()
    return found


def _refusal(error: Exception, path: str) -> Finding:
    cause = explain(error, path) if isinstance(error, sqlite3.Error) else error
    return problem(
        _AREA, str(cause), _RESTORE if "damaged" in str(cause) else "see what stands in the way, and try again"
    )


def _schema(connection: sqlite3.Connection, path: str) -> Iterator[Finding]:
    version = read_version(connection, path)
    if version == 0:
        yield problem(
            _AREA,
            f"{path} holds no tables of Paddock's: no server has run on it",
            "name the database that the server was started with",
        )
    elif version > SCHEMA_VERSION:
        yield problem(
            _AREA, f"schema version {version} is newer than this Paddock's ({SCHEMA_VERSION})", "upgrade Paddock"
        )
    else:
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if missing := tables(version) - names:
            yield problem(
                _AREA, f"tables are missing: {', '.join(sorted(missing))}; the database was damaged", _RESTORE
            )
        else:
            yield schema_version(version)


def schema_version(version: int) -> Finding:
    """Tell which version of the schema an intact database has."""
    if version < SCHEMA_VERSION:
        return note(
            _AREA,
            f"schema version {version}; the next start of a server brings it to {SCHEMA_VERSION}",
            "make a backup before it",
        )
    return ok(_AREA, f"schema version {version}")


def _pages(connection: sqlite3.Connection, path: str) -> Iterator[Finding]:
    until = time.monotonic() + _CHECK_SECONDS
    connection.set_progress_handler(lambda: time.monotonic() > until, _CHECK_STEPS)
    try:
        rows = [row[0] for row in connection.execute("PRAGMA quick_check(5)")]
    except sqlite3.OperationalError as error:
        if "interrupted" not in str(error):
            raise
        yield note(
            _AREA,
            f"the check of all pages was given up after {_CHECK_SECONDS:.0f}s",
            f"sqlite3 {path} 'PRAGMA quick_check'",
        )
        return
    finally:
        connection.set_progress_handler(None, 0)
    if rows == ["ok"]:
        yield ok(_AREA, "every page is sound (quick_check)")
    else:
        yield problem(_AREA, f"the database is damaged: {'; '.join(rows)[:500]}", _RESTORE)


def _wal(path: str, server: int | None) -> Iterator[Finding]:
    try:
        size = os.stat(f"{path}-wal").st_size
    except OSError:
        return
    if server is not None and size > _LARGE_WAL:
        others = {pid: command for pid, command in openers(path).items() if pid not in (server, os.getpid())}
        named = "; ".join(f"{pid} ({command})" for pid, command in others.items()) or "nobody else that may be seen"
        yield problem(
            _AREA,
            f"the WAL has grown to {size >> 20} MiB: a reader holds an old snapshot. The database is open in: {named}",
            "end the reading transaction, or the process that holds it",
        )
    elif server is None and size:
        yield note(
            _AREA, f"{size >> 10:,} KiB wait in the WAL; it belongs to the database, copy neither without the other"
        )


def work(connection: Transaction, server: int | None) -> Iterator[Finding]:
    """Say what there is to do, and whether anybody does it."""
    counts = dict(connection.execute(_COUNTS).fetchall())
    yield ok(
        _AREA, "instances: " + (", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or "none")
    )
    going, resting = (sum(counts.get(status, 0) for status in group) for group in (_GOING, _RESTING))
    if server is None and going:
        yield problem(
            _AREA,
            f"{going} unfinished instance(s) that could go on, and no server runs",
            "start the server; they go on where they were",
        )
    if server is None and resting:
        yield note(_AREA, f"{resting} instance(s) sleep or wait, and no server runs to wake them", "start the server")
    if counts.get(Status.BLOCKED):
        ident, reason = connection.execute(_BLOCKED).fetchone()
        yield problem(
            _AREA,
            f"{counts[Status.BLOCKED]} instance(s) are blocked, the first is {ident}: {reason}",
            "bring back the code or plugin that is named, then start the server again or `retry`",
        )


def leases(connection: Transaction, server: int | None) -> Iterator[Finding]:
    """Say which slots the dead hold, and which processes work on without a server."""
    dead, living = [], []
    for ident, pid, start_time, boot, isolated, claimed_at in connection.execute(_LEASES):
        if isolated and pid is not None and is_alive(ProcessIdentity(pid, start_time, boot)):
            living.append(f"{ident} (pid {pid})")
        elif server is None or (isolated and pid is not None and time.time() - claimed_at > _CHECK_SECONDS):
            dead.append(ident)
    if dead:
        said = f"{len(dead)} slot(s) are held by processes that are dead: {', '.join(dead[:5])}"
        if server is None:
            yield note(_AREA, said, "the next start of the server settles them")
        else:
            yield problem(
                _AREA, f"{said}; the server has not noticed", "look at its log and its health; restart it with SIGHUP"
            )
    if server is None and living:
        yield note(
            _AREA,
            f"{len(living)} process(es) of a dead server work on: {', '.join(living[:5])}",
            "start the server within orphan_grace, and it adopts them; else they end themselves, and go on at the next start",
        )
