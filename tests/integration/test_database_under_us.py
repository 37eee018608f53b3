"""A database that is deleted, replaced, emptied, cut or robbed of its log while a server runs: refused loudly, never made again in silence."""

import asyncio
import contextlib
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from crashflows import THREE
from crashkit import Stage, kill, line, pid_of, proven, until
from ledger import starts

from paddock import DatabaseDamaged, PaddockError
from paddock.runtime.store.turn import LockFile


def aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.aside")


def delete(db: Path) -> Callable[[], None]:
    db.rename(aside(db))
    return lambda: aside(db).rename(db)


def replace(db: Path) -> Callable[[], None]:
    backup = backed_up(db)
    db.rename(aside(db))
    backup.rename(db)
    return lambda: aside(db).rename(db)


def backed_up(db: Path) -> Path:
    backup = db.with_name("backup")
    with sqlite3.connect(db) as source, sqlite3.connect(backup) as copy:
        source.backup(copy)
    source.close()
    copy.close()
    return backup


def rob(db: Path) -> Callable[[], None]:
    wal = db.with_name(f"{db.name}-wal")
    wal.rename(aside(wal))
    return lambda: aside(wal).rename(wal)


@pytest.mark.parametrize(
    ("harm", "words"),
    [(delete, "was deleted"), (replace, "was replaced by another file"), (rob, "was robbed of its -wal")],
)
async def test_what_is_put_back_goes_on(stage: Stage, harm: Callable[[Path], Callable[[], None]], words: str):
    server = await stage.process()
    await server.ready()
    await server.ask("start", name="held", input={"until": str(stage.flag)}, id="one")
    child = (await line("begin", key="hold"))["pid"]
    with LockFile.of(str(stage.db)):  # not between a look at the files and what is written then
        undo = harm(stage.db)
    before = stage.db.read_bytes() if stage.db.exists() else None
    stage.let_go()
    answer = await server.ask("try", name="everything", input={"n": 2}, id="two")
    assert (answer["error"], words in answer["message"]) == ("DatabaseDamaged", True), answer
    assert words in (await server.ask("health"))["database"]
    await until(lambda: starts(child) is None, "the end of a child that cannot commit")
    assert (stage.db.read_bytes() if stage.db.exists() else None) == before
    undo()
    assert (await server.ask("wait", id="one"))["status"] == "completed"
    assert (await server.ask("try", name="everything", input={"n": 2}, id="two"))["id"] == "two"
    assert (await server.ask("wait", id="two"))["status"] == "completed"
    assert "database" not in await server.ask("health")
    await server.kill()
    async with stage.server() as last:
        await proven(last, "one", THREE)
        assert stage.sql("PRAGMA integrity_check") == [("ok",)]


def empty(db: Path) -> None:
    os.truncate(db, 0)


