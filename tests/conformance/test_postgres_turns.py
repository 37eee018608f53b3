"""PostgreSQL: how it is opened, who may write, and what becomes of a commit whose connection is lost."""

import asyncio
import os

import psycopg
import pytest
from pgkit import cut_off
from storekit import NOW, claimed, ids, new, rows, step, wanted

from paddock import DatabaseDamaged, DatabaseTooNew, DatabaseUnavailable, ServerAlreadyRunning, SqlitePragmas
from paddock.runtime.store.migrations import MIGRATIONS, SCHEMA_VERSION
from paddock.runtime.store.postgres.connection import PostgresConnection
from paddock.runtime.store.postgres.dialect import translate
from paddock.runtime.store.postgres.lock import PostgresLock
from paddock.runtime.store.postgres.session import Session, Target
from paddock.runtime.store.postgres.store import PostgresStore
from paddock.runtime.store.schemes import database_of, open_reader, read_note
from paddock.runtime.store.sqlite import MemoryStore
from paddock.stores import Window

PRAGMAS = SqlitePragmas()


def opened(url: str, lock: PostgresLock | None = None) -> PostgresStore:
    return PostgresStore.open(Target(url) if lock is None else lock._target, lock)


def change(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)


# --- how it is opened -----------------------------------------------------------------------------------------------------


async def test_the_tables_are_those_of_sqlite(postgres_url):
    store, memory = opened(postgres_url), MemoryStore()
    names = list(rows(memory))
    columns = (
        "SELECT column_name FROM information_schema.columns WHERE table_schema = current_schema() AND table_name = '{}'"
    )

    def theirs(tx):
        return {table: {row[0] for row in tx.execute(columns.format(table))} for table in names}

    def ours(tx):
        return {table: {row[1] for row in tx.execute(f"PRAGMA table_info({table})")} for table in names}

    def indexes(tx):
        return tx.execute(
            "SELECT count(*) FROM pg_indexes WHERE schemaname = current_schema() AND indexname LIKE 'paddock_%'"
        ).fetchone()

    assert store._writer.call_now(theirs) == memory._writer.call_now(ours)
    wanted_ones = memory._writer.call_now(
        lambda tx: tx.execute("SELECT count(*) FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL").fetchone()
    )
    assert store._writer.call_now(indexes)[0] >= wanted_ones[0]
    store.close()
    memory.close()


@pytest.mark.parametrize(
    ("synchronous", "told", "relaxed"),
    [("FULL", "off", "on"), ("FULL", "remote_apply", "remote_apply"), ("NORMAL", "on", "off")],
)
async def test_how_hard_a_commit_is(postgres_url, synchronous, told, relaxed):
    """FULL never takes away what the database's own setting gives, and NORMAL asks for no flush."""
    url = postgres_url.replace("options=-c", f"options=-csynchronous_commit%3D{told}%20-c")
    store = PostgresStore.open_child(Target(url), SqlitePragmas(synchronous=synchronous))
    made = store._writer._session.connection()
    assert made.script("SHOW synchronous_commit") == (relaxed,)
    assert made.script("SHOW idle_in_transaction_session_timeout") == ("1min",)
    store.close()


_WRONG = {
    "newer": (
        f"INSERT INTO paddock_schema VALUES ({SCHEMA_VERSION + 1})",
        DatabaseTooNew,
        f"schema version {SCHEMA_VERSION + 1}",
    ),
    "no version": ("DELETE FROM paddock_schema", DatabaseDamaged, "paddock_schema"),
    "no steps": ("DROP TABLE paddock_steps", DatabaseDamaged, "lacks paddock_steps"),
}


@pytest.mark.parametrize("how", _WRONG)
async def test_what_cannot_be_ours_is_refused(postgres_url, how):
    opened(postgres_url).close()
    statement, kind, words = _WRONG[how]
    change(postgres_url, statement)
    for _ in "ab":
        with pytest.raises(kind, match=words):
            opened(postgres_url)
    if how != "no steps":  # which a look does not need
        with pytest.raises(kind), open_reader(postgres_url):
            pass


async def test_a_failed_migration_leaves_the_old_version(postgres_url, monkeypatch):
    opened(postgres_url).close()
    monkeypatch.setattr(
        "paddock.runtime.store.migrations.MIGRATIONS",
        (*MIGRATIONS, "CREATE TABLE half (x TEXT); CREATE TABLE half (x TEXT)"),
    )
    monkeypatch.setattr("paddock.runtime.store.migrations.SCHEMA_VERSION", SCHEMA_VERSION + 1)
    with pytest.raises(DatabaseUnavailable, match="half"):
        opened(postgres_url)
    monkeypatch.undo()
    opened(postgres_url).close()
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT to_regclass('half')").fetchone() == (None,)


