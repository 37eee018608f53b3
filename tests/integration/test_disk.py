"""A disk that is full, fails, is slow, is read-only: nothing is acknowledged that is not on it, and all goes on by itself."""

import asyncio
import contextlib
import os
import resource
import signal
import sqlite3
from pathlib import Path

import pytest
from crashflows import THREE
from crashkit import Stage, finished, line, proven, until
from ledger import read
from machinery import filled, injected, small_disk

from paddock import AppServer, DatabaseUnavailable
from paddock.runtime.store.turn import LockFile
from paddock.watchdog.identity import process_state

LONG = "x" * 200_000


async def troubled(server: AppServer, part: str, word: str) -> str:
    """Return what health says of a part, as soon as it says this."""

    async def look() -> str | None:
        problems = (await server.health())["problems"]
        return problems[part] if word in str(problems.get(part)) else None

    return await until(look, f"{part}: {word}")


async def well(server: AppServer) -> None:
    """Wait until nothing is wrong any more."""

    async def look() -> bool:
        return (await server.health())["ok"]

    await until(look, "health")


async def test_a_full_disk(stage: Stage, tmp_path: Path):
    with small_disk(tmp_path / "disk") as disk:
        stage.db = disk / "app.db"
        async with stage.server() as server:
            await server.workflows.start("held", {"until": str(stage.flag)}, id="one")
            child = (await line("begin", key="hold"))["pid"]
            with filled(disk):
                with pytest.raises(DatabaseUnavailable, match=r"app\.db .* full .*room"):
                    await server.workflows.start("everything", {"n": 2, "pad": LONG}, id="two")
                stage.let_go()
                await line("end", key="hold")
                assert await troubled(server, "disk", "make room")
                assert await troubled(server, "database", "full")
                found = await server.workflows.get_instance("one")
                assert found.step_results["hold"].status == "running"  # it has ended, and is not acknowledged
                assert await server.workflows.get_instance("two") is None
            assert (await proven(server, "one", THREE)).executions == 1
            assert {entry["pid"] for entry in read(instance="one")} == {child}
            await server.workflows.start("everything", {"n": 2}, id="two")
            await finished(server, "two")
            await well(server)


