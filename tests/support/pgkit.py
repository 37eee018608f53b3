"""PostgreSQL for tests: a private cluster on a Unix socket in a folder of its own, and a schema for each test.

`PADDOCK_TEST_POSTGRES` may name a server instead (a URL whose user may make schemas); what has to restart one is skipped then.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
from leftovers import MARKER

GIVEN = os.environ.get("PADDOCK_TEST_POSTGRES")
SECRET = "pa55-%2F&word"  # of the one user that needs a password, as it stands in a URL

_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",  # no power is cut here
    "shared_buffers": "16MB",
    "max_connections": "60",
    "autovacuum": "off",
    "log_min_messages": "fatal",
}
_LIMIT = 60.0
_ACCESS = "local all keeper scram-sha-256\nlocal all all trust\n"


def programs() -> str | None:
    """Return the folder of PostgreSQL's programs, None where there is none."""
    found = shutil.which("postgres")
    if found is not None and shutil.which("initdb"):
        return os.path.dirname(os.path.realpath(found))
    newest = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return str(newest[-1].parent) if newest else None


class Cluster:
    """A PostgreSQL server of our own."""

    def __init__(self, folder: str) -> None:
        self._bin = programs()
        self._folder = folder
        self._data = os.path.join(folder, "data")
        # postgres refuses to run as root
        self._as = (
            {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
        )
        self._env = {name: value for name, value in os.environ.items() if name != MARKER and not name.startswith("PG")}
        if self._as:
            shutil.chown(folder, "nobody")
        self._run(
            "initdb",
            "-D",
            self._data,
            "-U",
            "paddock",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-locale",
            "--no-sync",
            "--no-instructions",
        )
        Path(self._data, "pg_hba.conf").write_text(_ACCESS)
        self.start()
        with self.connect() as connection:
            connection.execute("CREATE USER keeper PASSWORD 'pa55-/&word' CREATEDB")
            connection.execute("GRANT CREATE ON DATABASE postgres TO keeper")

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [os.path.join(self._bin, program), *arguments],
            check=False,
            cwd="/",
            env=self._env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            **self._as,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        options = " ".join(f"-c {name}={value or chr(39) * 2}" for name, value in _SETTINGS.items())
        log = os.path.join(self._folder, "log")
        self._run("pg_ctl", "start", "-w", "-s", "-D", self._data, "-l", log, "-o", f"{options} -k {self._folder}")

    def stop(self, how: str = "fast") -> None:
        self._run("pg_ctl", "stop", "-w", "-s", "-D", self._data, "-m", how)

    def url(self, schema: str | None = None, user: str = "paddock") -> str:
        options = f"&options={quote(f'-csearch_path={schema}')}" if schema else ""
        return f"postgresql://{user}@/postgres?host={quote(self._folder, safe='')}{options}"

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(self.url(), autocommit=True)


class GivenServer:
    """A server that somebody else runs."""

    def url(self, schema: str | None = None, user: str = "") -> str:
        options = f"options={quote(f'-csearch_path={schema}')}" if schema else ""
        return f"{GIVEN}{'&' if '?' in GIVEN else '?'}{options}" if options else GIVEN

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(GIVEN, autocommit=True)


@contextmanager
def cluster() -> Iterator[Cluster | GivenServer]:
    """Run a server for as long as the block lasts."""
    if GIVEN:
        yield GivenServer()
        return
    folder = tempfile.mkdtemp(prefix="pdk-pg-", dir="/tmp")
    try:
        running = Cluster(folder)
        try:
            yield running
        finally:
            running.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def schema(server: Cluster | GivenServer) -> Iterator[str]:
    """Make an empty schema, yield its URL, and drop it again."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    with server.connect() as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    try:
        yield server.url(name)
    finally:
        with server.connect() as connection:
            connection.execute("SET client_min_messages = error")
            connection.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE")


def cut_off(server: Cluster | GivenServer, pid: int) -> None:
    """End a connection, named by the pid at the server's end, and wait until it is gone with its locks."""
    with server.connect() as connection:
        connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
        deadline = time.monotonic() + _LIMIT
        while connection.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchone():
            assert time.monotonic() < deadline, f"connection {pid} does not end"
            time.sleep(0.005)


def emptied(url: str) -> None:
    """Empty the tables of a schema that was used before, so that it is as new."""
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace AND relname <> 'paddock_schema'"
        )
        names = [row[0] for row in found]
        if names:
            connection.execute(f"TRUNCATE {', '.join(names)} RESTART IDENTITY")
            connection.execute("INSERT INTO paddock_last_event VALUES (TRUE, 0)")
