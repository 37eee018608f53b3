"""The watchdog with real children: who is stopped is ended and resumed, who is busy is left alone."""

import asyncio
import os
import signal
import time

import pytest
from crashflows import THREE
from crashkit import DEADLINE, WATCHFUL, Faults, Stage, history, line, proven, until
from ledger import starts

from paddock.watchdog.identity import process_state


async def test_a_stopped_child_is_ended_with_its_stacks_and_resumed(stage: Stage):
    async with stage.server(watchdog=WATCHFUL) as server:
        instance = await server.workflows.start("held", {"until": str(stage.flag)})
        child = (await line("begin", key="hold"))["pid"]
        os.kill(child, signal.SIGSTOP)
        await line("begin", key="hold", attempt=2)
        stage.let_go()
        found = await proven(server, instance, THREE)
        assert found.executions == 2
        events = await history(server, instance)
        names = [event.name for event in events]
        order = [
            names.index(name) for name in ("workflow.watchdog.stale", "workflow.watchdog.killed", "workflow.resumed")
        ]
        assert order == sorted(order)
        assert names.count("workflow.watchdog.stale") == names.count("workflow.watchdog.killed") == 1
        stale, killed = (events[at].data for at in order[:2])
        assert (stale["pid"], stale["reason"]) == (child, "stopped")
        assert killed["pid"] == child
        assert "paddock-pulse" in killed["stack"] or "pulse.py" in killed["stack"]
        assert killed["stack"].count("most recent call first") >= 2  # of all threads


