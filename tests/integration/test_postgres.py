"""On PostgreSQL as on a file: processes die, servers come and go, and so does the database itself."""

import asyncio
import os
from pathlib import Path

import psycopg
import pytest
from crashflows import THREE, result_of
from crashkit import Faults, Stage, finished, history, kill, line, pid_of, proven, until
from ledger import read, starts
from pgkit import GIVEN, SECRET

from paddock import DatabaseUnavailable, ServerAlreadyRunning, Status

pytestmark = pytest.mark.usefixtures("postgres")

# --- processes die ------------------------------------------------------------------------------------------------------


async def test_children_killed_at_every_kind_of_moment(pg_stage: Stage, monkeypatch: pytest.MonkeyPatch):
    """In the transaction, before the lease, after the last commit: the result and the journal are those of an undisturbed run."""
    points = ["child.born", "child.leased", "child.ready", "child.commit.inside", "child.teardown"]
    faults = Faults(pg_stage, monkeypatch, dict.fromkeys(points, "kill"))
    async with pg_stage.server() as server:
        for nth, point in enumerate(points, start=1):
            faults.arm(point, nth if point == "child.commit.inside" else 1)
            await proven(server, await server.workflows.start("everything", {"n": nth}), result_of(nth))
            await until(lambda point=point: faults.fired(point), point)
        assert (await server.health())["ok"]


