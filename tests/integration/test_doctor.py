"""`paddock doctor` beside a running server, after one has died, and on files that are broken: it says so, and changes nothing."""

import asyncio
import json
import os
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
from crashkit import Stage, kill, line, pid_of, until
from ledger import starts


async def doctor(*arguments: object) -> tuple[int, dict[str, Any]]:
    """Run the command; return exit code and findings."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "paddock", "doctor", "--json", *map(str, arguments),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode in (0, 1), err.decode()
    assert not err
    return process.returncode, json.loads(out)


def said(report: dict[str, Any], level: str) -> str:
    """Return what was found at a level."""
    rows = [row for row in report["findings"] if row["level"] == level]
    assert all(row["advice"] for row in rows if level == "problem")
    return "\n".join(f"{row['area']}: {row['text']}" for row in rows)


async def test_a_healthy_server_and_its_last_moments(stage: Stage):
    server = await stage.process()
    await server.ready()
    await server.ask("start", name="held", input={"until": str(stage.flag)}, id="one")
    child = (await line("begin", key="hold"))["pid"]
    code, report = await doctor("--db", stage.db)
    assert (code, report["ok"], said(report, "problem")) == (0, True, "")
    for words in (
        "every page is sound",
        "1 running",
        f"the socket of server {server.pid} answers",
        f"one (pid {child}, step hold)",
        f"watchdog {server.pids['watchdog']}",
    ):
        assert words in said(report, "ok")
    assert (await server.ask("pids"))["pids"]["one"] == child  # it still serves, and nobody was disturbed

    kill(server.pids["watchdog"])
    await server.kill()
    await until(lambda: starts(server.pids["watchdog"]) is None)
    code, report = await doctor("--db", stage.db)
    assert code == 1
    assert "1 unfinished instance(s) that could go on, and no server runs" in said(report, "problem")
    assert f"of a dead server work on: one (pid {child})" in said(report, "note")

    kill(child)
    await until(lambda: starts(child) is None)
    code, report = await doctor("--db", stage.db)
    assert "held by processes that are dead: one" in said(report, "note")
    stage.let_go()
    async with stage.server() as last:
        assert (await last.workflows.wait("one", timeout=40)).status == "completed"
    before = stage.db.read_bytes()
    code, report = await doctor("--db", stage.db)
    assert (code, said(report, "problem"), stage.db.read_bytes()) == (0, "", before)
    assert {path.name for path in stage.folder.glob("app.db*")} == {"app.db"}


def garbled(db: Path) -> None:
    with open(db, "r+b") as file:
        file.seek(2 * 4096)
        file.write(os.urandom(db.stat().st_size - 2 * 4096))


def cut(db: Path) -> None:
    os.truncate(db, db.stat().st_size // 2)


def newer(db: Path) -> None:
    with sqlite3.connect(db) as connection:
        connection.execute("INSERT INTO paddock_schema VALUES (99)")
    connection.close()


def poorer(db: Path) -> None:
    with sqlite3.connect(db) as connection:
        connection.execute("DROP TABLE paddock_steps")
    connection.close()


BROKEN: dict[str, tuple[Any, str]] = {
    "garbled": (garbled, "damaged"),
    "cut": (cut, "damaged"),
    "newer": (newer, "schema version 99 is newer"),
    "poorer": (poorer, "tables are missing: paddock_steps"),
    "text": (lambda db: db.write_text("no database" * 1000), "is not a database"),
    "empty": (lambda db: os.truncate(db, 0), "is empty"),
    "gone": (lambda db: db.unlink(), "there is no"),
    "open": (lambda db: db.chmod(0o644), "others may open"),
}


@pytest.mark.parametrize("how", BROKEN)
async def test_what_is_broken_is_named_and_left_as_it_is(stage: Stage, how: str):
    async with stage.server(launcher="inline"):
        pass
    harm, words = BROKEN[how]
    harm(stage.db)
    before = stage.db.read_bytes() if stage.db.exists() else None
    code, report = await doctor("--db", stage.db)
    assert (code, report["ok"]) == (1, False)
    assert words in said(report, "problem")
    assert (stage.db.read_bytes() if stage.db.exists() else None) == before
    assert not list(stage.folder.glob("app.db-*"))


async def test_a_run_directory_that_was_tidied_away(stage: Stage):
    run_dir = stage.folder / "run"
    async with stage.server(run_dir=run_dir) as server:
        watchdog = await pid_of(server, "watchdog")
        await until(lambda: server._running.table.watchdog()[0] == watchdog, "a watchdog in charge")
        (run_dir / "hub.sock").rename(run_dir / "aside")
        code, report = await doctor("--db", stage.db, "--run-dir", run_dir)
        assert code == 1
        assert "does not answer" in said(report, "problem")
        (run_dir / "aside").rename(run_dir / "hub.sock")
        code, report = await doctor("--db", stage.db, "--run-dir", run_dir)
        assert (code, said(report, "problem")) == (0, "")
        assert f"watchdog {watchdog}" in said(report, "ok")


async def test_it_speaks_to_people_too(stage: Stage):
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", 'ulimit -n 100; exec "$0" -P -m paddock doctor --db nowhere.db', sys.executable,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out = (await process.communicate())[0].decode()
    assert process.returncode == 1
    assert "✗ only 100 open files are allowed" in out
    assert "→ raise it: `ulimit -n 4096`" in out
    assert "there is no " in out
    assert "2 problem(s)" in out
    assert not Path("nowhere.db").exists()
