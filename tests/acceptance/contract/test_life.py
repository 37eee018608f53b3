"""The server's life: start and stop, one server a database, files and their modes, restarts, what it refuses to start on."""

import asyncio
import contextlib
import os
import sqlite3
import stat
import sys
from pathlib import Path

import contractflows as flows
import pytest
from contractkit import MODES, UNWATCHED, became, names, past, until
from contractnotes import notes

from paddock import (
    AppServer,
    ConfigError,
    DatabaseDamaged,
    DatabaseTooNew,
    DatabaseUnavailable,
    NotSerializable,
    RunDirectoryError,
    ServerAlreadyRunning,
    ServerNotRunning,
    WatchdogConfig,
    WorkflowBlocked,
    WorkflowsConfig,
)


def _server(
    tmp_path: Path, mode: str = "inline", *, run_dir: Path | None = None, name: str = "app.db", **config
) -> AppServer:
    server = AppServer(
        tmp_path / name, run_dir=run_dir, workflows=WorkflowsConfig(**{**MODES[mode], **config}), watchdog=UNWATCHED
    )
    for flow in (flows.echo_flow, flows.hold_flow, flows.long_sleep_flow, flows.sleep_flow, flows.loop_flow):
        server.workflows.register(flow)
    return server


def _given(tmp_path: Path) -> dict[str, str]:
    return {"log": str(tmp_path / "log"), "gate": str(tmp_path / "gate")}


# --- start and stop ---------------------------------------------------------------------------------------------------


async def test_start_and_stop_are_idempotent_and_may_be_repeated(tmp_path: Path):
    server = _server(tmp_path)
    await server.stop()
    for n in range(2):
        await server.start()
        await server.start()
        assert await server.workflows.run("echo", n, timeout=30) == n
        await server.stop()
        await server.stop()
    await asyncio.gather(server.start(), server.start())
    await asyncio.gather(server.stop(), server.stop())
    async with server as entered:
        assert entered is server

        async def restart() -> None:
            await server.stop()
            await server.start()

        await asyncio.gather(restart(), server.start(), restart())
        assert await server.workflows.run("echo", 3, timeout=30) == 3


async def test_what_needs_a_started_server_says_so(tmp_path: Path):
    server = _server(tmp_path)
    service = server.workflows
    for call in (
        lambda: service.start("echo"),
        lambda: service.run("echo"),
        lambda: service.get_instance("x"),
        service.get_all_instances,
        lambda: service.cancel("x"),
        lambda: service.cleanup("x"),
        lambda: service.update_metadata("x", {}),
        service.resume,
        server.logs.query,
        server.events.history,
    ):
        with pytest.raises(ServerNotRunning, match="start"):
            await call()
    assert await server.processes() == []
    assert (await server.health())["ok"] is False
    assert not (tmp_path / "app.db").exists()


async def test_handlers_and_subscriptions_made_before_the_start_see_the_first_event(tmp_path: Path):
    server = _server(tmp_path)
    seen: list[str] = []

    async def later(event) -> None:
        seen.append(f"async {event.name}")

    server.events.on("workflow.completed", lambda e: seen.append(f"sync {e.name}"))
    server.events.on("workflow.completed", later)
    for n in range(1, 3):  # also after a second start
        subscription = server.events.subscribe("workflow.*")
        async with server:
            await server.workflows.run("echo", 1, timeout=30)
            await became(lambda n=n: len(seen) == 2 * n)
            assert (await asyncio.wait_for(anext(subscription), 30)).name == "workflow.started"
        assert [e.name async for e in subscription][-1] == "workflow.completed"
    assert sorted(seen) == ["async workflow.completed"] * 2 + ["sync workflow.completed"] * 2


async def test_a_stop_ends_subscriptions_and_waits(tmp_path: Path):
    server = _server(tmp_path)
    async with server:
        ident = await server.workflows.start("long-sleep")
        waiting = asyncio.create_task(server.workflows.result(ident))
        reading = asyncio.create_task(anext(server.events.subscribe("never")))
        await until(server, "workflow.suspended", ident)
    with pytest.raises(StopAsyncIteration):
        await asyncio.wait_for(reading, 30)
    with pytest.raises(ServerNotRunning):
        await asyncio.wait_for(waiting, 30)


@pytest.mark.parametrize("mode", ["inline", "fork"])
async def test_a_workflow_may_be_registered_after_the_start(tmp_path: Path, mode: str):
    server = AppServer(tmp_path / "app.db", workflows=WorkflowsConfig(**MODES[mode]))
    async with server:
        server.workflows.register(flows.shapes_flow)
        found = await server.workflows.run("shapes", 1, timeout=30)
        assert found["first"] == 1