async def test_all_killed_at_once(pg_stage: Stage):
    """The next server gets the lock at once, finds what is held, and goes on with it; ids of events rise over both lives."""
    dying = await pg_stage.process()
    await dying.ready()
    for ident in "ab":
        await dying.ask("start", name="held", input={"until": str(pg_stage.flag)}, id=ident)
        await line("begin", key="hold", instance=ident)
    pids = (await dying.ask("pids"))["pids"]
    for pid in (dying.pid, *(pid for name, pid in pids.items() if name not in ("server", "b"))):
        kill(pid)
    await dying.died()
    async with pg_stage.server() as server:
        pg_stage.let_go()
        assert (await proven(server, "a", THREE)).executions == 2
        assert (await proven(server, "b", THREE)).executions == 1  # its process lived on, and was taken over
        ids = [event.id for event in await history(server)]
        assert ids == sorted(set(ids))
        cursor = ids[len(ids) // 2]
        later = [event.id async for event in _until_known(server, cursor, ids[-1])]
        assert later == [ident for ident in ids if ident > cursor]


async def _until_known(server, cursor: int, last: int):
    async for event in server.events.subscribe(after=cursor):
        yield event
        if event.id == last:
            return


async def test_the_limit_and_the_order_hold(pg_stage: Stage):
    async with pg_stage.server(limits={"in-line": 1}) as server:
        started = await asyncio.gather(
            *(server.workflows.start("in-line", {"number": n, "dies": n == 2}) for n in range(6))
        )
        for n, instance in enumerate(started):
            await proven(server, instance, n)
    begun = read("begin")
    assert not [entry for entry in begun if entry["beside"]], "two at once"
    assert [entry["number"] for entry in begun if entry["attempt"] == 1] == list(range(6))


async def test_a_cancel_ends_the_process(pg_stage: Stage):
    async with pg_stage.server() as server:
        instance = await server.workflows.start("held", {"until": str(pg_stage.flag)})
        pid = (await line("begin", key="hold"))["pid"]
        assert await server.workflows.cancel(instance)
        assert (await finished(server, instance)).status is Status.CANCELLED
        await until(lambda: not starts(pid), "its process is gone")


# --- one server ---------------------------------------------------------------------------------------------------------


async def test_a_second_server_is_refused_with_the_pid_and_the_next_one_gets_the_lock_of_the_dead(pg_stage: Stage):
    first = await pg_stage.process()
    await first.ready()
    with pytest.raises(ServerAlreadyRunning, match=f"pid {first.pid} runs on postgresql://") as caught:
        await pg_stage.server().start()
    assert caught.value.pid == first.pid
    await first.kill()
    async with pg_stage.server() as server:
        await proven(server, await server.workflows.start("everything", {"n": 1}), result_of(1))


async def test_two_schemas_of_a_database_are_two_databases(pg_stage: Stage, postgres, tmp_path):
    from pgkit import schema

    with schema(postgres) as url:
        async with pg_stage.server() as one:
            pg_stage.db = url
            async with pg_stage.server() as two:
                await one.workflows.start("in-line", {"number": 1}, id="same")
                await two.workflows.start("in-line", {"number": 2}, id="same")
                assert [(await finished(server, "same")).output for server in (one, two)] == [1, 2]


# --- the database is away -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(bool(GIVEN), reason="the PostgreSQL that PADDOCK_TEST_POSTGRES names is not ours to restart")
@pytest.mark.parametrize("how", ["fast", "immediate"])
async def test_the_database_restarts_in_the_middle(pg_stage: Stage, postgres, how: str):
    """What was acknowledged stays, nothing is acknowledged meanwhile, and all goes on by itself: nobody is restarted for it."""
    async with pg_stage.server() as server:
        held = await server.workflows.start("held", {"until": str(pg_stage.flag)})
        child = (await line("begin", key="hold"))["pid"]
        working = [await server.workflows.start("everything", {"n": n}) for n in (3, 4)]
        postgres.stop(how)
        try:
            never = asyncio.create_task(server.workflows.start("everything", {"n": 9}, id="never"))
            refused = bool((await asyncio.wait({never}, timeout=10))[0])
            if (
                refused
            ):  # else it waits behind a commit that the stop has struck: only the database knows that one's fate
                with pytest.raises(DatabaseUnavailable, match="postgresql://"):
                    await never
            assert "database" in (await server.health())["problems"]
            pg_stage.let_go()
            await line("end", key="hold")  # its result waits for the database
        finally:
            await asyncio.to_thread(postgres.start)
        for n, instance in zip((3, 4), working, strict=True):
            await proven(server, instance, result_of(n))
        assert (await proven(server, held, THREE)).executions <= 2
        if refused:
            assert await server.workflows.get_instance("never") is None
        else:
            await proven(server, await never, result_of(9))
        await until(lambda: _is_well(server), "the server is well again")
        if how == "fast":
            assert {entry["pid"] for entry in read("begin", instance=held, key="hold")} == {child}


async def _is_well(server) -> bool:
    return (await server.health())["ok"]


async def test_the_servers_connections_are_cut(pg_stage: Stage, postgres):
    """The lock goes with its connection; the server takes it again before it writes, and nobody has noticed."""
    async with pg_stage.server() as server:
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'paddock%'"
        for n in range(3):
            with postgres.connect() as connection:
                assert connection.execute(cut).fetchall()
            await proven(server, await server.workflows.start("everything", {"n": n + 1}), result_of(n + 1))
        with pytest.raises(ServerAlreadyRunning, match=f"pid {os.getpid()}"):
            await pg_stage.server().start()


# --- secrets --------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(bool(GIVEN), reason="the user with a password lives in the cluster that the tests make")
async def test_a_password_reaches_the_children_and_is_seen_nowhere(pg_stage: Stage, postgres, capfd, monkeypatch):
    with postgres.connect() as connection:
        connection.execute("CREATE SCHEMA IF NOT EXISTS kept AUTHORIZATION keeper")
    try:
        pg_stage.db = postgres.url("kept", user=f"keeper:{SECRET}")
        async with pg_stage.server() as server:
            instance = await server.workflows.start("held", {"until": str(pg_stage.flag)})
            await line("begin", key="hold")
            pids = [row["pid"] for row in await server.processes()] + [await pid_of(server, "fork-server")]
            seen = [Path(f"/proc/{pid}/{name}").read_bytes() for pid in pids for name in ("cmdline", "environ")]
            pg_stage.let_go()
            await proven(server, instance, THREE)
            with postgres.connect() as connection:
                connection.execute("ALTER USER keeper PASSWORD 'another'")
                connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'keeper'")
            with pytest.raises(DatabaseUnavailable, match="password authentication failed") as caught:
                await server.workflows.start("held", {"until": str(pg_stage.flag)})
            said = [str(caught.value), str((await server.health())["problems"]), "".join(capfd.readouterr())]
            with postgres.connect() as connection:
                connection.execute("ALTER USER keeper PASSWORD 'pa55-/&word'")
        assert "keeper" in said[0]
        assert not [text for text in [*said, *(data.decode(errors="replace") for data in seen)] if "pa55" in text]
    finally:
        with postgres.connect() as connection:
            connection.execute("SET client_min_messages = error")
            connection.execute("DROP SCHEMA kept CASCADE")


def test_a_bad_url_is_refused_without_its_password():
    from paddock import AppServer, ConfigError

    for url in (f"postgresql://keeper:{SECRET}@[host/x", f"postgresql://keeper:{SECRET}@host/x?nonsense=1"):
        with pytest.raises(ConfigError, match="PostgreSQL URL") as caught:
            AppServer(url)
        assert SECRET not in str(caught.value)


async def test_a_plugin_has_a_connection_of_psycopgs(pg_stage: Stage, postgres_url: str):
    from paddock.runtime.store.schemes import database_of

    db = database_of(postgres_url).core_db(None)
    await db.execute("CREATE TABLE theirs (x bigint)")
    await db.execute("INSERT INTO theirs VALUES (%s)", (1,))
    await db.commit()
    await db.execute("INSERT INTO theirs VALUES (%s)", (2,))
    await db.rollback()
    assert await (await db.execute("SELECT x FROM theirs")).fetchall() == [(1,)]
    await db.close()
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT count(*) FROM theirs").fetchone() == (1,)