def remove(db: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        os.unlink(f"{db}{suffix}")


@pytest.mark.parametrize(("harm", "words"), [(empty, "was emptied"), (remove, "was deleted")])
async def test_what_is_gone_stays_gone_and_a_backup_goes_on(stage: Stage, harm: Callable[[Path], None], words: str):
    server = stage.server()
    await server.start()
    await server.workflows.start("held", {"until": str(stage.flag)}, id="one")
    await line("begin", key="hold")
    backup = backed_up(stage.db)
    with LockFile.of(str(stage.db)):
        harm(stage.db)
    for _ in "ab":
        with pytest.raises(DatabaseDamaged, match=words):
            await server.workflows.start("everything", {"n": 2})
    problems = (await server.health())["problems"]
    assert words in problems["database"]
    await server.stop()  # it can be stopped, and nobody is left
    assert not stage.db.exists() or harm is empty
    for suffix in ("", "-wal", "-shm"):
        Path(f"{stage.db}{suffix}").unlink(missing_ok=True)
    shutil.copy(backup, stage.db)
    stage.let_go()
    async with stage.server() as server:
        assert (await server.workflows.wait("one", timeout=40)).output == THREE


async def test_a_file_that_was_cut_is_not_written_on(stage: Stage):
    server = stage.server()
    await server.start()
    for n in range(8):  # enough for a checkpoint
        await server.workflows.start("large", {"text": "x", "times": 1, "pad": "x" * 300_000}, id=f"n{n}")
    keeper = server._running.housekeeper

    def written_back() -> int | None:
        resting = keeper._running is not None and keeper._running.done()
        return keeper._upkeep._least if resting and keeper._upkeep._least > 10**6 else None

    size = await until(written_back, "a checkpoint")
    # in the same turn of the loop: the next one has not begun
    os.truncate(stage.db, size // 2)

    async def complaint() -> str | None:
        with contextlib.suppress(PaddockError):
            await server.workflows.start("large", {"text": "x", "times": 1, "pad": "x" * 300_000})
        found = (await server.health())["problems"]
        return next((text for text in found.values() if "was cut to" in str(text) or "damaged" in str(text)), None)

    assert await until(complaint, "a complaint about the cut file")
    assert stage.db.stat().st_size == size // 2
    await server.stop()


async def test_damaged_pages_are_told_of(stage: Stage):
    """The server reads garbage: it stays up, and says so until somebody has seen to it."""
    async with stage.server() as server:
        stage.let_go()
        await server.workflows.start("held", {"until": str(stage.flag)}, id="one")
        await proven(server, "one", THREE)
    garble(stage.db)
    before = stage.db.read_bytes()
    server = stage.server()
    with pytest.raises(DatabaseDamaged, match=r"app\.db"):
        try:
            await server.start()
            await server.workflows.get_all_instances()
            await server.workflows.start("everything", {"n": 1})
        finally:
            problems = (await server.health())["problems"]
            await server.stop()
    assert "damaged" in problems.get("database", "damaged before it began")
    assert stage.db.read_bytes() == before


def garble(db: Path) -> None:
    """Write noise over all pages but the first two."""
    with open(db, "r+b") as file:
        file.seek(2 * 4096)
        file.write(os.urandom(db.stat().st_size - 2 * 4096))


async def test_a_reader_that_lets_the_wal_grow_is_named(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("paddock.runtime.store.checkpoint._ALARM_BYTES", 2_000_000)
    stage.let_go()
    async with stage.server() as server:
        reader = await asyncio.create_subprocess_exec(
            sys.executable, "-S", "-c",
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('BEGIN');"
            "c.execute('SELECT count(*) FROM paddock_events').fetchone(); print(flush=True); sys.stdin.read()",
            str(stage.db), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert reader.stdin
        assert reader.stdout
        await reader.stdout.readline()

        async def grown() -> str | None:
            await server.workflows.start("held", {"until": str(stage.flag), "pad": "x" * 500_000})
            return (await server.health())["problems"].get("wal")

        complaint = await until(grown, "an alarm")
        assert f"{reader.pid} ({sys.executable}" in complaint
        reader.stdin.close()
        await reader.wait()

        async def well() -> bool:
            return (await server.health())["ok"]

        await until(well, "a WAL that was written back")


# --- helpers and the run directory ---


@pytest.mark.parametrize("role", ["watchdog", "fork-server"])
async def test_a_helper_that_is_down_is_told_of(stage: Stage, role: str):
    async with stage.server() as server:
        pid = await pid_of(server, role)
        kill(pid)
        while starts(pid) is not None:  # without a turn of the loop, in which the server would replace it
            time.sleep(0.001)
        assert "being replaced" in (await server.health())["problems"][role]
        await pid_of(server, role, other_than=pid)

        async def well() -> bool:
            return (await server.health())["ok"]

        await until(well)


async def test_a_run_directory_that_is_tidied_away_is_told_of(stage: Stage):
    run_dir = stage.folder / "run"
    async with stage.server(run_dir=run_dir) as server:
        for name in ("token", "hub.sock", "beats"):
            os.utime(run_dir / name, (0, 0), follow_symlinks=False)
        server._running.run_dir.keep()  # what it does once an hour: age is what tidies go by
        assert all((run_dir / name).lstat().st_mtime > 10**9 for name in ("token", "hub.sock", "beats"))
        (run_dir / "hub.sock").rename(run_dir / "aside")
        complaint = (await server.health())["problems"]["run-dir"]
        assert "hub.sock" in complaint
        assert str(run_dir) in complaint
        (run_dir / "aside").rename(run_dir / "hub.sock")
        assert (await server.health())["ok"]
