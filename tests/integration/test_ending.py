"""Cancel and step timeouts end a whole tree, whatever it does against it."""

import asyncio
import os
import time
from pathlib import Path

import pytest
from crashkit import DEADLINE, Stage, finished, history, kill, line, living, proven, until
from ledger import check, read, starts


async def cancelled(server, instance: str) -> None:
    """Cancel twice at once; see one event and no process."""
    answers = await asyncio.gather(*(server.workflows.cancel(instance) for _ in range(2)))
    assert sorted(answers) == [False, True]
    assert not await server.workflows.cancel(instance)
    await until(lambda: not living(f"PADDOCK_INSTANCE={instance}:"), "the end of the tree")
    found = await finished(server, instance)
    assert found.status == "cancelled"
    check(await history(server, instance), "workflow.cancelled")


@pytest.mark.parametrize("way", ["await", "ignore", "block", "gil", "compute", "headless"])
async def test_cancel_whatever_the_handler_does(stage: Stage, way: str):
    async with stage.server(kill_grace=0.5) as server:
        instance = await server.workflows.start("endless", {"way": way, "id": "one"}, id="one")
        child = (await line("begin", key="overlong"))["pid"]
        begun = time.monotonic()
        await cancelled(server, instance)
        assert time.monotonic() - begun < DEADLINE
        assert starts(child) is None
        assert not stage.sql("SELECT * FROM paddock_leases")


@pytest.mark.parametrize("stays", [False, True])
async def test_cancel_ends_the_family(stage: Stage, stays: bool):
    pids = stage.folder / "pids"
    async with stage.server(kill_grace=0.5) as server:
        instance = await server.workflows.start("family", {"id": "f", "pids": str(pids), "stays": True}, id="f")
        await line("family")
        assert await server.workflows.cancel(instance) is True
        assert not [pid for pid in pids.read_text().split() if starts(int(pid))]
        check(await history(server, instance), "workflow.cancelled")


async def test_the_family_is_gone_before_the_instance_is_resumed(stage: Stage):
    pids = stage.folder / "pids"
    async with stage.server() as server:
        instance = await server.workflows.start("family", {"id": "f", "pids": str(pids), "dies": True}, id="f")
        await line("family", attempt=1)
        first = [int(pid) for pid in pids.read_text().split()]
        await line("begin", attempt=2)
        assert not [pid for pid in first if starts(pid)]
        await proven(server, instance, "founded")
        # a finished instance leaves nobody either
        await until(lambda: not living("PADDOCK_INSTANCE=f:"), "the end of the tree")


@pytest.mark.parametrize("at_once", [True, False])
async def test_who_asks_for_a_cancel_may_go_away(stage: Stage, at_once: bool):
    """The end is not the caller's: a caller that is cancelled itself, before the commit returns or after, leaves no process behind."""
    async with stage.server(kill_grace=0.5) as server:
        instance = await server.workflows.start("endless", {"way": "ignore", "id": "one"}, id="one")
        child = (await line("begin"))["pid"]
        asking = asyncio.create_task(server.workflows.cancel(instance))
        await asyncio.wait({asking}, timeout=0 if at_once else 0.2)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await until(lambda: starts(child) is None, "the child's end")
        assert (await finished(server, instance)).status == "cancelled"


async def test_cancel_of_one_whose_process_is_dead_waits_for_no_grace(stage: Stage):
    async with stage.server(kill_grace=DEADLINE) as server:
        instance = await server.workflows.start("held", {"until": str(stage.flag)})
        kill((await line("begin", key="hold"))["pid"])
        async with asyncio.timeout(DEADLINE / 2):
            assert await server.workflows.cancel(instance) is True
        assert (await finished(server, instance)).error is None
        check(await history(server, instance), "workflow.cancelled")


async def test_cancel_while_the_child_is_born(stage: Stage):
    async with stage.server(launcher="spawn") as server:
        instances = [await server.workflows.start("held", {"until": str(stage.flag)}) for _ in range(3)]
        assert await asyncio.gather(*(server.workflows.cancel(instance) for instance in instances)) == [True] * 3
        for instance in instances:
            check(await history(server, instance), "workflow.cancelled")
        await until(lambda: not living("PADDOCK_INSTANCE="), "the end of all")
        assert not read("begin", key="last")


async def test_the_same_id_on_another_server_is_left_alone(stage: Stage):
    """Users choose ids, and one machine may have two servers: their families know each other apart."""
    (stage.folder / "other").mkdir()
    neighbour = Stage(stage.folder / "other")
    os.environ["PADDOCK_TEST_LEDGER"] = str(stage.folder / "ledger")
    ours, theirs = (str(folder / "pids") for folder in (stage.folder, neighbour.folder))
    async with stage.server(kill_grace=0.5) as server, neighbour.server() as other:
        await server.workflows.start("family", {"id": "f", "pids": ours, "stays": True}, id="f")
        await line("family")
        await other.workflows.start("family", {"id": "f", "pids": theirs, "stays": True}, id="f")
        await until(lambda: len(read("family")) == 2)
        living_there = [int(pid) for pid in Path(theirs).read_text().split()] + [read("family")[1]["pid"]]
        assert await server.workflows.cancel("f")
        assert not [pid for pid in Path(ours).read_text().split() if starts(int(pid))]
        assert [pid for pid in living_there if starts(pid)] == living_there


# --- step timeouts ---


@pytest.mark.parametrize(
    ("name", "way", "times"),
    [
        *(("timed", way, 1) for way in ("await", "ignore", "block", "gil", "compute")),
        ("timed-in-thread", "", 1),
        ("timed", "await", 9),
        ("timed", "block", 9),
        ("timed-in-thread", "", 9),
    ],
)
async def test_a_step_that_takes_too_long(stage: Stage, name: str, way: str, times: int):
    """It is stopped, spends an attempt and no resume, and is tried again; or fails when its attempts are spent."""
    async with stage.server(kill_grace=0.3, max_resumes=0, watchdog={"interval": 0.1, "kill_grace": 0.3}) as server:
        instance = await server.workflows.start(name, {"way": way, "times": times, "id": "one"}, id="one")
        found = await finished(server, instance)
        events = await history(server, instance)
        if times == 1:
            assert (found.status, found.output) == ("completed", "in time")
            check(events)
        else:
            assert found.error is not None
            assert (found.status, found.error.type, found.error.step) == ("failed", "StepTimeout", "overlong")
            check(events, "workflow.failed")
            assert [event.data["attempts"] for event in events if event.name == "workflow.step.failed"] == [2]
        assert [event.data["attempt"] for event in events if event.name == "workflow.step.started"] == [1, 2]
        (retried,) = [event for event in events if event.name == "workflow.step.retry"]
        assert (retried.data["attempt"], retried.data["delay"]) == (1, 0.2)
        first, second = (event.created_at for event in events if event.name == "workflow.step.started")
        assert (second - first).total_seconds() >= 1.19, "its timeout and the delay have passed, whoever ended the try"
        assert found.step_results["overlong"].attempts == 2
        await until(lambda: not living("PADDOCK_INSTANCE=one:"), "the end of the tree")


async def test_nothing_of_it_goes_on_after_a_timeout(stage: Stage):
    """A handler in a thread cannot be stopped but by the end of its process, before the next attempt begins."""
    async with stage.server(kill_grace=0.3) as server:
        await server.workflows.start("timed-in-thread", {"times": 1}, id="one")
        again = await line("begin", attempt=2)
        assert not again["twins"]
        assert (await finished(server, "one")).output == "in time"
