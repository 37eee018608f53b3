"""Fork server, watchdog and server, killed one by one and all at once: the next of them goes on where the last was."""

import asyncio
import errno
import os
import signal
import sys
from typing import Any

import pytest
from contractplugins import Failing, WhereConfig
from crashflows import THREE, result_of
from crashkit import Faults, Stage, finished, history, kill, line, living, pid_of, proven, until
from ledger import read, starts

from paddock import AppServer, PluginSetupError, RunDirectoryError, WorkflowsConfig
from paddock.runtime.server import exits
from paddock.runtime.server.children import Child
from paddock.runtime.server.hub import Hub
from paddock.runtime.server.settler import Settler
from paddock.runtime.server.takeover import TakeOver
from paddock.watchdog.identity import ProcessHandle, ProcessIdentity

# --- the fork server ---


@pytest.mark.parametrize("point", ["forkserver.request", "forkserver.forked", "forkserver.reaped"])
@pytest.mark.parametrize("launcher", ["fork", "spawn"])
async def test_the_fork_server_killed_at_work(stage: Stage, monkeypatch: pytest.MonkeyPatch, point: str, launcher: str):
    faults = Faults(stage, monkeypatch, {point: "kill"})
    async with stage.server(launcher=launcher) as server:
        before = await pid_of(server, "fork-server")
        faults.arm(point)
        instances = [await server.workflows.start("everything", {"n": n}) for n in (2, 3)]
        for n, instance in zip((2, 3), instances, strict=True):
            await proven(server, instance, result_of(n))
        await until(lambda: faults.fired(point), point)
        await pid_of(server, "fork-server", other_than=before)


async def test_the_fork_server_killed_while_it_is_idle_and_while_children_run(stage: Stage):
    async with stage.server() as server:
        before = await pid_of(server, "fork-server")
        instance = await server.workflows.start("held", {"until": str(stage.flag)})
        child = (await line("begin", key="hold"))["pid"]
        kill(before)
        await pid_of(server, "fork-server", other_than=before)
        await proven(server, await server.workflows.start("everything", {"n": 2}), result_of(2))
        stage.let_go()
        found = await proven(server, instance, THREE)
        assert found.executions == 1
        assert {entry["pid"] for entry in read("begin", instance=instance)} == {child}


