"""The database as a file: whose it is, how it is opened, and what is refused without a byte changed."""

import asyncio
import contextlib
import os
import sqlite3
import stat
import sys
import threading
from pathlib import Path

import pytest
from storekit import NOW, claimed, ended, new, rows, step

from paddock import DatabaseDamaged, DatabaseTooNew, DatabaseUnavailable, PaddockError, SqlitePragmas
from paddock.runtime.store.browse import _BROKEN, _QUEUED_AGAIN, _TRIED_AGAIN
from paddock.runtime.store.checkpoint import Checkpointer
from paddock.runtime.store.events import _LOGS_OF_INSTANCE, _LOGS_OF_LEVEL
from paddock.runtime.store.migrations import MIGRATIONS, SCHEMA_VERSION, migrate
from paddock.runtime.store.own_lock import code_holds_write_lock
from paddock.runtime.store.reading import open_reader
from paddock.runtime.store.sqlite import SqliteStore, real_path
from paddock.runtime.store.turn import LockFile
from paddock.runtime.store.worker import open_connection

PRAGMAS = SqlitePragmas(synchronous="NORMAL", busy_timeout=0.05)


@pytest.fixture
def path(tmp_path) -> str:
    return str(tmp_path / "app.db")


def made(path: str) -> None:
    """Leave a database of ours, closed, with nothing beside it."""
    SqliteStore.open(path, PRAGMAS).close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/locks")
async def test_a_commit_that_takes_long_is_told_from_a_transaction_of_the_codes_own(path):
    inside, go_on = threading.Event(), threading.Event()
    with contextlib.closing(SqliteStore.open(path, PRAGMAS)) as store:
        with contextlib.closing(open_connection(path, PRAGMAS)) as code:
            assert not code_holds_write_lock(store, path)
            code.execute("BEGIN IMMEDIATE")
            assert code_holds_write_lock(store, path)
            code.execute("ROLLBACK")
        commit = asyncio.create_task(store._write(lambda _tx: (inside.set(), go_on.wait(60))))
        try:
            assert await asyncio.to_thread(inside.wait, 60)
            assert not code_holds_write_lock(store, path)
        finally:
            go_on.set()
        await commit
        assert not store.writes


def pragma(connection: sqlite3.Connection, name: str):
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


# --- how it is opened -----------------------------------------------------------------------------------------------


def test_every_file_is_for_its_owner_alone(path, tmp_path):
    old = os.umask(0)
    try:
        store = SqliteStore.open(path, PRAGMAS)
        store._writer.call_now(lambda tx: tx.execute("CREATE TABLE x (y)"))
        files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir() if file.is_file()}
        store.close()
    finally:
        os.umask(old)
    assert set(files) >= {"app.db", "app.db-wal", "app.db-shm", "app.db-paddock"}
    assert set(files.values()) == {0o600}


def test_files_that_are_open_to_others_are_named(path, capfd):
    """A copy that was put back with cp: what SQLite makes beside it is as open, and the server says so each time it opens it."""
    made(path)
    assert capfd.readouterr().err == ""
    for mode, wide in ((0o644, True), (0o640, True), (0o600, False)):
        os.chmod(path, mode)
        SqliteStore.open(path, PRAGMAS).close()
        said = capfd.readouterr().err
        if not wide:
            assert said == ""
            continue
        assert "others on this machine may open the database" in said
        assert f"{path} (mode {mode:o})" in said
        assert f"chmod 600 {path} {path}-wal {path}-shm" in said
        assert stat.S_IMODE(os.stat(path).st_mode) == mode  # it may be meant


@pytest.mark.parametrize("synchronous", ["FULL", "NORMAL", "EXTRA"])
def test_how_every_connection_is_opened(path, synchronous):
    pragmas = SqlitePragmas(synchronous=synchronous, busy_timeout="7s")
    store = SqliteStore.open(path, pragmas)
    for connection in (store._writer._connection, store._reader._connection):
        assert pragma(connection, "journal_mode") == "wal"
        assert pragma(connection, "wal_autocheckpoint") == 0
        assert pragma(connection, "synchronous") == 1
        assert pragma(connection, "foreign_keys") == 1
        assert pragma(connection, "busy_timeout") == 7000
    assert (store._position is not None) == (synchronous != "NORMAL")  # which syncs each commit, see test_sqlite_flush
    with pytest.raises(sqlite3.OperationalError):
        store._reader._connection.execute("CREATE TABLE x (y)")
    store.close()


