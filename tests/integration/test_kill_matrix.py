"""The kill matrix: at each named point of server, child, watchdog and fork server, the one that passes is killed, stopped, or cancelled.

Kills of children stand in `test_child_crashes.py`, at every passing; those of the watchdog in `test_watching.py`; here are the rest, and
a table that says for each point which test tries it.
"""

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from crashflows import THREE, result_of
from crashkit import WATCHFUL, Faults, ServerProcess, Stage, finished, history, line, proven, until
from ledger import check, read, starts

from paddock import AppServer, ServerAlreadyRunning
from paddock.runtime.base.probes import POINTS

CHILD = [
    *(
        "child.born",
        "child.leased",
        "child.connect",
        "child.import",
        "child.plugins",
        "child.ready",
        "child.step.begun",
    ),
    *("child.step.returned", "child.commit.inside", "child.commit.unsynced", "child.commit.after", "child.waiting"),
]
"""Points that every instance of `held-everything` passes before it ends."""
LAST = ["child.ended", "child.teardown"]
AT_WORK = [
    *("server.start.before", "server.start.inserted", "server.claim.before", "server.claim.after", "server.fork.sent"),
    *("server.born", "server.settle.before", "server.settle.after"),
]
"""Points that a server passes for each instance that it runs."""
ELSEWHERE = {
    "server.cancelled": "test_the_server_killed_in_a_cancel",
    "server.signalled": "test_the_server_killed_with_a_signal_stored",
    "server.listening": "test_ten_kills_of_the_server_during_one_step",
    "server.takeover": "test_ten_kills_of_the_server_during_one_step",
    "server.taken": "test_ten_kills_of_the_server_during_one_step",
    "server.resume": "test_the_next_server_killed_as_it_takes_over",
    "server.migrate": "test_the_server_killed_in_a_migration",
    "server.drain": "test_the_server_killed_as_it_stops",
    "server.checkpoint": "test_the_server_killed_in_a_checkpoint",
    "server.room": "test_the_server_killed_as_it_makes_room",
    "forkserver.request": "test_the_fork_server_killed_at_work",
    "forkserver.forked": "test_the_fork_server_killed_at_work",
    "forkserver.reaped": "test_the_fork_server_killed_at_work",
    "watchdog.boot": "test_a_watchdog_killed_at_work",
    "watchdog.killing": "test_a_watchdog_killed_at_work",
    "watchdog.killed": "test_a_watchdog_killed_at_work",
    "watchdog.asked": "test_a_watchdog_killed_between_term_and_kill",
}


def test_every_point_is_tried():
    assert {*CHILD, *LAST, *AT_WORK, *ELSEWHERE} == set(POINTS)
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert not [name for name in ELSEWHERE.values() if f"def {name}(" not in text]