async def test_a_look_makes_no_tables(postgres_url):
    with pytest.raises(DatabaseDamaged, match="no server has run on it"), open_reader(postgres_url):
        pass
    assert read_note(postgres_url) is None
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute(
            "SELECT count(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace"
        ).fetchone() == (0,)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("/postgres?", "/no-such-database?"),
        ("paddock@", "nobody-of-that-name@"),
        ("search_path%3D", "search_path%3Dno_such_"),
    ],
)
async def test_what_cannot_be_reached_is_refused_by_name(postgres_url, change, words):
    wrong = postgres_url.replace(change, words)
    if wrong == postgres_url:
        pytest.skip("the given server's URL looks otherwise")
    with pytest.raises(DatabaseUnavailable, match=r"postgresql://"):
        opened(wrong)


async def test_tables_that_go_away_are_missed_loudly(postgres_url):
    store = opened(postgres_url)
    await store.create(new("a"), NOW)
    change(postgres_url, "DROP TABLE paddock_payloads")
    with pytest.raises(DatabaseDamaged, match="paddock_payloads"):
        await store.create(new("b"), NOW)
    assert "paddock_payloads" in store.health()["database"]
    store.close()


# --- writers in turn --------------------------------------------------------------------------------------------------------


async def test_many_writers_pass_no_limit_and_events_come_in_the_order_of_their_ids(postgres_url):
    """Claims of several processes at once, while a reader follows: it sees each event once, and none late."""
    stores = [opened(postgres_url) for _ in range(4)]
    for n in range(12):
        await stores[0].create(new(f"i{n:02}"), NOW)
    claims = await asyncio.gather(*(store.claim(wanted({"wf": 8}), NOW) for store in stores))
    assert sorted(ident for found in claims for ident in ids(found)) == [f"i{n:02}" for n in range(8)]
    leases = [claim.lease for found in claims for claim in found]
    seen: list[int] = []
    done = asyncio.Event()

    async def follow() -> None:
        while not (done.is_set() and not await stores[0].events(Window(seen[-1] if seen else 0, 1))):
            seen.extend([event.id for event in await stores[0].events(Window(seen[-1] if seen else 0, 1000))])

    reader = asyncio.create_task(follow())
    await asyncio.gather(
        *(stores[n % 4].commit(lease, step(f"s{m}"), NOW) for n, lease in enumerate(leases) for m in range(4))
    )
    done.set()
    await reader
    assert seen == list(range(1, 8 * 4 * 2 + 1))
    for store in stores:
        store.close()


async def test_a_stranger_who_holds_the_writers_lock_is_waited_for(postgres_url):
    store = opened(postgres_url)
    key = store._writer._session.connection().key(1)
    with psycopg.connect(postgres_url) as stranger:
        stranger.execute("SELECT pg_advisory_xact_lock(%s)", (key,))
        waiting = asyncio.create_task(store.create(new("a"), NOW))
        while not stranger.execute("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").fetchone():
            await asyncio.sleep(0.01)
        assert not waiting.done()
        assert await store.get("a") is None  # a reader waits for nobody
        stranger.rollback()
        assert await waiting
    store.close()


# --- one server ---------------------------------------------------------------------------------------------------------------


async def test_the_lock_names_its_holder_and_goes_with_it(postgres_url):
    database = database_of(postgres_url)
    lock = database.lock(PRAGMAS)
    lock.serve(os.getpid())
    assert database.note().pid == os.getpid()  # before there is any table
    with pytest.raises(ServerAlreadyRunning, match=f"pid {os.getpid()} runs on postgresql://"):
        database_of(postgres_url).lock(PRAGMAS).serve(os.getpid())
    store = database.open(PRAGMAS, lock)
    lock.note(pid=os.getpid(), run_dir="/run/x", address="unix:/run/x/hub")
    note = database.note()
    assert (note.pid, note.run_dir, note.address, note.host) == (os.getpid(), "/run/x", "unix:/run/x/hub", None)
    store.close()
    lock.leave(remove=False)
    assert (database.note().pid, database.note().run_dir) == (0, "/run/x")
    again = database.lock(PRAGMAS)
    again.serve(os.getpid())
    store = database.open(PRAGMAS, again)
    store.close()
    again.leave()
    assert database.note() is None


async def test_a_server_that_was_cut_off_does_not_write_once_another_has_come(postgres_url, postgres):
    first, second = (database_of(postgres_url).lock(PRAGMAS) for _ in "ab")
    first.serve(os.getpid())
    store = opened(postgres_url, first)
    await store.create(new("a"), NOW)
    cut_off(postgres, first.session.connection().raw.info.backend_pid)
    second.serve(os.getpid())
    other = opened(postgres_url, second)
    with pytest.raises(ServerAlreadyRunning):
        await store.create(new("b"), NOW)
    assert await other.get("b") is None
    assert "a server with pid" in store.health()["database"]
    other.close()
    second.leave()
    assert await store.create(new("b"), NOW)  # it is gone again: all goes on
    assert store.health() == {}
    store.close()
    first.leave()