async def test_stop_lets_a_step_end_within_kill_grace_and_the_next_start_goes_on(tmp_path: Path):
    given = _given(tmp_path)
    server = _server(tmp_path, "fork", kill_grace="20s")
    async with server:
        ident = await server.workflows.start("hold", given)
        await became(lambda: notes(given["log"]))
        stopping = asyncio.create_task(server.stop())
        await asyncio.sleep(0)
        (tmp_path / "gate").touch()
        await stopping
    async with _server(tmp_path, "fork") as again:
        assert await again.workflows.result(ident, timeout=30) == "held"
        steps = (await again.workflows.get_instance(ident)).step_results
        assert steps["hold"].attempts == 1
    assert len(notes(given["log"])) == 1


@pytest.mark.parametrize("mode", ["inline", "fork"])
async def test_stop_ends_what_does_not_end_and_the_next_start_runs_the_step_again(tmp_path: Path, mode: str):
    given = _given(tmp_path)
    async with _server(tmp_path, mode, kill_grace="50ms") as server:
        ident = await server.workflows.start("hold", given)
        await became(lambda: notes(given["log"]))
    (tmp_path / "gate").touch()
    async with _server(tmp_path, mode) as again:
        assert await again.workflows.result(ident, timeout=30) == "held"
        instance = await again.workflows.get_instance(ident)
        assert instance.step_results["hold"].attempts == 2
        assert instance.step_results["first"].attempts == 1
        assert instance.executions == 2
        told = names(await past(again, ident))
        assert told.count("started") == 1
        assert told.count("resumed") == 1
        assert told.count("completed") == 1
    assert [line.split()[2] for line in notes(given["log"])] == ["1", "2"]


async def test_resume_skip_leaves_what_is_unfinished_until_it_is_asked(tmp_path: Path):
    given = _given(tmp_path)
    async with _server(tmp_path, kill_grace="10ms") as server:
        ident = await server.workflows.start("hold", given)
        await became(lambda: notes(given["log"]))
    (tmp_path / "gate").touch()
    async with _server(tmp_path, resume="skip") as again:
        assert await again.workflows.run("echo", "new ones run", timeout=30) == "new ones run"
        assert (await again.workflows.get_instance(ident)).status == "pending"
        await again.workflows.resume()
        assert await again.workflows.result(ident, timeout=30) == "held"


async def test_resume_blocking_returns_once_all_go_on(tmp_path: Path):
    given = _given(tmp_path)
    async with _server(tmp_path, kill_grace="10ms") as server:
        ids = [await server.workflows.start("hold", given) for _ in range(5)]
        await became(lambda: len(notes(given["log"])) == 5)
    async with _server(tmp_path, resume="blocking", kill_grace="10ms") as again:
        assert {(await again.workflows.get_instance(i)).status for i in ids} == {"running"}


async def test_a_sleep_is_not_begun_again_by_a_restart(tmp_path: Path):
    async with _server(tmp_path) as server:
        ident = await server.workflows.start("long-sleep")
        await until(server, "workflow.suspended", ident)
        wake_at = (await server.workflows.get_instance(ident)).wake_at
    async with _server(tmp_path) as again:
        assert (await again.workflows.get_instance(ident)).wake_at == wake_at


async def test_an_instance_whose_workflow_is_gone_is_blocked_until_it_is_back(tmp_path: Path):
    given = _given(tmp_path)
    async with _server(tmp_path, kill_grace="10ms") as server:
        ident = await server.workflows.start("hold", given)
        await became(lambda: notes(given["log"]))
    (tmp_path / "gate").touch()
    async with AppServer(tmp_path / "app.db", workflows=WorkflowsConfig(launcher="inline")) as bare:
        with pytest.raises(WorkflowBlocked, match="hold") as caught:
            await bare.workflows.result(ident, timeout=30)
        assert caught.value.error.type == "WorkflowNotFound"
        instance = await bare.workflows.get_instance(ident)
        assert instance.status == "blocked"
        assert instance.step_results["first"].status == "completed"
    async with AppServer(tmp_path / "app.db", workflows=WorkflowsConfig(launcher="inline")) as late:
        assert (await late.workflows.get_instance(ident)).status == "blocked"
        late.workflows.register(flows.hold_flow)
        await until(late, "workflow.resumed", ident, where=lambda event: event.data["executions"] == 2)
        assert await late.workflows.result(ident, timeout=30) == "held"


def test_a_server_may_be_started_in_another_event_loop(tmp_path: Path):
    server = _server(tmp_path)

    async def use() -> None:
        async with server:
            ident = await server.workflows.start("echo", 1)
            await until(server, "workflow.completed", ident)

    for _ in range(2):
        asyncio.run(use())