async def test_a_child_stopped_before_it_began(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PADDOCK_FAULTS", "child.import:1:stop,child.plugins:2:stop")
    monkeypatch.setenv("PADDOCK_FAULT_DIR", str(stage.folder))
    stage.let_go()
    async with stage.server(watchdog=WATCHFUL) as server:
        await proven(server, await server.workflows.start("held", {"until": str(stage.flag)}), THREE)


@pytest.mark.parametrize("stall", [None, 0.4])
async def test_a_child_stopped_with_the_write_lock(stage: Stage, monkeypatch: pytest.MonkeyPatch, stall: float | None):
    """Nobody can write until the watchdog, which needs no database, ends it; nobody else is ended for that, though its loop stands still."""
    faults = Faults(stage, monkeypatch, {"child.commit.inside": "stop"})

    async def kills() -> int:
        return [event.name for event in await history(server)].count("workflow.watchdog.killed")

    watchdog = {
        **WATCHFUL,
        "heartbeat_timeout": 2.0 if stall else WATCHFUL["heartbeat_timeout"],
        "stall_timeout": stall,
    }
    async with stage.server(watchdog=watchdog) as server:
        instances = [await server.workflows.start("held", {"until": str(stage.flag)})]
        await line("begin", key="hold")
        faults.arm("child.commit.inside", 1)
        instances.append(await server.workflows.start("held", {"until": str(stage.flag)}))
        await until(lambda: faults.fired("child.commit.inside"), "the stop")
        stage.let_go()
        await until(kills, "the kill")
        for instance in instances:
            await proven(server, instance, THREE)
        assert await kills() == 1


async def test_a_child_stopped_before_its_sync_holds_up_nobody(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    """It has given the write lock back, and what it committed is told, for whoever sees it makes sure of the disk."""
    faults = Faults(stage, monkeypatch, {"child.commit.unsynced": "stop"})
    async with stage.server() as server:
        faults.arm("child.commit.unsynced", 2)
        stopped = await server.workflows.start("held", {"until": str(stage.flag)})
        await until(lambda: faults.fired("child.commit.unsynced"), "the stop")
        async with asyncio.timeout(DEADLINE):
            async for event in server.events.subscribe(instance_id=stopped, after=0):
                if event.name == "workflow.step.started":
                    break
        stage.let_go()
        await proven(server, await server.workflows.start("held", {"until": str(stage.flag)}), THREE)
        found = await server.workflows.get_instance(stopped)
        assert (found.status, found.executions) == ("running", 1)
        os.kill(found.pid, signal.SIGCONT)
        assert (await proven(server, stopped, THREE)).executions == 1


async def test_the_busy_are_left_alone(stage: Stage):
    """Computing in Python, and in C with the GIL held for longer than the heartbeat's timeout."""
    async with stage.server(watchdog={**WATCHFUL, "heartbeat_timeout": 0.4}) as server:
        python = await server.workflows.start("busy", {"until": str(stage.flag)})
        c = await server.workflows.start("busy-in-c", {"seconds": 2.0})
        blocked = await server.workflows.start("held-loop", {"until": str(stage.flag)})
        await proven(server, c, "computed")
        stage.let_go()
        await proven(server, python, "computed")
        await proven(server, blocked, THREE)
        assert not [event for event in await history(server) if event.name.startswith("workflow.watchdog")]


async def test_the_stacks_of_a_busy_one_are_taken_and_it_goes_on(stage: Stage):
    """Its thread computes while they are taken: read from a signal's handler its frames would kill it within a few tries."""
    async with stage.server() as server:
        instance = await server.workflows.start("busy-in-thread", {"until": str(stage.flag)})
        await line("begin", key="compute")
        for _ in range(8):
            assert "in compute_in_thread" in (await server.stacks(instance, timeout=20)).text
        stage.let_go()
        assert (await proven(server, instance, "computed")).executions == 1


async def test_the_stacks_of_one_that_cannot_answer_are_taken_too(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    """C code holds the GIL; and a stopped one is stopped again."""
    monkeypatch.setattr("paddock.runtime.server.stacks._SIGNALLED", DEADLINE)  # a busy machine's answer takes longer
    enough = stage.folder / "enough"
    async with stage.server() as server:
        instance = await server.workflows.start("busy-in-c", {"until": str(enough)})
        await line("begin", key="compute")
        assert "in compute_in_c" in (await server.stacks(instance, timeout=4.0)).text
        enough.touch()
        found = await proven(server, instance, "computed")
        assert found.executions == 1
        held = await server.workflows.start("held", {"until": str(stage.flag)})
        child = (await line("begin", key="hold", instance=held))["pid"]
        os.kill(child, signal.SIGSTOP)
        await until(lambda: process_state(child)[0] == "T", "the stop")
        assert "most recent call first" in (await server.stacks(held, timeout=20)).text
        await until(lambda: process_state(child)[0] == "T", "the stop again")
        os.kill(child, signal.SIGCONT)
        stage.let_go()
        assert (await proven(server, held, THREE)).executions == 1


async def test_a_server_that_does_nothing_for_long_costs_no_child(stage: Stage):
    """A handler of an event that blocks the server's loop, here this test's: nobody needs it to be seen alive."""
    async with stage.server(watchdog=WATCHFUL) as server:
        instance = await server.workflows.start("held", {"until": str(stage.flag)})
        await line("begin", key="hold")
        time.sleep(3 * WATCHFUL["heartbeat_timeout"])
        stage.let_go()
        assert (await proven(server, instance, THREE)).executions == 1
        assert not [event for event in await history(server) if event.name.startswith("workflow.watchdog")]


async def test_a_deadlock_with_the_gil_held_is_ended(stage: Stage):
    async with stage.server(watchdog=WATCHFUL, max_resumes=0) as server:
        found = await server.workflows.wait(await server.workflows.start("endless", {"way": "gil", "id": "x"}))
        assert (found.status, found.error and found.error.type) == ("failed", "CrashLoop")
        assert found.error is not None
        assert "overlong" in (found.error.stack or "")


@pytest.mark.parametrize("point", ["watchdog.boot", "watchdog.killing", "watchdog.killed"])
async def test_a_watchdog_killed_at_work(stage: Stage, monkeypatch: pytest.MonkeyPatch, point: str):
    """Its successor goes on with the same child, and the server tells of it once."""
    faults = Faults(stage, monkeypatch, {point: "kill"})
    faults.arm(point)
    async with stage.server(watchdog=WATCHFUL) as server:
        instance = await server.workflows.start("held", {"until": str(stage.flag)})
        child = (await line("begin", key="hold"))["pid"]
        os.kill(child, signal.SIGSTOP)
        await line("begin", key="hold", attempt=2)
        stage.let_go()
        await proven(server, instance, THREE)
        names = [event.name for event in await history(server, instance)]
        assert names.count("workflow.watchdog.stale") == names.count("workflow.watchdog.killed") == 1
        assert starts(child) is None
        assert faults.fired(point)


async def test_a_watchdog_killed_between_term_and_kill(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    """It had asked only: its successor finds the child again, deaf to SIGTERM as it is, and ends it."""
    faults = Faults(stage, monkeypatch, {"watchdog.asked": "kill"})
    faults.arm("watchdog.asked")
    async with stage.server(watchdog={**WATCHFUL, "kill_grace": 20.0}, max_resumes=0) as server:
        instance = await server.workflows.start("endless", {"way": "deaf", "id": "x"})
        child = (await line("begin"))["pid"]
        await until(lambda: faults.fired("watchdog.asked"), "the first watchdog's end")
        assert starts(child) is not None
        os.kill(child, signal.SIGSTOP)  # who is stopped is not asked: the successor need not wait for its grace
        found = await server.workflows.wait(instance, timeout=DEADLINE)
        assert (found.status, found.error and found.error.type) == ("failed", "CrashLoop")
        assert starts(child) is None