async def test_a_start_on_a_full_disk_says_so_and_leaves_the_database_whole(stage: Stage, tmp_path: Path):
    with small_disk(tmp_path / "disk") as disk:
        stage.db = disk / "app.db"
        async with stage.server() as server:
            await server.workflows.start("held", {"until": str(stage.flag)}, id="one")
            await line("begin", key="hold")
        with filled(disk), pytest.raises(DatabaseUnavailable, match=r"app\.db"):
            await stage.server().start()
        stage.let_go()
        async with stage.server() as server:
            await proven(server, "one", THREE)
        assert stage.sql("PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize(("calls", "what"), [("fdatasync", "error=EIO"), ("pwrite64", "error=EROFS")])
async def test_a_disk_that_fails_under_the_server(stage: Stage, calls: str, what: str):
    server = await stage.process()
    await server.ready()
    await server.ask("start", name="held", input={"until": str(stage.flag)}, id="one")
    await line("begin", key="hold")
    async with injected(server.pid, calls, what):
        answer = await server.ask("try", name="everything", input={"n": 2}, id="two")
        assert answer["error"] == "DatabaseUnavailable"
        assert "app.db" in answer["message"]
        assert "app.db" in (await server.ask("health"))["database"]
    stage.let_go()
    assert (await server.ask("wait", id="one"))["status"] == "completed"
    # what was refused may be there or not; the same id says the same either way, and it is there once
    assert (await server.ask("try", name="everything", input={"n": 2}, id="two"))["id"] == "two"
    assert (await server.ask("wait", id="two"))["status"] == "completed"
    assert "database" not in await server.ask("health")
    await server.kill()
    async with stage.server() as last:
        for name, output in (("one", THREE), ("two", [{"left": 2, "right": "at last"}, "ready", 2, {"planned": 2}])):
            await proven(last, name, output)


@pytest.mark.parametrize(("calls", "what"), [("fdatasync", "error=EIO"), ("pwrite64", "error=EIO:when=2+")])
async def test_a_disk_that_fails_under_a_child(stage: Stage, calls: str, what: str):
    """Its commit may have come true or not: it ends, and the next process reads again.

    A single write that fails may be that of a number at the write lock, which a writer goes without.
    """
    async with stage.server() as server:
        await server.workflows.start("held", {"until": str(stage.flag)}, id="one")
        child = (await line("begin", key="hold"))["pid"]
        async with injected(child, calls, what):
            stage.let_go()
            found = await proven(server, "one", THREE)
        assert found.executions == 2
        assert stage.sql("SELECT crash_count FROM paddock_instances") == [(0,)]


@pytest.mark.parametrize("whose", ["ours", "SQLite's own"])
async def test_a_sync_that_fails_once_is_made_up_for(stage: Stage, whose: str):
    """The kernel tells it once, and takes the pages for written from then on: the child writes them anew, and goes on.

    SQLite syncs by itself where the WAL begins anew, after a checkpoint.
    """
    async with stage.server() as server:
        await server.workflows.start("held", {"until": str(stage.flag)}, id="one")
        child = (await line("begin", key="hold"))["pid"]
        if whose != "ours":
            [(_, frames, moved)] = stage.sql("PRAGMA wal_checkpoint")
            assert frames == moved
        async with injected(child, "fdatasync", "error=EIO:when=1"):
            stage.let_go()
            found = await proven(server, "one", THREE)
        assert found.executions == 1
        assert stage.sql("PRAGMA integrity_check") == [("ok",)]


async def test_a_slow_disk_kills_nobody(stage: Stage):
    """Each sync takes longer than three looks of the watchdog."""
    async with stage.server(watchdog={"interval": 0.1, "heartbeat_timeout": 4.0}) as server:
        await server.workflows.start("held", {"until": str(stage.flag)}, id="one")
        child = (await line("begin", key="hold"))["pid"]
        async with injected(child, "fdatasync", "delay_enter=400000"):
            stage.let_go()
            found = await proven(server, "one", THREE)
        assert found.executions == 1
        assert not await server.events.history("workflow.watchdog.*")


async def test_a_limit_on_the_size_of_files(stage: Stage):
    """What the handlers of one instance may not write, the others may."""
    async with stage.server() as server:
        await server.workflows.start("held", {"until": str(stage.flag)}, id="one")
        child = (await line("begin", key="hold"))["pid"]
        resource.prlimit(child, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        stage.let_go()
        found = await proven(server, "one", THREE)  # in a process without that limit
        assert found.executions == 2
        await well(server)


async def test_a_strangers_lock_is_waited_for(stage: Stage):
    stage.let_go()
    async with stage.server(sqlite_pragmas={"busy_timeout": "50ms"}) as server:
        await well(server)
        stranger = sqlite3.connect(stage.db, isolation_level=None)
        stranger.execute("BEGIN EXCLUSIVE")
        starting = [server.workflows.start("held", {"until": str(stage.flag)}, id=name) for name in ("one", "two")]
        tasks = [asyncio.create_task(start) for start in starting]
        assert await troubled(server, "database", "another program holds its lock")
        stranger.execute("ROLLBACK")
        stranger.close()
        assert [await task for task in tasks] == ["one", "two"]
        for name in ("one", "two"):
            assert (await proven(server, name, THREE)).executions == 1
        await well(server)


async def test_a_stopped_server_comes_back_to_all_its_children(stage: Stage):
    """A server that is stopped and continued is a long stall, not a death."""
    server = await stage.process()
    await server.ready()
    await server.ask("start", name="held", input={"until": str(stage.flag)}, id="one")
    child = (await line("begin", key="hold"))["pid"]
    # stopped in its turn it would hold up every writer, and nobody watches the server
    with contextlib.nullcontext() if "://" in str(stage.db) else LockFile.of(str(stage.db)):
        os.kill(server.pid, signal.SIGSTOP)
        await until(lambda: process_state(server.pid)[0] == "T", "the server stopped")
    stage.let_go()
    await line("end", key="last")
    os.kill(server.pid, signal.SIGCONT)
    assert (await server.ask("wait", id="one"))["status"] == "completed"
    await server.kill()
    async with stage.server() as last:
        await proven(last, "one", THREE)
    assert {entry["pid"] for entry in read(instance="one")} == {child}