async def test_what_is_committed_is_there_for_the_next(path):
    store = SqliteStore.open(path, PRAGMAS)
    lease = await claimed(store)
    await store.commit(lease, step("s", '"æøå 🐎"'), NOW)
    before = await store.get("a")
    store.close()
    store = SqliteStore.open(path, PRAGMAS)
    assert await store.get("a") == before
    assert (await store.load(lease)).steps["s"].output == '"æøå 🐎"'
    store.close()


async def test_a_reader_never_waits_for_a_writer(path):
    store = SqliteStore.open(path, PRAGMAS)
    await store.create(new("a"), NOW)
    stranger = sqlite3.connect(path, isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")
    assert (await store.get("a")).id == "a"
    stranger.execute("ROLLBACK")
    stranger.close()
    store.close()


async def test_a_closed_store_refuses(path):
    store = SqliteStore.open(path, PRAGMAS)
    store.close()
    store.close()
    with pytest.raises(DatabaseUnavailable, match="closed"):
        await store.create(new("a"), NOW)


def test_a_symlink_and_a_relative_path_are_that_database(path, tmp_path):
    made(path)
    (tmp_path / "link.db").symlink_to("app.db")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "chain").symlink_to("../link.db")
    for name in ("app.db", "link.db", "./sub/../app.db", "sub/chain", Path("link.db")):
        assert real_path(name) == path


# --- what is refused --------------------------------------------------------------------------------------------------


def broken(path: str, how: str) -> None:
    if how == "text":
        Path(path).write_text("this is no database, but it is longer than the header of one " * 40)
        return
    if how == "short":
        Path(path).write_text("no database")
        return
    made(path)
    if how == "cut":
        with open(path, "r+b") as file:
            file.truncate(os.path.getsize(path) // 2)
        return
    if how == "garbled":
        with open(path, "r+b") as file:
            file.seek(100)
            file.write(b"\xff" * 3000)
        return
    connection = sqlite3.connect(path)
    statement = {
        "newer": f"INSERT INTO paddock_schema VALUES ({SCHEMA_VERSION + 1})",
        "no version": "DELETE FROM paddock_schema",
        "no steps": "DROP TABLE paddock_steps",
        "no payloads": "DROP TABLE paddock_payloads",
        "no metadata": "DROP TABLE paddock_metadata",
        "no signals": "DROP TABLE paddock_signals",
    }[how]
    connection.execute(statement)
    connection.commit()
    connection.close()


_REFUSED = {
    "text": (DatabaseDamaged, "is not a database"),
    "short": (DatabaseDamaged, "is not a database"),
    "cut": (DatabaseDamaged, "damaged"),
    "garbled": (DatabaseDamaged, "damaged"),
    "newer": (DatabaseTooNew, f"schema version {SCHEMA_VERSION + 1}"),
    "no version": (DatabaseDamaged, "paddock_schema"),
    "no steps": (DatabaseDamaged, "lacks paddock_steps"),
    "no payloads": (DatabaseDamaged, "lacks paddock_payloads"),
    "no metadata": (DatabaseDamaged, "lacks paddock_metadata"),
    "no signals": (DatabaseDamaged, "lacks paddock_signals"),
}


@pytest.mark.parametrize("how", _REFUSED)
def test_what_cannot_be_ours_is_refused_and_left_as_it_is(path, tmp_path, how):
    broken(path, how)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    kind, words = _REFUSED[how]
    for _ in "ab":  # and again: a refusal leaves nothing behind that changes the next
        with pytest.raises(kind, match=words) as caught:
            SqliteStore.open(path, PRAGMAS)
        assert path in str(caught.value)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.name in before} == before
    assert not (tmp_path / "app.db-wal").exists()


def test_an_empty_file_is_a_new_database(path):
    """`touch app.db`, or a NamedTemporaryFile, is how many a program names a database."""
    Path(path).touch()
    made(path)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT max(version) FROM paddock_schema").fetchone()[0] == SCHEMA_VERSION
    connection.close()