# --- one server a database --------------------------------------------------------------------------------------------


async def test_a_second_server_is_refused_by_whatever_name_it_calls_the_file(tmp_path: Path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.db").symlink_to("app.db")
    (tmp_path / "folder" / "round").symlink_to("..")
    monkeypatch.chdir(tmp_path / "folder")
    async with _server(tmp_path):
        for name in (tmp_path / "app.db", tmp_path / "link.db", "../app.db", "round/link.db", str(tmp_path / "app.db")):
            second = AppServer(name)
            with pytest.raises(ServerAlreadyRunning, match=str(os.getpid())) as caught:
                await second.start()
            assert caught.value.pid == os.getpid()
            assert str(tmp_path / "app.db") in str(caught.value)
            await second.stop()
    async with AppServer("round/link.db", workflows=WorkflowsConfig(launcher="inline")):
        pass
    assert (tmp_path / "link.db").is_symlink()


ELSEWHERE = """
import asyncio, sys
from paddock import AppServer, PaddockError, WorkflowsConfig
async def main():
    try:
        async with AppServer(sys.argv[1], workflows=WorkflowsConfig(launcher="inline")):
            print("started", flush=True)
            await asyncio.to_thread(sys.stdin.read)
    except PaddockError as error:
        print(type(error).__name__, error.pid, error)
asyncio.run(main())
"""


async def test_a_second_server_in_another_process_is_refused_with_the_pid(tmp_path: Path):
    async def elsewhere() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-c", ELSEWHERE, str(tmp_path / "app.db"), stdin=-1, stdout=-1
        )

    async with _server(tmp_path) as server:
        other = await elsewhere()
        out, _ = await other.communicate()
        assert out.decode().startswith(f"ServerAlreadyRunning {os.getpid()} ")
        assert await server.workflows.run("echo", 1, timeout=30) == 1
    other = await elsewhere()
    assert await asyncio.wait_for(other.stdout.readline(), 30) == b"started\n"
    with pytest.raises(ServerAlreadyRunning, match=str(other.pid)) as caught:
        await _server(tmp_path).start()
    assert caught.value.pid == other.pid
    other.kill()
    await other.wait()
    async with _server(tmp_path) as server:  # a dead server's lock is nobody's
        assert await server.workflows.run("echo", 2, timeout=30) == 2


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["fork", "tcp"])
async def test_files_are_for_their_owner_alone_and_go_with_the_server(tmp_path: Path, mode: str):
    before = os.umask(0)
    try:
        run_dir = tmp_path / "run"
        async with _server(tmp_path, mode, run_dir=run_dir) as server:
            given = _given(tmp_path)
            ident = await server.workflows.start("hold", given)
            await became(lambda: notes(given["log"]))
            database = {
                p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir() if p.name.startswith("app.db")
            }
            assert {"app.db", "app.db-wal", "app.db-shm"} <= set(database)
            assert set(database.values()) == {0o600}
            for folder, _, files in os.walk(run_dir):
                for path in (folder, *(os.path.join(folder, name) for name in files)):
                    with contextlib.suppress(FileNotFoundError):  # a rehearsal's are gone soon
                        assert stat.S_IMODE(os.stat(path).st_mode) & 0o077 == 0, path
            assert any(stat.S_ISSOCK(p.stat().st_mode) for p in run_dir.iterdir()) is (mode == "fork")
            unix = Path("/proc/net/unix").read_text()
            assert "@paddock" not in unix
            assert f"@{tmp_path}" not in unix
            (tmp_path / "gate").touch()
            await server.workflows.wait(ident, timeout=30)
    finally:
        os.umask(before)
    assert {p.name for p in tmp_path.iterdir()} == {"app.db", "log", "gate"}


async def test_what_else_is_in_a_run_directory_stays(tmp_path: Path):
    run_dir = tmp_path / "run"
    run_dir.mkdir(mode=0o700)
    (run_dir / "mine.txt").write_text("precious")
    async with _server(tmp_path, run_dir=run_dir) as server:
        await server.workflows.run("echo", 1, timeout=30)
    assert [p.name for p in run_dir.iterdir()] == ["mine.txt"]


