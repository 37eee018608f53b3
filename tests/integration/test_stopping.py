"""A clean stop in the middle of work: all stays resumable, nothing is left running, and it does not take long."""

import asyncio
import sys
import time
from pathlib import Path

import pytest
from crashflows import THREE
from crashkit import DEADLINE, Stage, line, living, pid_of, proven, until
from ledger import read, starts


@pytest.mark.parametrize("launcher", ["fork", "spawn"])
async def test_an_idle_server_stops_at_once(stage: Stage, launcher: str):
    server = stage.server(launcher=launcher, kill_grace=2 * DEADLINE)
    await server.start()
    await proven(
        server,
        await server.workflows.start("everything", {"n": 1}),
        [{"left": 0, "right": "at last"}, "ready", 2, {"planned": 1}],
    )
    await until(lambda: not stage.sql("SELECT * FROM paddock_leases"))
    begun = time.monotonic()
    await server.stop()
    assert time.monotonic() - begun < DEADLINE  # there is nobody to give a grace to


async def test_a_stop_in_the_middle_of_long_steps(stage: Stage):
    names = ["held", "held-in-thread", "held-loop"]
    async with stage.server(kill_grace=0.5) as server:
        for name in names:
            await server.workflows.start(name, {"until": str(stage.flag)}, id=name)
            await line("begin", key="hold", instance=name)
        begun = time.monotonic()
    assert time.monotonic() - begun < DEADLINE
    assert not living("PADDOCK_INSTANCE=")
    assert not stage.sql("SELECT * FROM paddock_leases")
    assert stage.sql("SELECT DISTINCT status, crash_count FROM paddock_instances") == [("pending", 0)]
    stage.let_go()
    async with stage.server() as server:
        for name in names:
            found = await proven(server, name, THREE)
            assert found.executions == 2


async def test_a_step_that_ends_within_the_grace_is_not_run_again(stage: Stage):
    server = stage.server(kill_grace=20.0)
    await server.start()
    await server.workflows.start("held", {"until": str(stage.flag)}, id="one")
    await line("begin", key="hold")
    stopping = asyncio.create_task(server.stop())
    await until(lambda: server._running is None)
    stage.let_go()
    await stopping
    assert [entry["attempt"] for entry in read("begin", key="hold")] == [1]
    async with stage.server() as server:
        await proven(server, "one", THREE)
    assert [entry["attempt"] for entry in read("begin", key="hold")] == [1]


async def test_a_stop_ends_children_that_an_earlier_server_has_made(stage: Stage):
    first = await stage.process(only="held")
    await first.ready()
    await first.ask("start", name="held", input={"until": str(stage.flag)}, id="one")
    child = (await line("begin", key="hold"))["pid"]
    await first.kill()
    async with stage.server(kill_grace=0.3) as server:
        assert [row["pid"] for row in await server.processes() if row["role"] == "child"] == [child]
    assert starts(child) is None
    assert not stage.sql("SELECT * FROM paddock_leases")
    assert stage.sql("SELECT status, crash_count FROM paddock_instances") == [("pending", 0)]


async def test_a_stuck_handler_does_not_hold_up_the_stop(stage: Stage):
    async with stage.server(kill_grace=0.5) as server:
        await server.workflows.start("endless", {"way": "ignore", "id": "a"}, id="a")
        await server.workflows.start("family", {"stays": True, "id": "b", "pids": str(stage.folder / "pids")}, id="b")
        await line("begin", instance="a")
        await line("family", instance="b")
        begun = time.monotonic()
    assert time.monotonic() - begun < DEADLINE
    assert not living("PADDOCK_INSTANCE=")


@pytest.mark.parametrize("launcher", ["fork", "spawn"])
@pytest.mark.parametrize("started", [0, 1])
async def test_a_stop_while_children_are_born(stage: Stage, launcher: str, started: int):
    """Before the fork server is warm, and when the first children are there."""
    stage.let_go()
    names = ["a", "b", "c"]
    async with stage.server(launcher=launcher) as server:
        for name in names:
            await server.workflows.start("held", {"until": str(stage.flag)}, id=name)
        await until(lambda: len(read("begin", key="first")) >= started)
    assert not living("PADDOCK_INSTANCE=")
    assert not stage.sql("SELECT * FROM paddock_leases")
    async with stage.server(launcher=launcher) as server:
        for name in names:
            await proven(server, name, THREE)


async def test_a_stop_while_the_fork_server_is_stuck(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    """A module that is slow to import holds up the children, and not the stop."""
    (stage.folder / "slow_module.py").write_text(
        "import os, time\nfrom paddock import workflow\n"
        "def do() -> int: return 1\nslow = workflow('slow').task('do', do).build()\n"
        "if os.environ.get('SLOW'): open(os.environ['SLOW'], 'w').close(); time.sleep(600)\n"
    )
    monkeypatch.syspath_prepend(str(stage.folder))
    import slow_module

    try:
        importing = Path(stage.folder / "importing")
        monkeypatch.setenv("SLOW", str(importing))
        server = stage.server(kill_grace=0.3)
        server.workflows.register(slow_module.slow)
        await server.start()
        await server.workflows.start("slow", id="one")
        await until(importing.exists)
        begun = time.monotonic()
        await server.stop()
        assert time.monotonic() - begun < DEADLINE  # and not the import's minute
        monkeypatch.delenv("SLOW")
        async with stage.server() as server:
            server.workflows.register(slow_module.slow)  # blocked at the start, for want of it; now it goes on
            await until(lambda: stage.sql("SELECT status FROM paddock_instances") == [("completed",)])
    finally:
        del sys.modules["slow_module"]


async def test_a_stop_right_after_the_start(stage: Stage):
    for _ in range(3):
        async with stage.server() as server:
            await server.workflows.start("everything", {"n": 1})
    assert not stage.sql("SELECT * FROM paddock_leases")
    assert not living("PADDOCK_INSTANCE=")


async def test_a_stop_while_watchdog_and_fork_server_are_being_replaced(stage: Stage):
    async with stage.server() as server:
        from crashkit import kill

        pids = [await pid_of(server, "watchdog"), await pid_of(server, "fork-server")]
        for pid in pids:
            kill(pid)
        await until(lambda: not [pid for pid in pids if starts(pid)])
    # the guard of every test sees whether one was started that nobody stops


async def test_a_stop_in_the_middle_of_a_claim(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    """A claim that is committed is handed over before the stop goes on: nobody is left with a slot, or with a process."""
    stage.let_go()
    server = stage.server()
    await server.start()
    dispatcher = server._running.dispatcher
    claimed, go_on = asyncio.Event(), asyncio.Event()
    claim = dispatcher._store.claim

    async def slow_claim(*arguments):
        found = await claim(*arguments)
        if found:
            claimed.set()
            await go_on.wait()
        return found

    monkeypatch.setattr(dispatcher._store, "claim", slow_claim)
    await server.workflows.start("held", {"until": str(stage.flag)}, id="one")
    await claimed.wait()
    stopping = asyncio.create_task(server.stop())
    await until(lambda: server._running is None)
    asyncio.get_running_loop().call_later(0.1, go_on.set)
    await stopping
    assert not stage.sql("SELECT * FROM paddock_leases")
    assert not living("PADDOCK_INSTANCE=")
    async with stage.server() as server:
        await proven(server, "one", THREE)