async def test_a_child_that_was_born_unseen(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    """The fork server stands still after the fork, and dies for it: nobody was told of the child, but its lease names it."""
    faults = Faults(stage, monkeypatch, {"forkserver.forked": "stop"})
    async with stage.server() as server:
        before = await pid_of(server, "fork-server")
        faults.arm("forkserver.forked")
        instance = await server.workflows.start("held", {"until": str(stage.flag)})
        child = (await line("begin", key="hold"))["pid"]
        await pid_of(server, "fork-server", other_than=before)
        await proven(server, await server.workflows.start("everything", {"n": 2}), result_of(2))
        stage.let_go()
        assert (await proven(server, instance, THREE)).executions == 1
        assert {entry["pid"] for entry in read("begin", instance=instance)} == {child}


async def test_a_child_killed_after_its_fork_server(stage: Stage):
    """Nobody can tell how it died, but it did, and its family goes with it."""
    async with stage.server() as server:
        pids = stage.folder / "pids"
        instance = await server.workflows.start("family", {"id": "f1", "pids": str(pids), "stays": True}, id="f1")
        child = (await line("family", instance="f1"))["pid"]
        before = await pid_of(server, "fork-server")
        kill(before)
        await pid_of(server, "fork-server", other_than=before)
        family = [int(pid) for pid in pids.read_text().split()]
        kill(child)
        again = await line("begin", instance=instance, attempt=2)
        assert not again["twins"]
        assert not [pid for pid in family if starts(pid)]
        assert await server.workflows.cancel(instance)


# --- the watchdog ---


async def test_the_watchdog_is_replaced(stage: Stage):
    async with stage.server() as server:
        before = await pid_of(server, "watchdog")
        for _ in range(2):
            kill(before)
            before = await pid_of(server, "watchdog", other_than=before)  # how soon is for `make recovery` to say


@pytest.mark.parametrize("role", ["watchdog", "fork-server"])
async def test_a_stopped_helper_is_replaced(stage: Stage, role: str):
    """A stopped watchdog watches nobody, and a stopped fork server would hold up every start."""
    async with stage.server() as server:
        before = await pid_of(server, role)
        os.kill(before, signal.SIGSTOP)
        instance = await server.workflows.start("everything", {"n": 2})
        await pid_of(server, role, other_than=before)
        assert starts(before) is None
        await proven(server, instance, result_of(2))


# --- the server ---


async def finishes(server: AppServer, answer: dict[str, Any]) -> None:
    """Let the next server finish the instance, which was started if that was acknowledged."""
    if await server.workflows.get_instance("one") is None:
        assert not answer, "an instance that was acknowledged is gone"
        await server.workflows.start("everything", {"n": 3}, id="one")
    await proven(server, "one", result_of(3))


@pytest.mark.parametrize("nth", [1, 2, 4, 6])
async def test_the_server_killed_in_a_transaction(stage: Stage, nth: int):
    """The point is the store's, so it may also be the child that dies: then the server does not even stop."""
    faults = Faults(stage, None, {"child.commit.inside": "kill"})
    dying = await stage.process(only="everything", environ=faults.environ)
    await dying.ready()
    faults.arm("child.commit.inside", nth)
    answer = await dying.ask("start", name="everything", input={"n": 3}, id="one")
    await until(lambda: faults.fired("child.commit.inside"))
    await dying.close()
    async with stage.server() as server:
        await finishes(server, answer)


@pytest.mark.parametrize(
    ("name", "transport"), [("held", "unix"), ("held", "tcp"), ("held-in-thread", "unix"), ("held-loop", "unix")]
)
async def test_the_next_server_adopts_the_children(stage: Stage, name: str, transport: str):
    dying = await stage.process(transport=transport)
    await dying.ready()
    await dying.ask("start", name=name, input={"until": str(stage.flag)}, id="one")
    child = (await line("begin", key="hold"))["pid"]
    await dying.kill()
    seen: list[int] = []
    async with stage.server(transport=transport) as server:
        server.events.on("*", lambda event: seen.append(event.id))
        found = await server.workflows.get_instance("one")
        assert found is not None
        assert (found.status, found.pid, found.executions) == ("running", child, 1)
        stage.let_go()
        found = await proven(server, "one", THREE)
        assert found.executions == 1
        assert {entry["pid"] for entry in read(instance="one")} == {child}
        everything = [event.id for event in await history(server, "one")]
    assert everything == list(range(1, len(everything) + 1))
    assert seen == everything[-len(seen) :]


async def test_a_child_that_died_while_no_server_looked(stage: Stage):
    dying = await stage.process()
    await dying.ready()
    await dying.ask("start", name="held", input={"until": str(stage.flag)}, id="one")
    child = (await line("begin", key="hold"))["pid"]
    await dying.kill()
    kill(child)
    await until(lambda: starts(child) is None)
    stage.let_go()
    async with stage.server() as server:
        found = await proven(server, "one", THREE)
        assert found.executions == 2


async def test_a_stopped_child_of_a_dead_server(stage: Stage):
    """The next server leaves it to the watchdog, and nothing that it does later counts."""
    dying = await stage.process(watchdog={"enabled": False})
    await dying.ready()
    await dying.ask("start", name="held", input={"until": str(stage.flag)}, id="one")
    child = (await line("begin", key="hold"))["pid"]
    os.kill(child, signal.SIGSTOP)
    await dying.kill()
    stage.let_go()
    async with stage.server(watchdog={"interval": 0.1, "heartbeat_timeout": 0.6}) as server:
        await proven(server, "one", THREE)
        await until(lambda: starts(child) is None)  # continued for its stacks, it may have come to its end by itself


async def test_all_killed_at_once(stage: Stage):
    dying = await stage.process()
    await dying.ready()
    names = ["one", "two", "three"]
    for name in names:
        await dying.ask("start", name="held", input={"until": str(stage.flag)}, id=name)
        await line("begin", key="hold", instance=name)
    pids = (await dying.ask("pids"))["pids"]
    assert len(pids) == 6
    for pid in pids.values():
        kill(pid)
    await dying.died()
    stage.let_go()
    async with stage.server() as server:
        for name in names:
            await proven(server, name, THREE)


async def test_without_a_next_server_all_is_gone_after_the_grace(stage: Stage):
    """Children that wait on the loop, in a thread, in code that blocks the loop, and in code that holds the GIL."""
    dying = await stage.process(orphan_grace=1.0, kill_grace=1.0)
    await dying.ready()
    for name in ("held", "held-in-thread", "held-loop"):
        await dying.ask("start", name=name, input={"until": str(stage.flag)}, id=name)
        await line("begin", key="hold", instance=name)
    await dying.ask("start", name="endless", input={"way": "gil", "id": "gil"}, id="gil")
    await line("begin", instance="gil")
    pids = (await dying.ask("pids"))["pids"]
    await dying.kill()
    await until(lambda: not [pid for pid in pids.values() if starts(pid)], "the end of all")
    assert not living("PADDOCK_INSTANCE=")
    stage.let_go()
    async with stage.server() as server:
        for name in ("held", "held-in-thread", "held-loop"):
            found = await finished(server, name)
            assert found.output == THREE
        assert await server.workflows.cancel("gil")


async def test_leases_of_another_boot_belong_to_nobody(stage: Stage):
    """After a reboot the pid is somebody else's: it is neither waited for nor touched."""
    dying = await stage.process()
    await dying.ready()
    await dying.ask("start", name="held", input={"until": str(stage.flag)}, id="one")
    child = (await line("begin", key="hold"))["pid"]
    for pid in (await dying.ask("pids"))["pids"].values():
        kill(pid)
    await dying.died()
    await until(lambda: starts(child) is None)
    stranger = await asyncio.create_subprocess_exec("sleep", "600")
    try:
        stage.sql_write(
            "UPDATE paddock_leases SET boot_id = 'another', pid = ?, pid_start = ?", stranger.pid, starts(stranger.pid)
        )
        stage.let_go()
        async with stage.server() as server:
            await proven(server, "one", THREE)
        assert starts(stranger.pid) is not None
    finally:
        stranger.kill()
        await stranger.wait()


async def test_a_child_that_comes_back_before_it_is_known(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    """The next server listens before it has taken over: whoever asks meanwhile waits for the answer, and is not sent away."""
    dying = await stage.process()
    await dying.ready()
    await dying.ask("start", name="held", input={"until": str(stage.flag)}, id="one")
    child = (await line("begin", key="hold"))["pid"]
    await dying.kill()
    came = asyncio.Event()
    talk, take_over = Hub.talk, TakeOver.run

    async def noted(self: Hub, connection: Any, hello: Any) -> None:
        came.set()
        await talk(self, connection, hello)

    async def late(self: TakeOver) -> None:
        await came.wait()
        await asyncio.sleep(0)
        await take_over(self)

    monkeypatch.setattr(Hub, "talk", noted)
    monkeypatch.setattr(TakeOver, "run", late)
    async with stage.server() as server:
        stage.let_go()
        found = await proven(server, "one", THREE)
        assert found.executions == 1
        assert [row["pid"] for row in read("begin", key="hold")] == [child]


@pytest.mark.parametrize(("where", "transport"), [("plugin", "unix"), ("takeover", "tcp")])
async def test_a_start_that_fails_leaves_the_children_to_the_next(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, where: str, transport: str
):
    dying = await stage.process(transport=transport)
    await dying.ready()
    await dying.ask("start", name="held", input={"until": str(stage.flag)}, id="one")
    child = (await line("begin", key="hold"))["pid"]
    await dying.kill()
    with monkeypatch.context() as patched:
        if where == "plugin":
            failing = AppServer(stage.db, plugins=[Failing(WhereConfig(where="server"))])
        else:
            failing = stage.server(transport=transport)
            patched.setattr(TakeOver, "run", _fails)
        with pytest.raises(PluginSetupError if where == "plugin" else ConnectionError, match="no way through"):
            await failing.start()
    async with stage.server(transport=transport) as server, asyncio.timeout(60):
        while not any(row["pid"] == child and row["last_beat"] for row in await server.processes()):
            await asyncio.sleep(0.02)  # it beats into a table that this server sees
        stage.let_go()
        found = await proven(server, "one", THREE)
        assert found.executions == 1
        assert {entry["pid"] for entry in read(instance="one")} == {child}


async def _fails(_take_over: TakeOver) -> None:
    raise ConnectionError("no way through")


@pytest.mark.parametrize("transport", ["unix", "tcp"])
async def test_a_run_directory_has_one_server(stage: Stage, transport: str):
    """Of two databases, in this process and in two: the second is refused, and the first one's children work on."""
    run_dir = stage.folder / "run"
    async with stage.server(run_dir=run_dir, transport=transport) as server:
        await server.workflows.start("held", {"until": str(stage.flag)}, id="one")
        child = (await line("begin", key="hold"))["pid"]
        config = WorkflowsConfig(transport=transport)
        with pytest.raises(RunDirectoryError, match=f"{os.getpid()}.*of its own"):
            await AppServer(stage.folder / "other.db", run_dir=run_dir, workflows=config).start()
        program = (
            "import asyncio, sys; from paddock import AppServer, WorkflowsConfig\n"
            "server = AppServer(sys.argv[1], run_dir=sys.argv[2], workflows=WorkflowsConfig(transport=sys.argv[3]))\n"
            "asyncio.run(server.start())"
        )
        command = (sys.executable, "-P", "-c", program, stage.folder / "other.db", run_dir, transport)
        other = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
        said = (await other.communicate())[1].decode()
        assert f"another server's (process {os.getpid()} for {os.path.realpath(stage.db)})" in said, said
        assert not [name for name in os.listdir(stage.folder) if name.startswith("other.db")]
        assert (await server.health())["ok"]
        stage.let_go()
        assert (await proven(server, "one", THREE)).executions == 1
        assert {entry["pid"] for entry in read(instance="one")} == {child}
    assert not run_dir.exists()


async def test_a_child_is_watched_though_no_descriptor_is_left_to_look_with(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    refusals = [OSError(errno.EMFILE, "Too many open files")] * 3
    opened, settle = ProcessHandle.open, Settler.settle

    def open_(identity: ProcessIdentity) -> ProcessHandle | None:
        if refusals:
            raise refusals.pop()
        return opened(identity)

    async def settle_(settler: Settler, child: Child) -> bool:
        if not stage.flag.exists():
            stage.let_go()
            raise OSError(errno.EMFILE, "Too many open files")
        return await settle(settler, child)

    async with stage.server(max_processes=1) as server:
        monkeypatch.setattr(exits.ProcessHandle, "open", open_)
        monkeypatch.setattr(Settler, "settle", settle_)
        for n in (2, 3):
            await proven(server, await server.workflows.start("everything", {"n": n}), result_of(n))
    assert not refusals