async def test_another_database_at_the_same_address_is_refused(postgres_url):
    store = opened(postgres_url)
    await store.create(new("a"), NOW)
    store._target.identity = "postgresql:of/another/time"
    store._writer._session.drop()
    with pytest.raises(DatabaseDamaged, match="another database answers"):
        await store.create(new("b"), NOW)
    store.close()


# --- a commit whose fate is unknown ---------------------------------------------------------------------------------------------


class Cut:
    """Loses the connection at a COMMIT: before it was sent, or after PostgreSQL has done it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
        self.left, self.tried = 0, 0
        real = PostgresConnection.commit

        def commit(connection, before=""):
            self.tried += 1
            if self.left:
                self.left -= 1
                if when == "after":
                    real(connection, before)
                connection.raw.close()
                raise psycopg.OperationalError("the connection is lost")
            real(connection, before)

        monkeypatch.setattr(PostgresConnection, "commit", commit)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_server_finds_out_whether_its_commit_has_happened(postgres_url, monkeypatch, when):
    lock = database_of(postgres_url).lock(PRAGMAS)
    lock.serve(os.getpid())
    store = opened(postgres_url, lock)
    cut = Cut(monkeypatch, when)
    for n in range(3):
        cut.left = 1
        assert await store.create(new(f"i{n}"), NOW)
    cut.left, cut.tried = 1, 0
    claims = await store.claim(wanted({"wf": 0}), NOW)
    assert ids(claims) == ["i0", "i1", "i2"]  # nobody has to be claimed again
    assert cut.tried == (2 if when == "before" else 1)
    assert rows(store)["paddock_leases"] == 3
    store.close()
    lock.leave()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_child_does_not_guess(postgres_url, monkeypatch, when):
    """It cannot find out; its process ends, and the instance goes on from the journal."""
    store = opened(postgres_url)
    lease = await claimed(store)
    child = PostgresStore.open_child(Target(postgres_url), PRAGMAS)
    cut = Cut(monkeypatch, when)
    cut.left = 1
    with pytest.raises(DatabaseUnavailable, match="fate is unknown"):
        child.commit_now(lease, step("s"), NOW)
    assert cut.tried == 1
    assert ("s" in (await store.load(lease)).steps) is (when == "after")
    child.close()
    store.close()


async def test_a_child_whose_commits_may_be_taken_back_ends_with_its_connection(postgres_url, postgres):
    store = opened(postgres_url)
    lease = await claimed(store)
    child = PostgresStore.open_child(Target(postgres_url), SqlitePragmas(synchronous="NORMAL"))
    child.commit_now(lease, step("one"), NOW)
    cut_off(postgres, child._writer._session.connection().raw.info.backend_pid)
    with pytest.raises(DatabaseUnavailable):
        child.commit_now(lease, step("two"), NOW)
    assert (await store.load(lease)).steps.keys() == {"one"}
    child.close()
    store.close()


async def test_what_was_lost_before_the_commit_is_done_again(postgres_url, postgres):
    store = opened(postgres_url)
    lease = await claimed(store)
    child = PostgresStore.open_child(Target(postgres_url), PRAGMAS)
    last = child.commit_now(lease, step("one"), NOW)
    for each in (child, store):
        cut_off(postgres, each._writer._session.connection().raw.info.backend_pid)
    assert child.commit_now(lease, step("two"), NOW) == last + 2
    assert await store.create(new("b"), NOW)
    assert [event.id for event in await store.events(Window(0, 99))] == list(range(1, last + 3))
    child.close()
    store.close()


# --- words ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("SELECT a FROM t WHERE b = ? AND c = ?", "SELECT a FROM t WHERE b = $1 AND c = $2"),
        ("SELECT a FROM t WHERE b IS ?2 AND c = ?1", "SELECT a FROM t WHERE b IS NOT DISTINCT FROM $2 AND c = $1"),
        ("SELECT a WHERE b IS NULL OR b IS NOT NULL", "SELECT a WHERE b IS NULL OR b IS NOT NULL"),
        ("SELECT a WHERE b IN ()", "SELECT a WHERE b IN (NULL)"),
        ("SELECT json_extract(i.error, '$.step')", "SELECT ((i.error)::json ->> 'step')"),
        ("INSERT INTO paddock_instances (a) VALUES (?)", "INSERT INTO paddock_instances (a) VALUES ($1) RETURNING seq"),
        (
            "INSERT INTO paddock_events (a, b) VALUES (?, ?)",
            "INSERT INTO paddock_events (a, b, id) VALUES ($1, $2, $3)",
        ),
    ],
)
def test_a_statement_in_their_words(ours, theirs):
    assert translate(ours).text == theirs


async def test_a_session_is_made_once_and_again_when_it_broke(postgres_url):
    session = Session(Target(postgres_url))
    made = session.connection()
    assert session.connection() is made
    made.raw.close()
    assert session.connection() is not made
    session.drop()
    assert not session.is_open