def state(pid: int) -> str:
    """Return a process's state letter, "" once it is gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]
    return ""


async def finishes(server: AppServer, answer: dict[str, Any], name: str = "everything") -> None:
    """Let the next server finish the instance, which was started if that was acknowledged."""
    if await server.workflows.get_instance("one") is None:
        assert not answer, "an instance that was acknowledged is gone"
        await server.workflows.start(name, {"n": 3}, id="one")
    await proven(server, "one", result_of(3))


# --- the server, killed ---


@pytest.mark.parametrize("point", AT_WORK)
async def test_the_server_killed_at_work(stage: Stage, point: str):
    faults = Faults(stage, None, {point: "kill"})
    dying = await stage.process(only="everything", environ=faults.environ)
    await dying.ready()
    faults.arm(point)
    answer = await dying.ask("start", name="everything", input={"n": 3}, id="one")
    assert await dying.died() == -signal.SIGKILL
    assert faults.fired(point)
    async with stage.server() as server:
        await finishes(server, answer)


async def test_the_next_server_killed_as_it_takes_over(stage: Stage):
    """Twice, with a child that lives and one that has died meanwhile: the third goes on with the same child."""
    dying = await stage.process()
    await dying.ready()
    for name in ("one", "two"):
        await dying.ask("start", name="held", input={"until": str(stage.flag)}, id=name)
        await line("begin", key="hold", instance=name)
    await dying.kill()
    child, victim = (read("begin", key="hold", instance=name)[0]["pid"] for name in ("one", "two"))
    os.kill(victim, signal.SIGKILL)
    faults = Faults(stage, None, {"server.resume": "kill"})
    for nth in (1, 2):
        faults.arm("server.resume", nth)
        assert await (await stage.process(environ=faults.environ)).died() == -signal.SIGKILL
    stage.let_go()
    async with stage.server() as server:
        assert (await proven(server, "one", THREE)).executions == 1
        assert (await proven(server, "two", THREE)).executions == 2
    assert {entry["pid"] for entry in read("begin", instance="one")} == {child}


async def test_the_server_killed_in_a_migration(stage: Stage):
    """A half-made schema is no schema: the next server makes it whole."""
    faults = Faults(stage, None, {"server.migrate": "kill"})
    faults.arm("server.migrate")
    assert await (await stage.process(environ=faults.environ)).died() == -signal.SIGKILL
    assert not stage.sql("SELECT name FROM sqlite_master")
    async with stage.server() as server:
        await proven(server, await server.workflows.start("everything", {"n": 3}), result_of(3))


async def test_the_server_killed_as_it_stops(stage: Stage):
    """The children have been told to stop, and there is nobody left to see it."""
    faults = Faults(stage, None, {"server.drain": "kill"})
    dying = await stage.process(environ=faults.environ)
    await dying.ready()
    for name in ("one", "two"):
        await dying.ask("start", name="held", input={"until": str(stage.flag)}, id=name)
        await line("begin", key="hold", instance=name)
    faults.arm("server.drain")
    dying.close_input()
    assert await dying.died() == -signal.SIGKILL
    stage.let_go()
    async with stage.server() as server:
        for name in ("one", "two"):
            found = await proven(server, name, THREE)
            assert found.executions <= 2


async def test_the_server_killed_in_a_checkpoint(stage: Stage):
    """With the write lock held: it goes with the process, and the children commit on."""
    faults = Faults(stage, None, {"server.checkpoint": "kill"})
    dying = await stage.process(environ=faults.environ)
    await dying.ready()
    faults.arm("server.checkpoint")
    answer = await dying.ask("start", name="large", input={"text": "x" * 1000, "times": 2000}, id="big")
    assert await dying.died() == -signal.SIGKILL
    async with stage.server() as server:
        if answer:
            assert (await finished(server, "big")).output == "x" * 2_000_000
        await proven(server, await server.workflows.start("everything", {"n": 3}), result_of(3))
    assert stage.sql("PRAGMA integrity_check") == [("ok",)]


async def test_the_server_killed_as_it_makes_room(stage: Stage):
    """The WAL holds two megabytes of a transaction that never was; what was committed before and after it is there."""
    stage.let_go()
    async with stage.server() as server:
        await proven(server, await server.workflows.start("held", {"until": str(stage.flag)}, id="before"), THREE)
    faults = Faults(stage, None, {"server.room": "kill"})
    faults.arm("server.room")
    assert await (await stage.process(environ=faults.environ)).died() == -signal.SIGKILL
    assert Path(f"{stage.db}-wal").stat().st_size >= 2 * 2**20
    async with stage.server() as server:
        await proven(server, "before", THREE)
        await proven(server, await server.workflows.start("everything", {"n": 3}), result_of(3))
    assert stage.sql("PRAGMA integrity_check") == [("ok",)]


async def test_the_server_killed_in_a_cancel(stage: Stage):
    """The row says cancelled, the process lives: the next server ends it, and nothing of it counts any more."""
    faults = Faults(stage, None, {"server.cancelled": "kill"})
    dying = await stage.process(environ=faults.environ)
    await dying.ready()
    await dying.ask("start", name="held", input={"until": str(stage.flag)}, id="one")
    child = (await line("begin", key="hold"))["pid"]
    faults.arm("server.cancelled")
    assert await dying.ask("cancel", id="one") == {}
    assert await dying.died() == -signal.SIGKILL
    async with stage.server() as server:
        found = await finished(server, "one")
        assert found.status == "cancelled"
        await until(lambda: starts(child) is None, "the child's end")
        check(await history(server, "one"), "workflow.cancelled")
        assert not await server.workflows.cancel("one")
        assert not stage.sql("SELECT * FROM paddock_leases")
    assert not read("begin", key="last")


async def test_the_server_killed_in_a_cancel_of_a_family(stage: Stage):
    """What an instance has started is cancelled with it, in one commit: nobody is left to work on for nobody."""
    faults = Faults(stage, None, {"server.cancelled": "kill"})
    dying = await stage.process(environ=faults.environ)
    await dying.ready()
    await dying.ask("start", name="leading", input={"until": str(stage.flag)}, id="one")
    begun = await line("begin", key="hold")
    faults.arm("server.cancelled")
    assert await dying.ask("cancel", id="one") == {}
    stage.let_go()
    async with stage.server() as server:
        for instance in ("one", begun["instance"]):
            assert (await finished(server, instance)).status == "cancelled"
            check(await history(server, instance), "workflow.cancelled")
        await until(lambda: starts(begun["pid"]) is None, "the child's end")
        await until(lambda: not stage.sql("SELECT * FROM paddock_leases"), "the slots")


async def test_the_server_killed_with_a_signal_stored(stage: Stage):
    """Nobody told the child; it finds the signal by itself, or its successor does."""
    faults = Faults(stage, None, {"server.signalled": "kill"})
    dying = await stage.process(environ=faults.environ)
    await dying.ready()
    await dying.ask("start", name="asking", input=None, id="one")
    await until(lambda: stage.sql("SELECT 1 FROM paddock_steps WHERE status = 'waiting'"), "the wait")
    faults.arm("server.signalled")
    assert await dying.ask("signal", id="one", name="go", payload=7) == {}
    async with stage.server() as server:
        assert (await finished(server, "one")).output == 7


# --- stopped for a while ---


async def test_the_server_stopped_at_each_point(stage: Stage):
    """Its children do not notice, another server is refused, and continued it goes on as if nothing had been."""
    faults = Faults(stage, None, dict.fromkeys(AT_WORK, "stop"))
    slow = await stage.process(environ=faults.environ, orphan_grace=0.5)
    await slow.ready()
    await slow.ask("start", name="held", input={"until": str(stage.flag)}, id="held")
    child = (await line("begin", key="hold"))["pid"]
    for n, point in enumerate(AT_WORK):
        faults.arm(point)
        asking = asyncio.create_task(slow.ask("start", name="everything", input={"n": n + 1}, id=f"at-{point}"))
        await until(lambda: state(slow.pid) == "T", point)
        with pytest.raises(ServerAlreadyRunning, match=str(slow.pid)):
            await stage.server().start()
        os.kill(slow.pid, signal.SIGCONT)
        assert (await asking)["id"] == f"at-{point}"
        assert (await slow.ask("wait", id=f"at-{point}"))["status"] == "completed"
    stage.let_go()
    assert (await slow.ask("wait", id="held"))["status"] == "completed"
    await stop(slow)
    async with stage.server() as server:
        for n, point in enumerate(AT_WORK):
            assert (await proven(server, f"at-{point}", result_of(n + 1))).executions == 1
        assert (await proven(server, "held", THREE)).executions == 1
    assert {entry["pid"] for entry in read("begin", instance="held")} == {child}


async def stop(server: ServerProcess) -> None:
    """Stop a server process in peace."""
    server.close_input()
    assert await server.died() == 0


async def test_children_stopped_at_each_point(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    """Each is ended by the watchdog and its instance resumed; who has committed its end needs no successor."""
    points = [*CHILD, *LAST]
    faults = Faults(stage, monkeypatch, dict.fromkeys(points, "stop"))
    async with stage.server(watchdog=WATCHFUL, max_processes=30) as server:
        for n, point in enumerate(points, start=1):
            faults.arm(point)
            await server.workflows.start("everything", {"n": n}, id=f"at-{point}")
            await until(lambda: faults.fired(point), point)  # noqa: B023  awaited here
        for n, point in enumerate(points, start=1):
            found = await proven(server, f"at-{point}", result_of(n))
            assert point not in LAST or found.executions == 1
        await until(lambda: not stage.sql("SELECT * FROM paddock_leases"), "the slots")


async def test_a_child_that_is_ended_from_outside(stage: Stage):
    """SIGTERM of a stranger is a death like any other: the instance is resumed."""
    async with stage.server() as server:
        instance = await server.workflows.start("held", {"until": str(stage.flag)})
        os.kill((await line("begin", key="hold"))["pid"], signal.SIGTERM)
        await line("begin", key="hold", attempt=2)
        stage.let_go()
        assert (await proven(server, instance, THREE)).executions == 2


# --- cancelled ---


async def test_cancel_at_each_point(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    """The child stands still at a point: a cancel sticks, ends it, and frees its slot, wherever that is.

    One that stands still with the write lock is ended by the watchdog first, which needs no lock.
    """
    faults = Faults(stage, monkeypatch, dict.fromkeys(CHILD, "stop"))
    async with stage.server(kill_grace=0.1, watchdog=WATCHFUL) as server:
        for point in CHILD:
            faults.arm(point)
            instance = await server.workflows.start("everything", {"n": 2})
            await until(lambda: faults.fired(point), point)  # noqa: B023  awaited here
            assert await server.workflows.cancel(instance) is True
            await until(lambda: not stage.sql("SELECT * FROM paddock_leases"), "the slot")
            assert (await finished(server, instance)).status == "cancelled"
            check(await history(server, instance), "workflow.cancelled")


async def test_a_cancel_races_the_end(stage: Stage):
    """Whoever comes first: one terminal event, and the answer says which."""
    stage.let_go()
    async with stage.server() as server:
        for n in range(12):
            instance = await server.workflows.start("held", {"until": str(stage.flag)})
            await line("begin", key="first" if n % 2 else "last", instance=instance)
            won = await server.workflows.cancel(instance)
            found = await finished(server, instance)
            assert found.status == ("cancelled" if won else "completed")
            check(await history(server, instance), f"workflow.{found.status}")