def test_another_programs_tables_are_left_alone(path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.execute("INSERT INTO theirs VALUES (1)")
    connection.commit()
    made(path)
    assert connection.execute("SELECT x FROM theirs").fetchall() == [(1,)]
    connection.close()


@pytest.mark.parametrize("where", ["nowhere/app.db", ".", "/proc/app.db"])
def test_a_place_that_cannot_hold_one(tmp_path, where):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DatabaseUnavailable):
        SqliteStore.open(real_path(tmp_path / where), PRAGMAS)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_read_only(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(DatabaseUnavailable, match="writable"):
        SqliteStore.open(str(tmp_path / "app.db"), PRAGMAS)
    tmp_path.chmod(0o700)


def test_a_failed_migration_leaves_the_old_version(path, monkeypatch):
    made(path)
    monkeypatch.setattr(
        "paddock.runtime.store.migrations.MIGRATIONS", (*MIGRATIONS, "CREATE TABLE half (x); CREATE TABLE half (x)")
    )
    monkeypatch.setattr("paddock.runtime.store.migrations.SCHEMA_VERSION", SCHEMA_VERSION + 1)
    with pytest.raises(DatabaseUnavailable, match="half"):
        SqliteStore.open(path, PRAGMAS)
    monkeypatch.undo()
    made(path)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'half'").fetchone()[0] == 0
    connection.close()


def test_a_migration_runs_once(path):
    Path(path).touch()
    connection = open_connection(path, PRAGMAS)
    assert migrate(connection, path) == 0
    assert migrate(connection, path) == SCHEMA_VERSION
    assert connection.execute("SELECT version FROM paddock_schema").fetchall() == [
        (n + 1,) for n in range(SCHEMA_VERSION)
    ]
    connection.close()


def grown_from(version: int, path: str, monkeypatch: pytest.MonkeyPatch) -> sqlite3.Connection:
    """Open a database that was made by an earlier version of the schema, and brought to this one."""
    monkeypatch.setattr("paddock.runtime.store.migrations.MIGRATIONS", MIGRATIONS[:version])
    Path(path).touch()
    connection = open_connection(path, PRAGMAS)
    migrate(connection, path)
    monkeypatch.undo()
    assert migrate(connection, path) == version
    return connection


def test_log_records_are_found_by_an_index(path, monkeypatch):
    """Of a level among millions of events, from either end; also in a database that was made before there was one."""
    connection = grown_from(1, path, monkeypatch)
    for statement, index in ((_LOGS_OF_LEVEL, "paddock_logs "), (_LOGS_OF_INSTANCE, "paddock_logs_of ")):
        for way in ("ASC", "DESC"):
            rows = connection.execute(f"EXPLAIN QUERY PLAN {statement.format(way=way)}", [1] * statement.count("?"))
            [plan] = [row[3] for row in rows]
            assert index in plan
    connection.close()


def test_what_is_looked_at_first_is_found_by_indices(path, monkeypatch):
    """Among a million that sleep or wait their turn; also in a database that was made before there were these."""
    connection = grown_from(2, path, monkeypatch)
    for statement, index in (
        (_QUEUED_AGAIN, "paddock_queued_again"),
        (_TRIED_AGAIN, "paddock_retrying"),
        (_BROKEN.format(status="failed"), "paddock_broken"),
    ):
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", [1] * statement.count("?"))]
        assert f"INDEX {index} " in plan[0]
        assert not [line for line in plan if "SCAN" in line or "ORDER BY" in line], plan
    connection.close()


async def test_a_start_looks_through_no_table(path):
    """However many instances have finished: each statement of a start, a claim, a step and an end finds its rows by an index."""
    store = SqliteStore.open(path, PRAGMAS)
    said: list[str] = []
    await store._write(lambda tx: tx.set_trace_callback(said.append))
    await ended(store, "a")
    await store._write(lambda tx: tx.set_trace_callback(None))
    store.close()
    connection = open_connection(path, PRAGMAS)
    changes = [text for text in set(said) if text.lstrip().startswith(("SELECT", "UPDATE", "INSERT", "DELETE"))]
    # said with its values in place of the marks
    plans = {text: [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}")] for text in changes}
    connection.close()
    assert any("UPDATE paddock_instances SET epoch" in text for text in plans)
    scans = {line for plan in plans.values() for line in plan if line.startswith("SCAN")}
    assert {line.split()[1] for line in scans} <= {
        "sqlite_sequence",
        "paddock_leases",  # as long as what runs
        "CONSTANT",  # the row of an EXISTS
    }


@pytest.mark.parametrize(("how", "kind"), [("text", DatabaseDamaged), ("newer", DatabaseTooNew)])
def test_a_look_from_outside_refuses_the_same(path, how, kind):
    broken(path, how)
    with pytest.raises(kind), open_reader(path):
        pass


def test_a_look_makes_no_database(path, tmp_path):
    with pytest.raises(DatabaseUnavailable), open_reader(path):
        pass
    Path(path).touch()
    with pytest.raises(PaddockError), open_reader(path):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["app.db"]
    assert Path(path).read_bytes() == b""


# --- the one checkpointer -----------------------------------------------------------------------------------------------


async def test_the_wal_grows_until_the_checkpointer_runs(path):
    store = SqliteStore.open(path, PRAGMAS)
    checkpointer = Checkpointer(path, PRAGMAS, LockFile.of(path))
    lease = await claimed(store)
    for n in range(40):
        await store.commit(lease, step(f"s{n}", '"' + "x" * 50_000 + '"'), NOW)
    grown = checkpointer.wal_bytes()
    assert grown > 40 * 50_000  # nobody else has checkpointed
    assert not checkpointer.run(least_bytes=grown + 1)
    assert checkpointer.run()
    for n in range(40):
        await store.commit(lease, step(f"t{n}", '"' + "x" * 50_000 + '"'), NOW)
        checkpointer.run()
    assert checkpointer.wal_bytes() <= grown + 200_000  # it begins again from the front
    assert len((await store.get("a")).step_results) == 80
    checkpointer.close()
    store.close()


async def test_nothing_is_written_back_where_nothing_was_written(path):
    store = SqliteStore.open(path, PRAGMAS)
    checkpointer = Checkpointer(path, PRAGMAS, LockFile.of(path))
    await store.create(new("a"), NOW)
    while checkpointer.run(least_bytes=0):  # as long as a write might have left no trace
        await asyncio.sleep(0.01)
    await store.create(new("b"), NOW)
    assert checkpointer.run(least_bytes=0)
    checkpointer.close()
    store.close()


async def test_room_in_the_wal_is_made_once_and_holds_nothing(path):
    store = SqliteStore.open(path, PRAGMAS)
    await store.create(new("a"), NOW)
    checkpointer = Checkpointer(path, PRAGMAS, LockFile.of(path))
    before = rows(store)
    checkpointer.make_room()
    made = checkpointer.wal_bytes()
    assert made >= 2 * 2**20
    assert rows(store) == before
    lease = await claimed(store)
    for n in range(40):
        await store.commit(lease, step(f"s{n}", '"x"'), NOW)
    checkpointer.make_room()
    assert checkpointer.wal_bytes() == made  # the commits fitted in
    copy = sqlite3.connect(path)
    assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert not copy.execute("SELECT name FROM sqlite_master WHERE name = 'paddock_room'").fetchall()
    copy.close()
    checkpointer.close()
    store.close()
    assert Path(path).stat().st_size < 2**20


async def test_no_room_is_made_on_a_disk_that_is_nearly_full(path, monkeypatch):
    store = SqliteStore.open(path, PRAGMAS)
    checkpointer = Checkpointer(path, PRAGMAS, LockFile.of(path))
    monkeypatch.setattr("paddock.runtime.store.checkpoint._SPARE", 2**60)
    checkpointer.make_room()
    assert checkpointer.wal_bytes() < 2 * 2**20
    checkpointer.close()
    store.close()


async def test_a_reader_that_starves_the_checkpoint_is_reported(path, monkeypatch):
    monkeypatch.setattr("paddock.runtime.store.checkpoint._ALARM_BYTES", 100_000)
    store = SqliteStore.open(path, PRAGMAS)
    checkpointer = Checkpointer(path, PRAGMAS, LockFile.of(path))
    lease = await claimed(store)
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM paddock_steps").fetchone()
    for n in range(10):
        await store.commit(lease, step(f"s{n}", '"' + "x" * 50_000 + '"'), NOW)
    checkpointer.run(least_bytes=0)
    assert "old snapshot" in checkpointer.alarm
    reader.execute("ROLLBACK")
    checkpointer.run(least_bytes=0)
    assert checkpointer.alarm is None
    reader.close()
    checkpointer.close()
    store.close()


async def test_a_checkpoint_holds_the_write_lock(path, monkeypatch):
    """SQLite before 3.51.3 can damage a database when a commit resets the WAL under a checkpoint."""
    store = SqliteStore.open(path, PRAGMAS)
    await store.create(new("a"), NOW)
    checkpointer = Checkpointer(path, PRAGMAS, LockFile.of(path))
    stranger = sqlite3.connect(path, isolation_level=None, timeout=0)
    tried = []

    def look(point):
        if point == "server.checkpoint":
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                stranger.execute("BEGIN IMMEDIATE")
            tried.append(point)

    monkeypatch.setattr("paddock.runtime.store.checkpoint.reach", look)
    assert checkpointer.run(least_bytes=0)
    assert tried == ["server.checkpoint"]
    stranger.execute("BEGIN IMMEDIATE")  # and lets it go
    stranger.close()
    checkpointer.close()
    assert rows(store)["paddock_instances"] == 1
    store.close()


def test_a_database_that_has_its_schema_opens_while_others_hold_its_write_lock(path):
    made(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        SqliteStore.open(path, PRAGMAS).close()
        other.execute("ROLLBACK")