async def test_run_directories_that_will_not_do(tmp_path: Path):
    (tmp_path / "file").touch()
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    (tmp_path / "link").symlink_to(tmp_path / "open")
    (tmp_path / "foreign").mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(tmp_path / "foreign", 65534, 65534)
    for name, word in (
        ("x" * 100, "too long|bytes"),
        ("file", "no directory"),
        ("open", "755"),
        ("link", "no directory"),
        ("foreign", "65534"),
        ("no/parent", "cannot be made"),
    ):
        if name == "foreign" and os.geteuid() != 0:
            continue
        before = set(tmp_path.rglob("*"))
        with pytest.raises(RunDirectoryError, match=word) as caught:
            await _server(tmp_path, run_dir=tmp_path / name).start()
        assert name in str(caught.value)
        assert "run_dir" in str(caught.value)
        assert set(tmp_path.rglob("*")) - before <= {tmp_path / "app.db"}


async def test_a_long_path_of_the_database_is_no_matter(tmp_path: Path):
    folder = tmp_path / ("d" * 100) / ("e" * 100)
    folder.mkdir(parents=True)
    async with _server(folder) as server:
        assert await server.workflows.run("echo", 1, timeout=30) == 1


# --- databases that will not do ---------------------------------------------------------------------------------------


async def test_a_database_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path):
    async with _server(tmp_path):
        pass
    with sqlite3.connect(tmp_path / "app.db") as connection:
        connection.execute("INSERT INTO paddock_schema VALUES (999)")
    connection.close()
    before = (tmp_path / "app.db").read_bytes()
    with pytest.raises(DatabaseTooNew, match=r"app\.db.*999"):
        await _server(tmp_path).start()
    assert (tmp_path / "app.db").read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"this is a letter, not a database" * 300, b"\0" * 8192, b"SQLite format 3\0" + b"x" * 5000]
)
async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, content: bytes):
    (tmp_path / "app.db").write_bytes(content)
    with pytest.raises(DatabaseDamaged, match=r"app\.db"):
        await _server(tmp_path).start()
    assert (tmp_path / "app.db").read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["app.db"]


async def test_a_database_of_the_application_is_shared(tmp_path: Path):
    with sqlite3.connect(tmp_path / "app.db") as connection:
        connection.execute("CREATE TABLE users (name TEXT)")
        connection.execute("INSERT INTO users VALUES ('ada')")
    connection.close()
    async with _server(tmp_path) as server:
        await server.workflows.run("echo", 1, timeout=30)
    with sqlite3.connect(tmp_path / "app.db") as connection:
        assert connection.execute("SELECT name FROM users").fetchall() == [("ada",)]
    connection.close()


async def test_places_where_no_database_can_be(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    for name, kind in (("missing/app.db", DatabaseUnavailable), ("folder", (DatabaseUnavailable, DatabaseDamaged))):
        with pytest.raises(kind, match=name):
            await _server(tmp_path, name=name).start()
    assert [p.name for p in tmp_path.rglob("*")] == ["folder"]


# --- settings ---------------------------------------------------------------------------------------------------------


async def test_settings_that_cannot_work_are_refused_with_their_names(tmp_path: Path):
    for make, word in (
        (lambda: WorkflowsConfig(launcher="thread"), "launcher"),
        (lambda: WorkflowsConfig(transport="pigeon"), "transport"),
        (lambda: WorkflowsConfig(resume="perhaps"), "resume"),
        (lambda: WorkflowsConfig(concurrent_workflows=-1), "concurrent_workflows"),
        (lambda: WorkflowsConfig(concurrent_workflows_by_name={"a": -1}), "concurrent_workflows_by_name"),
        (lambda: WorkflowsConfig(max_processes=0), "max_processes"),
        (lambda: WorkflowsConfig(ready_timeout="soon"), "ready_timeout"),
        (lambda: WorkflowsConfig(max_payload=0), "max_payload"),
        (lambda: WorkflowsConfig(cleanup_days=-1), "cleanup_days"),
        (lambda: WorkflowsConfig(colour="red"), "colour"),
        (lambda: WatchdogConfig(interval=0), "interval"),
        (lambda: WatchdogConfig(interval="20s"), "heartbeat_timeout"),
        (lambda: AppServer(tmp_path / "a.db", config=[1]), "config"),
    ):
        with pytest.raises(ConfigError, match=word):
            make()
    with pytest.raises(NotSerializable, match="config"):
        AppServer(tmp_path / "a.db", config={"x": object()})
    for field in (WorkflowsConfig().launcher, WatchdogConfig().interval):
        assert field
    with pytest.raises(ValueError, match="frozen"):
        WorkflowsConfig().launcher = "spawn"


async def test_a_config_is_the_same_in_server_and_child(tmp_path: Path):
    server = AppServer(
        tmp_path / "app.db", config={"pair": (1, 2), 3: "three"}, workflows=WorkflowsConfig(launcher="inline")
    )
    assert server.config == {"pair": [1, 2], "3": "three"}
